"""SHA-256 digests of files, folders and plain values: the identity of everything slmc makes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_folder(folder: Path) -> dict[str, str]:
    """Digest of each regular file below a folder, by its path relative to it with forward slashes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): of_file(path) for path in files}


def of_value(value: object) -> str:
    """Digest of a JSON-like value, whatever the order of its keys. NaN and infinity are refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return of_bytes(text.encode())
