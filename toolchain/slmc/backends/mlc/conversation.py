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

MESSAGE = "{user_message}"
"""In the user's template."""


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
        "role_templates": {"user": user_template(form), "assistant": "{assistant_message}", "tool": "{tool_message}"},
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
    """What an app hands to the engine for an item: its one field, or the message made of all."""
    if user_template(form) != MESSAGE:
        return fields[form.fields[0]]
    message = form.message.format_map(fields)
    return message.strip() if form.trim else message


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
    content = template["role_templates"]["user"].replace(MESSAGE, message, 1)
    text = user + content + template["seps"][0] + roles["assistant"] + template["role_empty_sep"]
    return [*template["system_prefix_token_ids"], *codec.encode_bare(text)]


def user_template(form: PromptFormat) -> str:
    """What stands around the prompt's only field; with several, or where white space is taken off, the message alone.

    The engine takes no white space off.
    """
    written = form.message.format_map(dict.fromkeys(form.fields, MESSAGE))
    single = len(form.fields) == 1 and written.count(MESSAGE) == 1
    return written if single and not form.trim else MESSAGE
