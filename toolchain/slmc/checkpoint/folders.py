"""The files of a Hugging Face folder beside config and weights: tokenizer, chat template, generation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from slmc.errors import SlmcError

_SIDE_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def side_files(folder: Path) -> list[Path]:
    """Those that stand in the folder, in the order of their names."""
    return [folder / name for name in _SIDE_FILES if (folder / name).is_file()]


def copy_side_files(source: Path, out: Path) -> None:
    for path in side_files(source):
        # The content alone: a read-only file in a store must not make another one read-only.
        shutil.copyfile(path, out / path.name)


def read_json_object(path: Path, error: type[SlmcError]) -> dict[str, object]:
    """A file with one JSON object. Raises `error` where it is missing, unreadable or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"no {path.name}", where=path.parent) from None
    except (OSError, ValueError) as problem:
        raise error(f"{path.name} can't be read: {problem}", where=path) from None
    if not isinstance(found, dict):
        raise error(f"{path.name} is not a JSON object", where=path)
    return found


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Indented, in the given order of keys, ending in a newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
