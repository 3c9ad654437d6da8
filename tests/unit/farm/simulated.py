"""Farms that never were, of noise that was: tests/data/noise.json, as scripts/record_noise.py measured it.

A series' speed is drawn from the recorded nights of a bundle against itself, in blocks of nights that followed each
other (circular block bootstrap, D. N. Politis and J. P. Romano 1992), since a busy hour lasts longer than a night of
the recording. Its answers are the demo's. A device of jitter j says another label for an item where normal noise of j
nats exceeds the recorded margin; of jitter 0 it always answers alike.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slmc.farm.changes import METRICS, Followed, Metric, follow
from slmc.farm.record import Series
from slmc.farm.tracks import Evening, Past, Point, Track

from .nights import BEGAN, WHERE

NOISE = Path(__file__).resolve().parents[2] / "data" / "noise.json"
BLOCK = 5
STEADY = 0.05
"""Variation of rounds above which a night's speed is unclear."""
JITTERS = (0.0, 0.02, 0.1)
LOST, WON = 110, 20
"""Items of the 4,500 that a planted regression of two points flips."""
SLOWER = 1.08


@dataclass(frozen=True)
class Recorded:
    """Nights of one kind of device."""

    ratios: npt.NDArray[np.float64]
    variations: npt.NDArray[np.float64]
    rounds: int


@dataclass(frozen=True)
class Items:
    bits: npt.NDArray[np.bool_]
    near: npt.NDArray[np.int64]
    margins: npt.NDArray[np.float64]


@cache
def recorded() -> tuple[dict[int, Recorded], Items]:
    """Nights by the number of threads, and the answers."""
    found = json.loads(NOISE.read_text())
    kinds = {}
    for threads, nights in found["threads"].items():
        rounds = [night["ratios"] for night in nights]
        ratios = np.array([statistics.median(one) for one in rounds])
        variations = np.array([statistics.stdev(one) / statistics.fmean(one) for one in rounds])
        kinds[int(threads)] = Recorded(ratios, variations, found["rounds"])
    answers = found["answers"]
    near = np.array([index for index, _, _ in answers["near"]])
    bits = np.zeros(answers["items"], np.bool_)
    bits[near] = [bool(right) for _, right, _ in answers["near"]]
    others = np.setdiff1d(np.arange(answers["items"]), near)
    bits[others[: answers["right"] - int(bits.sum())]] = True
    return kinds, Items(bits, near, np.array([margin for _, _, margin in answers["near"]]))


@dataclass(frozen=True)
class Plan:
    series: int
    nights: int
    planted: int | None = None
    """The night from which on every series is worse by both metrics."""
    threads: int = 1
    """Whose recorded nights are drawn from."""
    scale: float = 1.0
    """Times as noisy as recorded."""
    tails: int | None = None
    """Instead of recorded noise a Student's t of so many degrees of freedom, and 0.4% wide."""


def farm(plan: Plan, seed: int) -> Past:
    random = np.random.default_rng(seed)
    tracks = [Track(_series(number), _points(plan, number, random)) for number in range(plan.series)]
    moments = (BEGAN + timedelta(days=night) for night in range(plan.nights))
    evenings = [Evening(f"night-{n}", at, at + timedelta(hours=3), plan.series) for n, at in enumerate(moments)]
    changed = WHERE.model_copy(update={"recipe": "recipe-2", "bundle": "bundle-2"})
    return Past(evenings, [WHERE, changed], tracks)


def _series(number: int) -> Series:
    return Series(recipe=f"recipe-{number % 10}", target="android", backend="tvm", device=f"device-{number // 10}")


def _points(plan: Plan, number: int, random: np.random.Generator) -> list[Point]:
    kinds, items = recorded()
    kind = kinds[plan.threads]
    chosen = _blocks(len(kind.ratios), plan.nights, random)
    ratios = kind.ratios[chosen] ** plan.scale
    if plan.tails is not None:
        ratios = np.exp(0.004 * random.standard_t(plan.tails, plan.nights))
    answered = _answered(plan, JITTERS[number % len(JITTERS)], random)
    found = []
    for night, (which, bits) in enumerate(zip(chosen, answered, strict=True)):
        worse = plan.planted is not None and night >= plan.planted
        variation = float(kind.variations[which]) * plan.scale
        found.append(
            Point(
                evening=night,
                circumstances=int(worse),
                outcome="pass",
                reason="",
                items=len(items.bits),
                right=int(bits.sum()),
                asked="items-1",
                answered=np.packbits(bits).tobytes(),
                verdict="measured" if variation <= STEADY else "unclear",
                ratio=float(ratios[night]) * (SLOWER if worse else 1),
                variation=variation,
                rounds=kind.rounds,
                decision_ms_p50=1.0,
                decision_ms_p95=1.0,
                load_ms=3.0,
                peak_memory_bytes=None,
                memory_limit_bytes=None,
                device_class=None,
                control_ms_p50=None,
            )
        )
    return found


def _blocks(recorded_nights: int, nights: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    starts = random.integers(0, recorded_nights, -(-nights // BLOCK))
    return ((starts[:, None] + np.arange(BLOCK)) % recorded_nights).reshape(-1)[:nights]


def _answered(plan: Plan, jitter: float, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """[nights, items]: answered right."""
    _, items = recorded()
    bits = np.repeat(items.bits[None], plan.nights, axis=0)
    flipped = random.normal(0, 1, (plan.nights, len(items.near))) * jitter > items.margins
    bits[:, items.near] ^= flipped
    if plan.planted is not None:
        steady = np.setdiff1d(np.arange(len(items.bits)), items.near)
        right, wrong = (random.permutation(steady[items.bits[steady] == what]) for what in (True, False))
        bits[plan.planted :, right[:LOST]] = False
        bits[plan.planted :, wrong[:WON]] = True
    return bits


@dataclass(frozen=True)
class Tally:
    """Of one metric."""

    nights: int
    """Of all farms."""
    series_nights: int
    alarms: int
    """Told where nothing changed."""
    in_two: int
    """Planted ones that were told by the second night that was measured, with the right first and what changed."""
    later: int
    missed: int
    silent: int
    """Planted ones not told yet of which a night said "no change", from the second on that was measured."""
    unsure: int
    """Nights of a series that the test can't tell of."""


def tally(plan: Plan, *seeds: int) -> dict[Metric, Tally]:
    total = {metric: Tally(*[0] * 8) for metric in METRICS}
    for seed in seeds:
        past = farm(plan, seed)
        tracks = {track.series: track for track in past.tracks}
        for followed in follow(past):
            points, metric = tracks[followed.series].points, followed.metric
            counted = [metric == "accuracy" or point.verdict == "measured" for point in points]
            total[metric] = _added(total[metric], plan, followed, counted)
    return {metric: replace(one, nights=plan.nights * len(seeds)) for metric, one in total.items()}


def _added(total: Tally, plan: Plan, followed: Followed, counted: Sequence[bool]) -> Tally:
    counts: Counter[str] = Counter()
    after = [night for night, counts_it in enumerate(counted) if counts_it and night >= (plan.planted or 0)]
    for change in followed.changes:
        named = {difference.name for difference in change.differences} == {"recipe", "bundle"}
        if plan.planted is not None and change.call == "regression" and change.first == after[0] and named:
            counts["in_two" if change.told <= after[1] else "later"] += 1
        else:
            counts["alarms"] += 1
    if plan.planted is not None and not counts["in_two"] + counts["later"]:
        counts["missed"] += 1
    told = min((change.told for change in followed.changes if change.first in after), default=plan.nights)
    waiting = [] if plan.planted is None else followed.said[after[1] : told]
    counts["silent"] = any(said.call == "no change" for said in waiting)
    counts["unsure"] = sum(said.call == "can't tell" for said in followed.said)
    counts["series_nights"] = len(followed.said)
    return replace(total, **{name: getattr(total, name) + count for name, count in counts.items()})
