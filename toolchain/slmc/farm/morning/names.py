"""File names of pages: safe on every system and in a URL, and of no two recipes or devices the same."""

from __future__ import annotations

import hashlib
import re

PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


def page(kind: str, name: str) -> str:
    """`recipe-router.html`; a name that is not plain gets a digest behind ~, which no plain one has."""
    return f"{kind}-{slug(name)}.html"


def slug(name: str) -> str:
    if PLAIN.fullmatch(name):
        return name
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{readable}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
