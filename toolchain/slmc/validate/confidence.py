"""How far the probability of a chosen label can be believed, and below which it is better not to answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slmc.errors import RunnerError
from slmc.runners.contract import Chosen, Result
from slmc.strict import Strict
from slmc.validate.statistics import Proportion, proportion
from slmc.validate.workload import TASK

BINS = 15
STEPS = 20
GRID = 10_000
"""Thresholds are whole parts of this: a CPU's last bits move none of them."""


class Confidence(Strict):
    """Of the answers to one workload."""

    calibration_error: float
    """Expected calibration error: |accuracy - mean probability| over 15 equally wide bins of the chosen label's
    probability, weighted by items (C. Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    risk: tuple[float, ...]
    """Share of wrong answers among the surest 1/20, 2/20, ... and all of the items."""


class Abstaining(Strict):
    """Answering only where the chosen label's probability is at least a threshold."""

    threshold: float | None
    """None: every item is abstained from."""
    answered: Proportion
    wrong: Proportion | None
    """Of the answered items; None where there are none."""


@dataclass(frozen=True)
class Choices:
    """Items with a chosen label each, in one order."""

    probability: NDArray[np.float64]
    """Of the chosen label, among all labels."""
    right: NDArray[np.bool_]
    """Whether it is the expected one."""


def choices(result: Result, right: Mapping[str, bool]) -> Choices:
    """Of a classify task's examples. Raises RunnerError where a chosen label's own log-probability is not told."""
    return Choices(np.array([_probability(result, TASK + name) for name in right]), np.array(list(right.values())))


def _probability(result: Result, name: str) -> float:
    answer = result.answers[name]
    assert isinstance(answer, Chosen), f"{name} is no choice"
    told = dict(answer.choice_logprobs)
    if answer.choice not in told:
        raise RunnerError(f"the answer to {name!r} does not tell the log-probability of its own choice")
    return min(1.0, math.exp(told[answer.choice]))


def confidence(found: Choices) -> Confidence:
    return Confidence(calibration_error=_calibration_error(found), risk=_risk(found))


def _calibration_error(found: Choices) -> float:
    bins = np.clip(np.ceil(found.probability * BINS).astype(np.int64) - 1, 0, None)  # (0, 1/15], (1/15, 2/15], ...
    gaps = np.bincount(bins, weights=found.probability - found.right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(bins))


def _risk(found: Choices) -> tuple[float, ...]:
    wrong = np.cumsum(~found.right[np.argsort(-found.probability, kind="stable")])
    counts = [math.ceil(len(wrong) * step / STEPS) for step in range(1, STEPS + 1)]
    return tuple(float(wrong[count - 1] / count) for count in counts)


def fit_threshold(found: Choices, max_error: float) -> float | None:
    """The lowest threshold at which at most `max_error` of the answered items are wrong; None where there is none."""
    cut = np.floor(found.probability * GRID)
    cut -= cut / GRID > found.probability  # the product may have been rounded up
    order = np.argsort(-cut, kind="stable")
    cut, wrong = cut[order], np.cumsum(~found.right[order])
    last = np.append(cut[1:] < cut[:-1], True)  # items of one probability are answered together
    kept = last & (wrong / np.arange(1, len(cut) + 1) <= max_error)
    return float(cut[kept].min() / GRID) if kept.any() else None


def abstaining(found: Choices, threshold: float | None) -> Abstaining:
    answered = found.probability >= (math.inf if threshold is None else threshold)
    count = int(answered.sum())
    return Abstaining(
        threshold=threshold,
        answered=proportion(count, len(answered)),
        wrong=proportion(int((answered & ~found.right).sum()), count) if count else None,
    )
