"""Speed that means something: a bundle and a frozen control in turn on one device, told as a ratio.

A device that slows down, or is busy, slows both. Each round is a process of its own for each of the two, which change
places from round to round; the first round warms up and is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slmc.devices.device import State
from slmc.farm.conditions import conditions_of, cool, described, is_hot, is_low
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.record import Speed
from slmc.farm.sustained import Sustained
from slmc.runners.contract import Result
from slmc.validate.speed import TaskSpeed, task_speed

BUNDLE, CONTROL = "bundle", "control"
Ask = Callable[[str], Result]
"""Has the bundle or the control answer the speed workload once."""


@dataclass(frozen=True)
class Rounds:
    """What was measured, the warm-up left out."""

    bundle: list[TaskSpeed]
    control: list[TaskSpeed]
    load_ms: float
    """The bundle's first."""
    states: Sequence[State]
    """Of the device before each round, when it had cooled down or stayed hot for all the time that it was given, and
    after the last.
    """


def run_rounds(
    ask: Ask, state: Callable[[], State], plan: SpeedPlan, *, sleep: Callable[[float], None] = time.sleep
) -> Rounds:
    """Raises what `ask` raises."""
    found: dict[str, list[TaskSpeed]] = {BUNDLE: [], CONTROL: []}
    states: list[State] = []
    patience = plan.cool_down_s
    for number in range(plan.rounds + 1):
        now, patience = cool(state, patience, sleep)
        states.append(now)
        for name in (BUNDLE, CONTROL) if number % 2 == 0 else (CONTROL, BUNDLE):
            found[name].append(task_speed(ask(name)))
    return Rounds(found[BUNDLE][1:], found[CONTROL][1:], found[BUNDLE][0].load_ms, [*states, state()])


def summarize(rounds: Rounds, plan: SpeedPlan, sustained: Sustained | None = None) -> Speed:
    """Medians over the rounds; the ratio is the median of each round's own."""
    pairs = zip(rounds.bundle, rounds.control, strict=True)
    ratios = [ours.decision_ms_p50 / theirs.decision_ms_p50 for ours, theirs in pairs]
    variation = statistics.pstdev(ratios) / statistics.fmean(ratios)
    doubt = _doubt(rounds, variation, plan)
    missing = f"not sustained: {sustained.reason}" if sustained is not None and sustained.reason else ""

    def median(of: Callable[[TaskSpeed], float | None]) -> float | None:
        values = [value for one in rounds.bundle if (value := of(one)) is not None]
        return statistics.median(values) if values else None

    def known(of: Callable[[TaskSpeed], float]) -> float:
        return statistics.median(of(one) for one in rounds.bundle)

    return Speed(
        verdict="unclear" if doubt else "measured",
        reason="; ".join(filter(None, (doubt, missing))),
        ratio=statistics.median(ratios),
        variation=variation,
        rounds=len(ratios),
        decision_ms_p50=known(lambda one: one.decision_ms_p50),
        decision_ms_p95=known(lambda one: one.decision_ms_p95),
        first_token_ms=known(lambda one: one.first_token_ms_p50),
        prefill_tokens_per_s=median(lambda one: one.prefill_tokens_per_s),
        decode_tokens_per_s=median(lambda one: one.decode_tokens_per_s),
        sustained=None if sustained is None else sustained.share,
        load_ms=rounds.load_ms,
        energy_mj=None if sustained is None else sustained.energy_mj,
        control_ms_p50=statistics.median(one.decision_ms_p50 for one in rounds.control),
        conditions=conditions_of(rounds.states),
    )


def _doubt(rounds: Rounds, variation: float, plan: SpeedPlan) -> str:
    """Why nothing can be told, and how the device was; empty where something can."""
    found = []
    if variation > plan.most_variation:
        found.append(f"the rounds' ratios vary by {variation:.1%}, more than {plan.most_variation:.1%}")
    if any(map(is_hot, rounds.states[:-1])):
        found.append("the device stayed hot")
    if any(map(is_low, rounds.states)):
        found.append("its battery is low and not being charged")
    how = described(conditions_of(rounds.states))
    return "; ".join(found) + (f" ({how})" if found and how else "")
