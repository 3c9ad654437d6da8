"""Nights made up: one by hand, and any by hypothesis."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import numpy as np
from hypothesis import strategies as st

from slmc.farm.record import (
    Accuracy,
    Circumstances,
    Conditions,
    Control,
    FlipShown,
    Ladder,
    Night,
    Outcome,
    Run,
    RungShown,
    Series,
    Speed,
)
from slmc.farm.tracks import Evening, Past, Point, Track
from slmc.names import BackendName, TargetName
from slmc.validate.report import RungName

BEGAN = datetime(2026, 1, 1, 22, tzinfo=UTC)
WHERE = Circumstances(
    recipe="recipe-1",
    toolchain="0.1.0 code-1",
    bundle="bundle-1",
    control="control-1",
    model="Phone 9",
    os="17.1",
    runtime="tvm neon",
)

_NOT_RUN = {"status": "not run", "right": None, "lost": None, "won": None, "changed": None}
LADDER = Ladder.model_validate_json(
    json.dumps(
        {
            "rungs": [
                {"name": "reference", "status": "ran", "right": 3, "lost": None, "won": None, "changed": None},
                {"name": "quantized", "status": "ran", "right": 2, "lost": 1, "won": 0, "changed": 1},
                {"name": "compiled", **_NOT_RUN},
                {"name": "device", "status": "ran", "right": 2, "lost": 0, "won": 0, "changed": 0},
            ],
            "flips": [
                {
                    "id": "2",
                    "rung": "quantized",
                    "kind": "lost",
                    "text": "wire 200 to my sister",
                    "expected": "transfer",
                    "before": "transfer",
                    "after": "balance",
                }
            ],
            "more": 0,
        }
    )
)


def series(recipe: str = "router", device: str = "shelf-1") -> Series:
    return Series(recipe=recipe, target="android", backend="tvm", device=device)


def accuracy(right: Sequence[bool], asked: str = "items-1") -> Accuracy:
    bits = np.array(right, np.bool_)
    packed = base64.b64encode(np.packbits(bits).tobytes()).decode()
    return Accuracy(items=len(bits), right=int(bits.sum()), asked=asked, answered=packed)


CONDITIONS = Conditions(load=0.2, clock=1.0, thermal="none", temperature=31.5, battery=0.8, charging=False)


def speed(ratio: float = 1.0, variation: float = 0.01, verdict: str = "measured") -> Speed:
    return Speed.model_validate(
        {
            "verdict": verdict,
            "reason": "" if verdict == "measured" else "the device stayed hot",
            "ratio": ratio,
            "variation": variation,
            "rounds": 11,
            "decision_ms_p50": 2.0,
            "decision_ms_p95": 3.5,
            "first_token_ms": 1.5,
            "prefill_tokens_per_s": 4000.0,
            "decode_tokens_per_s": None,
            "sustained": None,
            "load_ms": 12.0,
            "energy_mj": None,
            "control_ms_p50": 2.0,
            "conditions": CONDITIONS,
        }
    )


def run(
    its: Series,
    right: Sequence[bool] = (True, False, True),
    ratio: float = 1.0,
    where: Circumstances = WHERE,
) -> Run:
    return Run(
        series=its,
        circumstances=where,
        outcome="pass",
        reason="",
        accuracy=accuracy(right),
        speed=speed(ratio),
        peak_memory_bytes=30_000_000,
        memory_limit_bytes=None,
        device_class=None,
        ladder=LADDER,
    )


def night(number: int, *runs: Run, controls: Sequence[Control] = ()) -> Night:
    started = BEGAN + timedelta(days=number)
    finished = started + timedelta(hours=3)
    return Night(id=f"night-{number}", started=started, finished=finished, runs=runs, controls=tuple(controls))


def past_of(nights: Sequence[Night]) -> Past:
    """As a history gives them back."""
    known = list(dict.fromkeys(its.circumstances for one in nights for its in one.runs if its.circumstances))
    points: dict[Series, list[Point]] = {}
    for index, one in enumerate(nights):
        for its in one.runs:
            where = None if its.circumstances is None else known.index(its.circumstances)
            points.setdefault(its.series, []).append(_point(index, its, where))
    tracks = [Track(its, points[its]) for its in sorted(points, key=lambda its: tuple(its.model_dump().values()))]
    controls = [(index, control) for index, one in enumerate(nights) for control in one.controls]
    return Past([Evening(one.id, one.started, one.finished, len(one.runs)) for one in nights], known, tracks, controls)


def _point(evening: int, its: Run, where: int | None) -> Point:
    answers, measured = its.accuracy, its.speed
    return Point(
        evening=evening,
        circumstances=where,
        outcome=its.outcome,
        reason=its.reason,
        items=answers and answers.items,
        right=answers and answers.right,
        asked=answers and answers.asked,
        answered=answers and np.packbits(answers.bits()).tobytes(),
        verdict=measured and measured.verdict,
        ratio=measured and measured.ratio,
        variation=measured and measured.variation,
        rounds=measured and measured.rounds,
        decision_ms_p50=measured and measured.decision_ms_p50,
        decision_ms_p95=measured and measured.decision_ms_p95,
        load_ms=measured and measured.load_ms,
        peak_memory_bytes=its.peak_memory_bytes,
        memory_limit_bytes=its.memory_limit_bytes,
        device_class=its.device_class,
        control_ms_p50=measured and measured.control_ms_p50,
        speed_reason=measured and measured.reason,
    )


_words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
_counts = st.none() | st.integers(0, 2**63 - 1)
# Offsets as JSON has them. Of zones with summer time, Python holds an hour that comes twice unequal to itself in UTC.
_offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_moments = st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1), timezones=_offsets | st.just(UTC))
_circumstances = st.builds(
    Circumstances,
    **dict.fromkeys(("recipe", "toolchain", "bundle", "model", "os", "runtime"), _words),
    control=st.none() | _words,
)
_OPTIONAL = ("prefill_tokens_per_s", "decode_tokens_per_s", "sustained", "energy_mj", "control_ms_p50")
_finite = st.floats(allow_nan=False, allow_infinity=False)
_shares = st.none() | st.floats(0, 1)
_conditions = st.builds(
    Conditions,
    load=st.none() | st.floats(min_value=0, allow_infinity=False),
    thermal=st.none() | _words,
    temperature=st.none() | _finite,
    charging=st.none() | st.booleans(),
    **dict.fromkeys(("clock", "battery"), _shares),
)
_speeds = st.builds(
    Speed,
    reason=_words,
    conditions=st.none() | _conditions,
    verdict=st.sampled_from(["measured", "unclear"]),
    variation=st.floats(min_value=0, allow_infinity=False),
    rounds=st.integers(1, 2**31 - 1),
    **dict.fromkeys(("ratio", "decision_ms_p50", "decision_ms_p95", "first_token_ms", "load_ms"), _positive),
    **dict.fromkeys(_OPTIONAL, st.none() | _positive),
)
_series = st.builds(
    Series,
    recipe=_words,
    target=st.sampled_from(get_args(TargetName)),
    backend=st.sampled_from(get_args(BackendName)),
    device=_words,
)
_rungs = st.builds(
    RungShown,
    name=st.sampled_from(get_args(RungName)),
    status=st.sampled_from(["ran", "failed", "not run"]),
    **dict.fromkeys(("right", "lost", "won", "changed"), _counts),
)
_any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_flips = st.builds(
    FlipShown,
    rung=st.sampled_from(get_args(RungName)),
    kind=st.sampled_from(["lost", "won", "other"]),
    **dict.fromkeys(("id", "text", "expected", "before", "after"), _any_text),
)
any_ladder = st.builds(
    Ladder,
    rungs=st.lists(_rungs, min_size=1, max_size=3).map(tuple),
    flips=st.lists(_flips, max_size=3).map(tuple),
    more=st.integers(0, 2**63 - 1),
)
_controls = st.builds(
    Control,
    device=_words,
    outcome=st.sampled_from(["pass", "fail", "not run"]),
    reason=_words,
    decision_ms_p50=st.none() | _positive,
)
_runs = st.builds(
    Run,
    series=_series,
    circumstances=st.none() | _circumstances,
    outcome=st.sampled_from(get_args(Outcome)),
    reason=_words,
    accuracy=st.none() | st.builds(accuracy, st.lists(st.booleans(), min_size=1, max_size=40), _words),
    speed=st.none() | _speeds,
    peak_memory_bytes=_counts,
    memory_limit_bytes=_counts,
    device_class=st.none() | _words,
    ladder=st.none() | any_ladder,
)
any_night = st.builds(
    Night,
    id=st.from_regex(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}", fullmatch=True),
    started=_moments,
    finished=_moments,
    runs=st.lists(_runs, max_size=4, unique_by=lambda one: one.series).map(tuple),
    controls=st.lists(_controls, max_size=3, unique_by=lambda one: one.device).map(tuple),
)
