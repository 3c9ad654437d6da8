"""`golden.jsonl`: a few prompts with their token ids and answers, for a phone to check itself by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from slmc.errors import BundleError
from slmc.strict import Strict, parse

GOLDEN = "golden.jsonl"
GOLDEN_ITEMS = 32
Item = TypeVar("Item")


class ReferenceAnswer(Strict):
    """What the unquantized model said."""

    answer: str
    logprobs: dict[str, float]
    """Natural logarithms by choice, as far as the search explored them; empty for free text."""


class GoldenItem(Strict):
    id: str
    fields: dict[str, str]
    prompt: str
    input_ids: tuple[int, ...]
    expected: str
    """The data's own answer."""
    reference: ReferenceAnswer | None
    """None where the reference was not run."""


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread, the first among them."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def write_golden(items: Iterable[GoldenItem], folder: Path) -> None:
    lines = (json.dumps(item.model_dump(mode="json"), ensure_ascii=False, sort_keys=True) for item in items)
    (folder / GOLDEN).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_golden(folder: Path) -> list[GoldenItem]:
    path = folder / GOLDEN
    items = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if line:
                items.append(parse(GoldenItem, json.loads(line), Path(f"{path}:{number}"), BundleError))
    except (OSError, ValueError) as error:
        raise BundleError(f"golden.jsonl can't be read: {error}", where=path) from None
    return items
