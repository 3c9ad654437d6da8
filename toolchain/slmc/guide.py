"""A bundle's README.md: what a mobile engineer adds to the app, and the lines that load the model and ask it.

The templates' facts of ExecuTorch's packages are from its sources and packages of the version that the bundle names.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from slmc.backends.executorch.profiles import PROFILES
from slmc.backends.executorch.tools import TESTED
from slmc.bundle.golden import GoldenItem
from slmc.bundle.manifest import Manifest
from slmc.models.exported import FOUNDATION, PROGRAM, read_exported
from slmc.models.packaged import PACKAGE, read_packaged
from slmc.prompt import Codec, PromptFormat
from slmc.recipe import Classify


@dataclass(frozen=True)
class _Language:
    """How it writes strings, and takes white space off their ends."""

    trim: str
    unicode: str
    """Of a character by its number."""
    escapes: Mapping[str, str]

    def literal(self, text: str) -> str:
        return '"' + "".join(self._escaped(char) for char in text) + '"'

    def _escaped(self, char: str) -> str:
        common = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
        known = common | dict(self.escapes)
        if char in known:
            return known[char]
        return char if char.isprintable() else "".join(self.unicode.format(unit) for unit in self._units(char))

    def _units(self, char: str) -> Iterator[int]:
        """Kotlin's are of UTF-16."""
        if "{{" in self.unicode:
            yield ord(char)
        else:
            octets = char.encode("utf-16-be")
            yield from (int.from_bytes(octets[i : i + 2]) for i in range(0, len(octets), 2))


KOTLIN = _Language(".trim()", "\\u{:04x}", {"$": "\\$"})
SWIFT = _Language(".trimmingCharacters(in: .whitespacesAndNewlines)", "\\u{{{:x}}}", {})


def make_guide(manifest: Manifest, artifact: Path, codec: Codec, golden: Sequence[GoldenItem]) -> str | None:
    """Markdown; None for a backend without a guide. `artifact` is what the backend made."""
    if manifest.backend not in ("executorch", "coreml"):
        return None
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - Markdown
    template = Path(__file__).with_name(f"guide_{manifest.backend}.md.j2").read_text(encoding="utf-8")
    own = _executorch(manifest, artifact) if manifest.backend == "executorch" else _coreml(manifest, artifact)
    return environment.from_string(template).render(
        manifest=manifest,
        tokenizer=f"{manifest.tokenizer}/tokenizer.json",
        kotlin=prompt_expression(codec.format, KOTLIN),
        swift=prompt_expression(codec.format, SWIFT),
        fields=codec.format.fields,
        kotlin_end=KOTLIN.literal(codec.format.end_token),
        swift_end=SWIFT.literal(codec.format.end_token),
        end_id=codec.end_id,
        begin=len(codec.begin_ids),
        longest=max((len(codec.answer(label)) for label in manifest.labels), default=0),
        example=golden[0],
        **own,
    )


def _executorch(manifest: Manifest, artifact: Path) -> dict[str, object]:
    exported, task = read_exported(artifact), manifest.recipe.task
    foundation, delegate = exported.foundation_sha256, exported.delegation.delegate
    return {
        "delegate": delegate,
        "title": PROFILES[delegate].title,
        "version": TESTED,
        "program": f"{manifest.artifact}/{PROGRAM}",
        "foundation": None if foundation is None else f"{manifest.artifact}/{FOUNDATION}",
        "foundation_sha256": foundation,
        "most": None if isinstance(task, Classify) else task.max_tokens,
    }


def _coreml(manifest: Manifest, artifact: Path) -> dict[str, object]:
    return {"package": f"{manifest.artifact}/{PACKAGE}", "chunk": read_packaged(artifact).chunk}


def prompt_expression(form: PromptFormat, language: _Language) -> str:
    """The prompt as a sum of strings and the fields' names."""
    literal, parts = language.literal, []
    for text, name, _, _ in string.Formatter().parse(form.message):
        parts += [literal(text)] if text else []
        parts += [name] if name else []
    message = " + ".join(parts)
    if form.trim:
        message = f"({message}){language.trim}" if len(parts) > 1 else f"{message}{language.trim}"
    around = [literal(form.prefix) if form.prefix else "", message, literal(form.suffix) if form.suffix else ""]
    return " + ".join(part for part in around if part)
