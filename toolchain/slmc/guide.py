"""A bundle's README.md: what a mobile engineer adds to the app, and the lines that load the model and ask it.

The template's facts of ExecuTorch's packages are from its sources and packages of the version that the bundle names.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import jinja2

from slmc.backends.executorch.profiles import PROFILES
from slmc.backends.executorch.tools import TESTED
from slmc.bundle.golden import GoldenItem
from slmc.bundle.manifest import Manifest
from slmc.models.exported import FOUNDATION, PROGRAM, read_exported
from slmc.prompt import Codec, PromptFormat
from slmc.recipe import Classify

TEMPLATE = Path(__file__).with_name("guide.md.j2")
_KOTLIN = {"$": "\\$"}
"""What a Kotlin string escapes beside what JSON does."""


def make_guide(manifest: Manifest, artifact: Path, codec: Codec, golden: Sequence[GoldenItem]) -> str | None:
    """Markdown; None for a backend without a guide. `artifact` is what the backend made."""
    if manifest.delegation is None:
        return None
    foundation = read_exported(artifact).foundation_sha256
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - Markdown
    task = manifest.recipe.task
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        manifest=manifest,
        delegate=manifest.delegation.delegate,
        title=PROFILES[manifest.delegation.delegate].title,
        version=TESTED,
        program=f"{manifest.artifact}/{PROGRAM}",
        tokenizer=f"{manifest.tokenizer}/tokenizer.json",
        kotlin=_expression(codec.format, ".trim()", _KOTLIN),
        swift=_expression(codec.format, ".trimmingCharacters(in: .whitespacesAndNewlines)", {}),
        fields=_fields(codec.format),
        end=json.dumps(codec.format.end_token),
        begin=codec.begin_tokens,
        foundation=None if foundation is None else f"{manifest.artifact}/{FOUNDATION}",
        foundation_sha256=foundation,
        most=None if isinstance(task, Classify) else task.max_tokens,
        longest=max((len(codec.answer(label)) for label in manifest.labels), default=0),
        example=golden[0],
    )


def _fields(form: PromptFormat) -> list[str]:
    return list(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(form.message) if name))


def _expression(form: PromptFormat, trim: str, escapes: dict[str, str]) -> str:
    """The prompt as an expression of strings and the fields' names; Kotlin and Swift write both alike."""

    def literal(text: str) -> str:
        quoted = json.dumps(text, ensure_ascii=False)
        for char, escaped in escapes.items():
            quoted = quoted.replace(char, escaped)
        return quoted

    parts = []
    for text, name, _, _ in string.Formatter().parse(form.message):
        parts += [literal(text)] if text else []
        parts += [name] if name else []
    message = " + ".join(parts)
    if form.trim:
        message = f"({message}){trim}" if len(parts) > 1 else f"{message}{trim}"
    around = [literal(form.prefix) if form.prefix else "", message, literal(form.suffix) if form.suffix else ""]
    return " + ".join(part for part in around if part)
