"""A bundle's README.md: what a mobile engineer adds to the app, and the lines that load the model and ask it.

The templates' facts of ExecuTorch's packages are from its sources and packages of the version that the bundle names;
those of MLC-LLM's from the sources and documentation of mlc-ai/mlc-llm.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from slmc import integration
from slmc.backends.executorch.profiles import PROFILES
from slmc.backends.executorch.tools import TESTED
from slmc.backends.mlc.conversation import MESSAGE, user_template
from slmc.bundle.golden import GoldenItem
from slmc.bundle.manifest import Manifest
from slmc.models.exported import FOUNDATION, PROGRAM, read_exported
from slmc.models.mlc import CHAT_CONFIG, PACKAGE_CONFIG, read_mlc
from slmc.models.packaged import PACKAGE, read_packaged
from slmc.names import BackendName
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
        """Of four digits they are of UTF-16."""
        if ":04x" in self.unicode:
            octets = char.encode("utf-16-be")
            yield from (int.from_bytes(octets[i : i + 2]) for i in range(0, len(octets), 2))
        else:
            yield ord(char)


KOTLIN = _Language(".trim()", "\\u{:04x}", {"$": "\\$"})
PYTHON = _Language(".strip()", "\\U{:08x}", {})
SWIFT = _Language(".trimmingCharacters(in: .whitespacesAndNewlines)", "\\u{{{:x}}}", {})


def make_guide(manifest: Manifest, artifact: Path, codec: Codec, golden: Sequence[GoldenItem]) -> str | None:
    """Markdown: how to add the bundle to an app, then how to load its parts without that; None where there is neither.
    `artifact` is what the backend made.
    """
    page = integration.page(manifest.target, manifest.backend) if manifest.task is not None else None
    own = _OWN.get(manifest.backend)
    if own is None:
        return page
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - Markdown
    template = Path(__file__).with_name(f"guide_{manifest.backend}.md.j2").read_text(encoding="utf-8")
    task = manifest.recipe.task
    guide = environment.from_string(template).render(
        manifest=manifest,
        tokenizer=f"{manifest.tokenizer}/tokenizer.json",
        kotlin=prompt_expression(codec.format, KOTLIN),
        swift=prompt_expression(codec.format, SWIFT),
        kotlin_message=message_expression(codec.format, KOTLIN),
        python_message=message_expression(codec.format, PYTHON),
        swift_message=message_expression(codec.format, SWIFT),
        fields=codec.format.fields,
        kotlin_end=KOTLIN.literal(codec.format.end_token),
        swift_end=SWIFT.literal(codec.format.end_token),
        end_id=codec.end_id,
        begin=len(codec.begin_ids),
        longest=max((len(codec.answer(label)) for label in manifest.labels), default=0),
        most=None if isinstance(task, Classify) else task.max_tokens,
        example=golden[0],
        **own(manifest, artifact),
    )
    return guide if page is None else f"{page}\n{guide}"


def _executorch(manifest: Manifest, artifact: Path) -> dict[str, object]:
    exported = read_exported(artifact)
    foundation, delegate = exported.foundation_sha256, exported.delegation.delegate
    return {
        "delegate": delegate,
        "title": PROFILES[delegate].title,
        "version": TESTED,
        "program": f"{manifest.artifact}/{PROGRAM}",
        "foundation": None if foundation is None else f"{manifest.artifact}/{FOUNDATION}",
        "foundation_sha256": foundation,
    }


def _coreml(manifest: Manifest, artifact: Path) -> dict[str, object]:
    return {"package": f"{manifest.artifact}/{PACKAGE}", "chunk": read_packaged(artifact).chunk}


def _mlc(manifest: Manifest, artifact: Path) -> dict[str, object]:
    return {"made": read_mlc(artifact), "chat_config": CHAT_CONFIG, "package_config": PACKAGE_CONFIG}


_OWN: Mapping[BackendName, Callable[[Manifest, Path], dict[str, object]]] = {
    "executorch": _executorch,
    "coreml": _coreml,
    "mlc": _mlc,
}
"""What a backend's template is given besides; a backend that is not here has no guide."""


def prompt_expression(form: PromptFormat, language: _Language) -> str:
    """The prompt as a sum of strings and the fields' names."""
    literal, message = language.literal, _message(form, language)
    around = [literal(form.prefix) if form.prefix else "", message, literal(form.suffix) if form.suffix else ""]
    return " + ".join(part for part in around if part)


def message_expression(form: PromptFormat, language: _Language) -> str:
    """What an app hands to MLC's engine as the user's message, see `message_of`."""
    return _message(form, language) if user_template(form) == MESSAGE else form.fields[0]


def _message(form: PromptFormat, language: _Language) -> str:
    literal, parts = language.literal, []
    for text, name, _, _ in string.Formatter().parse(form.message):
        parts += [literal(text)] if text else []
        parts += [name] if name else []
    message = " + ".join(parts)
    if form.trim:
        message = f"({message}){language.trim}" if len(parts) > 1 else f"{message}{language.trim}"
    return message
