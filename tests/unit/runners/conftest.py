"""A model small enough to be computed by hand, and a workload with one item of each mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from slmc.errors import RunnerError
from slmc.runners.contract import ChooseItem, Environment, GenerateItem, ResultHeader, ScoreItem, Workload
from slmc.runners.files import make

VOCAB, CONTEXT, END = 12, 16, 9


def next_logits(ids: Sequence[int]) -> np.ndarray:
    """Logits that depend on every id read: float32 [VOCAB]."""
    return (np.random.default_rng(list(ids)).standard_normal(VOCAB) * 2).astype(np.float32)


class FakeEngine:
    """Fulfils the Engine protocol; `calls` tells what was asked of it."""

    vocab_size, context = VOCAB, CONTEXT

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.calls: list[tuple[int, int]] = []

    @property
    def position(self) -> int:
        return len(self.ids)

    def extend(self, ids: Sequence[int]) -> np.ndarray:
        self.calls.append((len(self.ids), len(ids)))
        self.ids += ids
        if not ids or len(self.ids) > CONTEXT:
            raise RunnerError("beyond the context")
        return next_logits(self.ids)

    def rewind(self, position: int) -> None:
        if position > len(self.ids):
            raise RunnerError("beyond what was read")
        del self.ids[position:]


@pytest.fixture
def workload() -> Workload:
    return make(
        END,
        {"labels": ((1, 2, END), (1, 3, END), (4, END))},
        [
            GenerateItem(id="g", prompt="a", input_ids=(5, 6), max_tokens=4),
            ChooseItem(id="c", prompt="b", input_ids=(7, 8), choices="labels"),
            ScoreItem(id="s", input_ids=(3,), score_ids=(2, 4, END), watch=((1, 2), (), (0,))),
        ],
    )


@pytest.fixture
def header(workload: Workload) -> ResultHeader:
    environment = Environment(
        device="a phone",
        os="an OS",
        runtime="fake",
        version="1",
        threads=1,
        thermal=None,
        artifact="f00d",
        precision="float32",
        batched=False,
    )
    return ResultHeader(workload=workload.digest, environment=environment)
