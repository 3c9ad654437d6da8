"""How far a rung's next-token probabilities are from another's, at the positions of the expected answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from slmc.runners.contract import Result, Scored, ScoredPosition
from slmc.strict import Strict
from slmc.validate.statistics import Interval, Proportion, mean_interval, proportion

REST_FLOOR = 1e-9
"""Least probability that the unwatched tokens are taken to share: log-probabilities come rounded."""
QUANTILES = 100


class Divergence(Strict):
    """Kullback-Leibler divergence in nats a token, over the reference's 64 likeliest tokens and the rest.

    All other tokens count as one. Merging outcomes can only lower a divergence (the data-processing
    inequality), so this is a lower bound of the true one; for a narrow task, where 64 tokens hold
    nearly all probability, it is nearly exact.
    """

    items: int
    positions: int
    mean: float
    interval: Interval
    p99: float
    quantiles: tuple[float, ...]
    """Of the positions, from the least to the greatest in equal steps of probability."""


def divergence(reference: Result, first: Result, second: Result) -> Divergence | None:
    """Of `first` from `second`, both over the reference's tokens. None where either did not watch them."""
    found: list[list[float]] = []
    for name in _scored(reference):
        one, other = _told(reference, first, name), _told(reference, second, name)
        if one is None or other is None:
            return None
        found.append([kl(p, q) for p, q in zip(one, other, strict=True)])
    if not found:
        return None
    values = np.concatenate([np.asarray(item) for item in found])
    return Divergence(
        items=len(found),
        positions=len(values),
        mean=float(values.mean()),
        interval=mean_interval([sum(item) for item in found], [len(item) for item in found]),
        p99=float(np.quantile(values, 0.99)),
        quantiles=tuple(float(value) for value in np.quantile(values, np.linspace(0, 1, QUANTILES + 1))),
    )


def kl(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Divergence in nats between two distributions, given log-probabilities of some outcomes; the rest is one more."""
    p, q = np.exp(first), np.exp(second)
    rest_p, rest_q = max(1 - p.sum(), REST_FLOOR), max(1 - q.sum(), REST_FLOOR)
    return max(0.0, float((p * (first - second)).sum() + rest_p * np.log(rest_p / rest_q)))


def agreement(first: Result, second: Result) -> Proportion | None:
    """Share of positions at which both find the same token likeliest. None where nothing was scored."""
    same = [
        one.top[0][0] == other.top[0][0]
        for name in _scored(first)
        for one, other in zip(_positions(first, name), _positions(second, name), strict=True)
    ]
    return proportion(sum(same), len(same)) if same else None


def _told(reference: Result, result: Result, name: str) -> list[NDArray[np.float64]] | None:
    """At each position, what a result says of the reference's likeliest tokens, in its order."""
    positions = _positions(result, name)
    if result is reference:
        return [np.array([logprob for _, logprob in position.top]) for position in positions]
    if any(position.watched is None for position in positions):
        return None
    return [np.array(position.watched) for position in positions]


def _scored(result: Result) -> Iterator[str]:
    return (name for name, answer in result.answers.items() if isinstance(answer, Scored))


def _positions(result: Result, name: str) -> tuple[ScoredPosition, ...]:
    answer = result.answers[name]
    assert isinstance(answer, Scored), f"{name} is scored in one result and not in another"
    return answer.positions
