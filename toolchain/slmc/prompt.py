"""The prompt contract: how an item's fields become a prompt's tokens, and an answer its tokens.

A chat template is a program; a phone should not run one. `compile_prompt` runs it here and
keeps what it amounts to for one user message: text before, the message, text after. What
does not amount to that is refused, and every evaluation item is held against the template.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from slmc.errors import BundleError, CheckpointError, RecipeError
from slmc.recipe import ChatPrompt, Example, LoadedRecipe, PlainPrompt
from slmc.strict import Strict, parse

PROMPT_FILE = "prompt.json"
TOKENIZER_FILE = "tokenizer.json"
_MARK = "\ue000message\ue001"  # private-use characters: no template treats them specially


class PromptFormat(Strict):
    """`prefix + message + suffix`, the message being the template with an item's fields."""

    prefix: str
    message: str
    """With `{field}` placeholders; braces are doubled."""
    suffix: str
    trim: bool
    """The chat template strips white space around the message (Python's `str.strip`)."""
    answer_prefix: str
    """Stands between the prompt and every answer, such as a space."""
    special_tokens: bool
    """The tokenizer adds its own (BOS); a chat template writes them itself."""
    end_token: str
    end_id: int
    """What the model writes when its answer is done."""

    @property
    def fields(self) -> list[str]:
        """What the message's placeholders name, each once."""
        return list(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(self.message) if name))

    def render(self, fields: Mapping[str, str]) -> str:
        message = self.message.format_map(fields)
        return self.prefix + (message.strip() if self.trim else message) + self.suffix


class Codec:
    """A prompt format with its tokenizer: text to ids and back. Reads `tokenizer.json` and `prompt.json`."""

    def __init__(self, tokenizer: Tokenizer, form: PromptFormat) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.format = form
        self.end_id = form.end_id
        self._tokenizer = tokenizer
        self._probe = form.prefix + "a" + form.suffix
        self._probe_ids = self.encode(self._probe)

    @classmethod
    def open(cls, folder: Path) -> Codec:
        """Raises BundleError where a file is missing or damaged."""
        path = folder / PROMPT_FILE
        try:
            form = parse(PromptFormat, json.loads(path.read_text(encoding="utf-8")), path, BundleError)
        except (OSError, ValueError) as error:
            raise BundleError(f"the prompt format can't be read: {error}", where=path) from None
        return cls(_read_tokenizer(folder / TOKENIZER_FILE), form)

    def save(self, folder: Path) -> None:
        """Write what `open` reads into a new folder."""
        folder.mkdir()
        self.write_tokenizer(folder / TOKENIZER_FILE)
        write_format(self.format, folder)

    def write_tokenizer(self, path: Path) -> None:
        """Without what would truncate or pad."""
        self._tokenizer.save(str(path))

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def prompt(self, fields: Mapping[str, str]) -> tuple[str, list[int]]:
        text = self.format.render(fields)
        return text, self.encode(text)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=self.format.special_tokens).ids
        return ids

    def encode_bare(self, text: str) -> list[int]:
        """Without the tokens that the tokenizer adds of its own."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @property
    def begin_ids(self) -> list[int]:
        """What the tokenizer adds before a prompt of its own, such as BOS."""
        bare = self.encode_bare(self._probe)
        count = next(i for i in range(len(self._probe_ids)) if self._probe_ids[i : i + len(bare)] == bare)
        return self._probe_ids[:count]

    def decode(self, ids: Sequence[int]) -> str:
        """The answer that these ids spell, without its prefix and special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.removeprefix(self.format.answer_prefix)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer as they follow a prompt, then the end token.

        Raises RecipeError where the tokenizer would merge the answer into the prompt's last token.
        """
        both = self.encode(self._probe + self.format.answer_prefix + text)
        start = len(self._probe_ids)
        if both[:start] != self._probe_ids:
            raise RecipeError(
                f"the tokenizer merges the prompt's end with the answer {text!r}",
                where="prompt",
                todo="end the template before a space, and give the space as answer_prefix",
            )
        return [*both[start:], self.end_id]

    def check_labels(self, labels: Sequence[str]) -> None:
        """Every label must come back from its own tokens, and differ from the others."""
        seen: dict[tuple[int, ...], str] = {}
        for label in labels:
            ids = tuple(self.answer(label))
            if self.end_id in ids[:-1] or self.decode(ids[:-1]) != label:
                raise RecipeError(
                    f"the tokenizer can't spell the label {label!r}: its tokens read {self.decode(ids[:-1])!r}",
                    where="task.labels",
                    todo="rename the label to what the model was trained to answer, in characters it knows",
                )
            if ids in seen:
                raise RecipeError(f"labels {seen[ids]!r} and {label!r} have the same tokens", where="task.labels")
            seen[ids] = label


def write_format(form: PromptFormat, folder: Path) -> None:
    """Same format, same bytes."""
    text = json.dumps(form.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
    (folder / PROMPT_FILE).write_text(text + "\n", encoding="utf-8")


def compile_prompt(recipe: LoadedRecipe, checkpoint: Path, examples: Iterable[Example]) -> Codec:
    """The recipe's prompt for a checkpoint's tokenizer, checked against the template on the examples.

    Raises RecipeError where the template can't be expressed, CheckpointError where the tokenizer is unusable.
    """
    tokenizer = _read_tokenizer(checkpoint / TOKENIZER_FILE)
    prompt = recipe.recipe.prompt
    if isinstance(prompt, PlainPrompt):
        return Codec(tokenizer, _plain_format(prompt, tokenizer, checkpoint))
    template = ChatTemplate(checkpoint)
    form = _chat_format(prompt, template, tokenizer)
    for example in examples:
        wanted = template.render(prompt, prompt.user.format_map(example.fields))
        if form.render(example.fields) != wanted:
            raise RecipeError(
                f"the chat template treats item {example.id!r} in its own way",
                where=template.path,
                expected=f"{form.render(example.fields)!r}",
                todo="use a plain prompt, or a template that puts the message in as it is",
            )
    return Codec(tokenizer, form)


def _plain_format(prompt: PlainPrompt, tokenizer: Tokenizer, checkpoint: Path) -> PromptFormat:
    end = _special_tokens(checkpoint).get("eos_token")
    if end is None:
        raise CheckpointError("no eos_token, so an answer could not end", where=checkpoint / "tokenizer_config.json")
    return PromptFormat(
        prefix="",
        message=prompt.template,
        suffix="",
        trim=False,
        answer_prefix=prompt.answer_prefix,
        special_tokens=True,
        end_token=end,
        end_id=_token_id(tokenizer, end, checkpoint),
    )


def _chat_format(prompt: ChatPrompt, template: ChatTemplate, tokenizer: Tokenizer) -> PromptFormat:
    around = template.render(prompt, _MARK).split(_MARK)
    if len(around) != 2:
        raise RecipeError(
            f"the chat template puts the message in {len(around) - 1} times",
            where=template.path,
            expected="once",
            todo="use a plain prompt",
        )
    spaced = template.render(prompt, f" \n{_MARK} \n")
    trim = spaced == _MARK.join(around)
    if not trim and spaced != f" \n{_MARK} \n".join(around):
        raise RecipeError(
            "the chat template changes the message's white space in a way that can't be compiled",
            where=template.path,
            todo="use a plain prompt",
        )
    end = template.end_token(prompt, tokenizer)
    return PromptFormat(
        prefix=around[0],
        message=prompt.user,
        suffix=around[1],
        trim=trim,
        answer_prefix="",
        special_tokens=False,
        end_token=end,
        end_id=_token_id(tokenizer, end, template.path),
    )


class ChatTemplate:
    """A checkpoint's chat template, run as transformers runs it, but without the clock."""

    def __init__(self, checkpoint: Path) -> None:
        self._tokens = _special_tokens(checkpoint)
        self.path, source = _template_source(checkpoint)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = _raise_from_template
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"the chat template can't be parsed: {error}", where=self.path) from None

    def render(self, prompt: ChatPrompt, message: str, answer: str | None = None) -> str:
        """The conversation up to where the model answers; or, with an answer, through its end."""
        messages = [{"role": "user", "content": message}]
        if prompt.system is not None:
            messages.insert(0, {"role": "system", "content": prompt.system})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        values = {**self._tokens, **prompt.variables}
        try:
            return self._template.render(messages=messages, add_generation_prompt=answer is None, **values)
        except TemplateError as error:
            raise RecipeError(f"the chat template refuses the prompt: {error}", where=self.path) from None

    def end_token(self, prompt: ChatPrompt, tokenizer: Tokenizer) -> str:
        """The special token that the template writes right after an assistant's message."""
        after = self.render(prompt, "a", answer=_MARK).rpartition(_MARK)[2]
        specials = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        found = [token for token in specials if after.startswith(token)]
        eos = self._tokens.get("eos_token")
        if not found and eos is None:
            raise CheckpointError("neither the chat template nor eos_token says how an answer ends", where=self.path)
        return max(found, key=len) if found else str(eos)


def _raise_from_template(message: str) -> None:
    raise TemplateError(message)


def _template_source(checkpoint: Path) -> tuple[Path, str]:
    path = checkpoint / "chat_template.jinja"
    if path.is_file():
        return path, path.read_text(encoding="utf-8")
    path = checkpoint / "tokenizer_config.json"
    template = _json_object(path).get("chat_template")
    if not isinstance(template, str):
        raise CheckpointError(
            "the tokenizer has no chat template",
            where=checkpoint,
            expected="chat_template.jinja, or a chat_template string in tokenizer_config.json",
            todo="use `prompt: {kind: plain, template: ...}` if the model was tuned without one",
        )
    return path, template


def _special_tokens(checkpoint: Path) -> dict[str, str]:
    """bos_token, eos_token and their kind, by name, as tokenizer_config.json has them."""
    tokens: dict[str, str] = {}
    for key, value in _json_object(checkpoint / "tokenizer_config.json").items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            tokens[key] = text
    return tokens


def _json_object(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} can't be read: {error}", where=path) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path.name} is not a JSON object", where=path)
    return found


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise CheckpointError(
            "no tokenizer.json", where=path.parent, todo="save the tokenizer with transformers' fast tokenizer class"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for any malformed file
        raise CheckpointError(f"tokenizer.json can't be read: {error}", where=path) from None


def _token_id(tokenizer: Tokenizer, token: str, where: Path) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(f"the tokenizer does not know its own token {token!r}", where=where)
    return int(found)
