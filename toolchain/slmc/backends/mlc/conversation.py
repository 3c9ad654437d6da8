"""A recipe's prompt as one of MLC's conversation templates, and the engine's reading of it to check that by.

The engine puts a user's message into text as `cpp/json_ffi/conv_template.cc` of mlc-ai/mlc-llm has it, and encodes the
whole of it without the tokens that a tokenizer adds of its own; these stand before as `system_prefix_token_ids`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slmc.errors import CompileError
from slmc.prompt import Codec, PromptFormat
from slmc.recipe import Example

_MESSAGE = "{user_message}"


def conversation(codec: Codec) -> dict[str, Any]:
    """The template. Every key is there, as the engine on phones demands.

    What surrounds the message is the user's role and what stands before an empty answer; what the recipe writes
    around a single field is the user's own template. With several fields the app writes the message.
    """
    form = codec.format
    return {
        "name": "slmc",
        "system_template": "{system_message}",
        "system_message": "",
        "system_prefix_token_ids": codec.begin_ids,
        "add_role_after_system_message": True,
        "roles": {"user": form.prefix, "assistant": "", "tool": ""},
        "role_templates": {"user": _user_template(form), "assistant": "{assistant_message}", "tool": "{tool_message}"},
        "messages": [],
        "seps": [""],
        "role_content_sep": "",
        "role_empty_sep": form.suffix,
        "stop_str": [],
        "stop_token_ids": [codec.end_id],
        "function_string": "",
        "use_function_calling": False,
    }


def message_of(form: PromptFormat, fields: Mapping[str, str]) -> str:
    """What an app hands to the engine for an item: its one field, or the message made of several.

    White space that the prompt takes off is off, as the engine does not.
    """
    whole = _whole_field(form)
    if whole is None:
        message = form.message.format_map(fields)
        return message.strip() if form.trim else message
    message = fields[form.fields[0]]
    if form.trim and whole.strip().startswith(_MESSAGE):
        message = message.lstrip()
    if form.trim and whole.strip().endswith(_MESSAGE):
        message = message.rstrip()
    return message


def check_conversation(codec: Codec, template: Mapping[str, Any], examples: Iterable[Example], where: Path) -> None:
    """Raises CompileError for the first item that the engine would read as other tokens than the recipe does."""
    for example in examples:
        _, wanted = codec.prompt(example.fields)
        found = engine_ids(codec, template, message_of(codec.format, example.fields))
        if found != wanted:
            raise CompileError(
                f"MLC's engine would read item {example.id!r} as {found}",
                where=where,
                expected=f"{wanted}, as the recipe's prompt has it",
                todo="use a prompt whose tokenizer adds tokens at its beginning alone",
            )


def engine_ids(codec: Codec, template: Mapping[str, Any], message: str) -> list[int]:
    """As the engine reads one user message and the start of an answer."""
    roles = template["roles"]
    user = roles["user"] + template["role_content_sep"]
    content = template["role_templates"]["user"].replace(_MESSAGE, message, 1)
    text = user + content + template["seps"][0] + roles["assistant"] + template["role_empty_sep"]
    return [*template["system_prefix_token_ids"], *codec.encode_bare(text)]


def _user_template(form: PromptFormat) -> str:
    written = _whole_field(form)
    if written is None:
        return _MESSAGE
    return written.strip() if form.trim else written


def _whole_field(form: PromptFormat) -> str | None:
    """The recipe's template around a single field; None where there are several, or one that stands twice."""
    if len(form.fields) != 1:
        return None
    written = form.message.format_map({form.fields[0]: _MESSAGE})
    return written if written.count(_MESSAGE) == 1 else None
