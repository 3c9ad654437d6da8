"""Decoding among a set of choices: which is likeliest, exactly, with few calls of the model.

The choices' token ids make a tree. At each branch point the model's next-token distribution is
restricted to the branches, and a choice's probability is the product along its path; a stretch
without branches costs nothing. So the probabilities of all choices sum to one.

A path's probability bounds those of everything below it, so a best-first search finds the
likeliest choice without visiting the others. It goes on until they share less than UNEXPLORED,
which makes the probabilities it tells good to three digits.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slmc.errors import RunnerError
from slmc.runners.contract import Ids
from slmc.text.choices import Branch

UNEXPLORED = 1e-3
"""The search ends when the choices it has not come to share less than this probability."""

Logits = NDArray[np.float32]
"""Of the next token: float32 [vocabulary]."""

Search = Generator[Ids, Logits, "Verdict"]
"""Yields the ids after the prompt whose next-token logits it wants, and is sent them."""


@dataclass(frozen=True)
class Verdict:
    choice: int
    """Index of the likeliest."""
    logprobs: dict[int, float]
    """Exact log-probability of each choice that was come to."""
    unexplored: float
    """What the others share."""


def search(root: Branch) -> Search:
    """Best-first search for the likeliest choice; the module's docstring says how far it goes."""
    found: dict[int, float] = {}
    if root.choice is not None:
        return Verdict(root.choice, {root.choice: 0.0}, 0.0)
    frontier = [(0.0, root.path, root)]  # the paths differ, so that nodes are never compared
    while frontier:
        cost, _, node = heapq.heappop(frontier)
        logits = yield node.path
        for token, log_share in zip(node.below, _log_shares(logits, list(node.below)), strict=True):
            child, total = node.below[token], float(log_share) - cost
            if child.choice is None:
                heapq.heappush(frontier, (-total, child.path, child))
            else:
                found[child.choice] = total
        if _settled(found, [cost for cost, _, _ in frontier]):
            break
    best = max(found, key=lambda choice: (found[choice], -choice))
    return Verdict(best, found, _mass(cost for cost, _, _ in frontier))


def _settled(found: dict[int, float], costs: Sequence[float]) -> bool:
    """No path on the frontier can beat the best choice, and together they matter little."""
    if not costs:
        return True
    return bool(found) and max(found.values()) >= -min(costs) and _mass(costs) < UNEXPLORED


def _mass(costs: Iterable[float]) -> float:
    return min(1.0, sum(math.exp(-cost) for cost in costs))


def _log_shares(logits: Logits, tokens: Sequence[int]) -> NDArray[np.float64]:
    """log softmax over some tokens only: float64 [tokens]."""
    wanted = logits[list(tokens)].astype(np.float64)
    if not np.isfinite(wanted).all():
        raise RunnerError("the model's logits are not finite numbers")
    shifted = wanted - wanted.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
