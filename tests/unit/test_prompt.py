from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmc.errors import BundleError, CheckpointError, RecipeError
from slmc.prompt import PROMPT_FILE, Codec, compile_prompt
from slmc.recipe import LoadedRecipe, load_recipe

from .conftest import CHAT, write_tokenizer


def with_template(folder: Path, template: str | None) -> LoadedRecipe:
    write_tokenizer(folder / "base", template)
    return load_recipe(folder)


def compiled(recipe: LoadedRecipe) -> Codec:
    return compile_prompt(recipe, recipe.folder / "base", recipe.examples("eval.jsonl"))


def test_a_chat_template_becomes_prefix_message_suffix(recipe_folder: Path) -> None:
    form = compiled(load_recipe(recipe_folder)).format
    assert (form.prefix, form.suffix, form.trim) == ("<|user|>", "<|end|><|assistant|>", True)
    assert form.render({"text": "  hi \n"}) == "<|user|>hi<|end|><|assistant|>"
    assert form.end_token == "<|end|>"


def test_an_untrimmed_template_keeps_white_space(recipe_folder: Path) -> None:
    codec = compiled(with_template(recipe_folder, CHAT.replace(" | trim", "")))
    assert codec.format.render({"text": " hi "}) == "<|user|> hi <|end|><|assistant|>"


def test_system_text_and_variables_reach_the_template(recipe_folder: Path) -> None:
    path = recipe_folder / "recipe.yaml"
    path.write_text(path.read_text().replace("{kind: chat}", "{kind: chat, system: Be brief., variables: {think: no}}"))
    codec = compiled(with_template(recipe_folder, CHAT + "{% if not think %}<no>{% endif %}"))
    assert codec.format.prefix == "<|system|>Be brief.<|end|><|user|>"
    assert codec.format.suffix.endswith("<|assistant|><no>")


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "2 times"),
        ("{{ messages[0]['content'] | replace(' ', '') }}", "white space"),
        ("nothing", "0 times"),
        ("{{ raise_exception('no') }}", "refuses the prompt: no"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_refused(recipe_folder: Path, template: str, match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        compiled(with_template(recipe_folder, template))


def test_a_template_that_treats_some_item_in_its_own_way_is_caught(recipe_folder: Path) -> None:
    recipe = with_template(recipe_folder, CHAT.replace("m['content'] | trim", "m['content'] | replace('no', 'yes')"))
    with pytest.raises(RecipeError, match="item '1'"):
        compiled(recipe)


def test_no_template_or_tokenizer_is_told(recipe_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no chat template"):
        compiled(with_template(recipe_folder, None))
    (recipe_folder / "base" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        compiled(with_plain(recipe_folder))


def test_a_damaged_tokenizer_is_told(recipe_folder: Path) -> None:
    (recipe_folder / "base" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="can't be read"):
        compiled(load_recipe(recipe_folder))


def with_plain(folder: Path) -> LoadedRecipe:
    path = folder / "recipe.yaml"
    plain = '{kind: plain, template: "Say: {text}\\nAnswer:", answer_prefix: " "}'
    path.write_text(path.read_text().replace("{kind: chat}", plain))
    return load_recipe(folder)


def test_a_plain_prompt_and_its_answers(recipe_folder: Path) -> None:
    codec = compiled(with_plain(recipe_folder))
    text, ids = codec.prompt({"text": "no"})
    assert text == "Say: no\nAnswer:"
    assert codec.encode(text) == ids
    answer = codec.answer("yes")
    assert answer[-1] == codec.end_id
    assert codec.decode(answer) == "yes"
    assert codec.encode(text + " yes") == ids + answer[:-1]


def test_braces_in_items_stay_braces(recipe_folder: Path) -> None:
    assert compiled(load_recipe(recipe_folder)).format.render({"text": "{text} {x}"}).startswith("<|user|>{text} {x}")


def test_a_label_that_the_tokenizer_cannot_spell(recipe_folder: Path) -> None:
    path = recipe_folder / "base" / "tokenizer.json"
    raw = json.loads(path.read_text())
    del raw["model"]["vocab"]["y"]
    path.write_text(json.dumps(raw))
    codec = compile_prompt(load_recipe(recipe_folder), recipe_folder / "base", [])
    with pytest.raises(RecipeError, match="can't spell the label 'yes'"):
        codec.check_labels(["no", "yes"])


def test_a_label_that_holds_the_end_token_is_refused(recipe_folder: Path) -> None:
    codec = compiled(load_recipe(recipe_folder))
    with pytest.raises(RecipeError, match="can't spell"):
        codec.check_labels(["a", "b<|end|>"])


def test_the_stored_format_reads_back(recipe_folder: Path, tmp_path: Path) -> None:
    codec = compiled(load_recipe(recipe_folder))
    (recipe_folder / "base" / PROMPT_FILE).write_text(codec.format.model_dump_json())
    again = Codec.open(recipe_folder / "base")
    fields = {"text": "grüß dich 👋"}
    assert again.prompt(fields) == codec.prompt(fields)
    (recipe_folder / "base" / PROMPT_FILE).write_text('{"prefix": 1}')
    with pytest.raises(BundleError, match="prefix"):
        Codec.open(recipe_folder / "base")
