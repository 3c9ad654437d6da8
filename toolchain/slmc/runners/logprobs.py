"""Log-probabilities as the contract tells them: rounded, sorted, and refused where they are no numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slmc.errors import RunnerError
from slmc.runners.contract import TOP, ScoredPosition

DIGITS = 6
"""Decimals kept: far below what 4 bits change, and half the size of a result."""


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 of the logits' shape, over the last axis. Raises RunnerError for NaN and infinity."""
    if not np.isfinite(logits).all():
        raise RunnerError("the model's logits are not finite numbers")
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def rounded(logprob: float) -> float:
    return round(float(logprob), DIGITS)


def position(logprobs: NDArray[np.float64], token: int, watch: Sequence[int] | None) -> ScoredPosition:
    """One position of a score answer, from all log-probabilities there: float64 [vocabulary]."""
    count = min(TOP, len(logprobs))
    top = np.argpartition(-logprobs, count - 1)[:count]
    top = top[np.lexsort((top, -logprobs[top]))]
    return ScoredPosition(
        top=tuple((int(index), rounded(logprobs[index])) for index in top),
        logprob=rounded(logprobs[token]),
        watched=None if watch is None else tuple(rounded(logprobs[index]) for index in watch),
    )
