"""A recipe's prompt as MLC's template: the engine reads the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from slmc.backends.mlc.conversation import check_conversation, conversation, engine_ids, message_of
from slmc.errors import CompileError
from slmc.prompt import Codec, PromptFormat
from slmc.recipe import Example

texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["", " ", "{text}", "{user_message}", "{assistant_message}", "<|end|>", "<s>", " a\n", "\\", "👋"]
)
around = st.sampled_from(["", " ", "\n", "Say: ", "<|user|>", "{{", "}}", "é"])
special_tokens = pytest.mark.parametrize("special_tokens", [True, False])


BEGIN, END = 256, 257


def tokenizer(template: str = "<s> $A") -> Tokenizer:
    """Every byte is a token; a prompt of its own gets what the template says."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens(["<s>", "<|end|>", "<|user|>", "<|assistant|>"])
    specials = [("<s>", BEGIN), ("<|end|>", END)]
    found.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    return found


def codec(
    message: str,
    prefix: str = "",
    suffix: str = "",
    trim: bool = False,
    special_tokens: bool = False,
    template: str = "<s> $A",
) -> Codec:
    return Codec(
        tokenizer(template),
        PromptFormat(
            prefix=prefix,
            message=message,
            suffix=suffix,
            trim=trim,
            answer_prefix="",
            special_tokens=special_tokens,
            end_token="<|end|>",
            end_id=END,
        ),
    )


def read(one: Codec, fields: dict[str, str]) -> list[int]:
    return engine_ids(one, conversation(one), message_of(one.format, fields))


CHAT = codec("{text}", "<|user|>\n", "<|end|>\n<|assistant|>\n")
TRIMMED = codec("{text}", "<|user|>\n", "<|end|>\n<|assistant|>\n", trim=True)
PLAIN = codec("Say: {text}\nAnswer:", special_tokens=True)
BARE = codec("{text}", special_tokens=True)
AROUND = codec("Say: {text}\nIs it?", "<|user|>", "<|assistant|>", trim=True)


@pytest.mark.parametrize("one", [CHAT, TRIMMED, PLAIN, BARE, AROUND])
@given(text=texts)
def test_the_engine_reads_one_field_as_the_recipe_does(one: Codec, text: str) -> None:
    assert read(one, {"text": text}) == one.prompt({"text": text})[1]


@given(before=around, between=around, after=around, trim=st.booleans(), first=texts, second=texts)
def test_the_engine_reads_several_fields_as_the_recipe_does(
    before: str, between: str, after: str, trim: bool, first: str, second: str
) -> None:
    for message in ("{a}%s{b}", "{a}%s{a}"):
        one = codec(before + message % between + after, "<|user|>", "<|end|>", trim=trim)
        fields = {"a": first, "b": second} if "{b}" in message else {"a": first}
        assert read(one, fields) == one.prompt(fields)[1]


@special_tokens
@given(before=around, after=around, prefix=around, suffix=around, text=texts)
def test_the_engine_reads_what_the_recipe_writes_around_a_field(
    special_tokens: bool, before: str, after: str, prefix: str, suffix: str, text: str
) -> None:
    one = codec(f"{before}{{text}}{after}", prefix, suffix, special_tokens=special_tokens)
    assert read(one, {"text": text}) == one.prompt({"text": text})[1]


@given(before=around, after=around, text=texts.filter(lambda text: text.strip() != ""))
@example(before="Say: ", after=" ", text="hi ")
@example(before=" ", after=", he said", text=" hi")
def test_white_space_of_a_template_and_of_its_field_meet(before: str, after: str, text: str) -> None:
    one = codec(f"{before}{{text}}{after}", "<|user|>", "<|end|>", trim=True)
    assert read(one, {"text": text}) == one.prompt({"text": text})[1]


@pytest.mark.parametrize(("message", "text"), [("Say: {text}", " "), ("{text} ?", "")])
def test_a_blank_field_at_the_edge_of_a_trimmed_template(message: str, text: str) -> None:
    one = codec(message, "<|user|>", "<|end|>", trim=True)
    assert read(one, {"text": text}) == one.prompt({"text": text})[1]


def test_an_app_hands_over_the_field_alone() -> None:
    assert message_of(PLAIN.format, {"text": " hi "}) == " hi "
    assert message_of(TRIMMED.format, {"text": " hi \n"}) == "hi"
    assert message_of(codec("{a} or {b}?").format, {"a": "x", "b": "y"}) == "x or y?"


def test_what_the_tokenizer_puts_first_stands_before_the_template() -> None:
    assert conversation(PLAIN)["system_prefix_token_ids"] == [BEGIN]
    assert conversation(CHAT)["system_prefix_token_ids"] == []


def test_an_answer_ends_where_the_recipe_s_does() -> None:
    assert conversation(CHAT)["stop_token_ids"] == [END]


@pytest.mark.parametrize("one", [CHAT, PLAIN, codec("{a} or {b}?")])
def test_every_key_that_the_engine_on_phones_demands_is_there(one: Codec) -> None:
    """`Conversation::FromJSON` of cpp/json_ffi/conv_template.cc; other types are errors there too."""
    template = conversation(one)
    for key in ("system_template", "system_message", "role_content_sep", "role_empty_sep"):
        assert type(template[key]) is str, key
    assert type(template["add_role_after_system_message"]) is bool
    for key in ("roles", "role_templates"):
        assert {"user", "assistant", "tool"} <= template[key].keys()
        assert all(type(text) is str for text in template[key].values())
    for key in ("messages", "seps", "stop_str", "stop_token_ids", "system_prefix_token_ids"):
        assert type(template[key]) is list, key
    assert all(type(token) is int for key in ("stop_token_ids", "system_prefix_token_ids") for token in template[key])
    assert len(template["seps"]) in (1, 2)
    assert "" not in template["stop_str"]
    assert template["role_templates"]["user"].count("{user_message}") == 1


def test_a_tokenizer_that_adds_tokens_at_the_end_is_refused() -> None:
    one = codec("Say: {text}", special_tokens=True, template="<s> $A <|end|>")
    with pytest.raises(CompileError, match="item 'first'") as caught:
        check_conversation(one, conversation(one), [Example("first", {"text": "hi"}, "yes")], Path("model"))
    assert (caught.value.where, f"{END}]" in str(caught.value.expected)) == ("model", True)


def test_the_first_item_that_is_read_otherwise_is_named() -> None:
    examples = [Example(str(i), {"text": text}, "yes") for i, text in enumerate(("a", "b", "c", "b"))]
    check_conversation(CHAT, conversation(CHAT), examples, Path("model"))
    template = conversation(codec("{text}", "<|user|>\n", "<|end|>"))
    with pytest.raises(CompileError, match="item '0'"):
        check_conversation(CHAT, template, examples, Path("model"))
    check_conversation(CHAT, template, [], Path("model"))
