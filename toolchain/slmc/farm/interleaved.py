"""Speed that means something: a bundle and a frozen control in turn on one device, told as a ratio.

A device that slows down, or is busy, slows both. Each round is a process of its own for each of the two, which change
places from round to round; the first round warms up and is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from slmc.devices.device import THERMAL, State
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.record import Speed
from slmc.runners.contract import Result
from slmc.validate.speed import TaskSpeed, task_speed

BUNDLE, CONTROL = "bundle", "control"
WARM = THERMAL.index("light")
"""Beyond this a device slows itself down so much that it is left to cool."""
POLL_S = 10.0
Ask = Callable[[str], Result]
"""Has the bundle or the control answer the speed workload once."""


@dataclass(frozen=True)
class Rounds:
    """What was measured, the warm-up left out."""

    bundle: list[TaskSpeed]
    control: list[TaskSpeed]
    load_ms: float
    """The bundle's first."""
    hot: bool
    """In some round the device stayed too hot for all the time that it was given."""


def run_rounds(
    ask: Ask, state: Callable[[], State], plan: SpeedPlan, *, sleep: Callable[[float], None] = time.sleep
) -> Rounds:
    """Raises what `ask` raises."""
    found: dict[str, list[TaskSpeed]] = {BUNDLE: [], CONTROL: []}
    patience, hot = plan.cool_down_s, False
    for number in range(plan.rounds + 1):
        patience, still_hot = _cool(state, patience, sleep)
        hot |= still_hot
        for name in (BUNDLE, CONTROL) if number % 2 == 0 else (CONTROL, BUNDLE):
            found[name].append(task_speed(ask(name)))
    return Rounds(found[BUNDLE][1:], found[CONTROL][1:], found[BUNDLE][0].load_ms, hot)


def _cool(state: Callable[[], State], patience: float, sleep: Callable[[float], None]) -> tuple[float, bool]:
    """Wait while the device is hot: what is left of the patience, and whether it is hot still."""
    while _is_hot(state()):
        if patience < POLL_S:
            return patience, True
        sleep(POLL_S)
        patience -= POLL_S
    return patience, False


def _is_hot(state: State) -> bool:
    return state.thermal is not None and THERMAL.index(state.thermal) > WARM


def summarize(rounds: Rounds, plan: SpeedPlan) -> Speed:
    """Medians over the rounds; the ratio is the median of each round's own."""
    pairs = zip(rounds.bundle, rounds.control, strict=True)
    ratios = [ours.decision_ms_p50 / theirs.decision_ms_p50 for ours, theirs in pairs]
    variation = statistics.pstdev(ratios) / statistics.fmean(ratios)
    steady = variation <= plan.most_variation and not rounds.hot

    def median(of: Callable[[TaskSpeed], float | None]) -> float | None:
        values = [value for one in rounds.bundle if (value := of(one)) is not None]
        return statistics.median(values) if values else None

    def known(of: Callable[[TaskSpeed], float]) -> float:
        return statistics.median(of(one) for one in rounds.bundle)

    return Speed(
        verdict="measured" if steady else "unclear",
        ratio=statistics.median(ratios),
        variation=variation,
        rounds=len(ratios),
        decision_ms_p50=known(lambda one: one.decision_ms_p50),
        decision_ms_p95=known(lambda one: one.decision_ms_p95),
        first_token_ms=known(lambda one: one.first_token_ms_p50),
        prefill_tokens_per_s=median(lambda one: one.prefill_tokens_per_s),
        decode_tokens_per_s=median(lambda one: one.decode_tokens_per_s),
        sustained=None,
        load_ms=rounds.load_ms,
        energy_mj=None,
        control_ms_p50=statistics.median(one.decision_ms_p50 for one in rounds.control),
    )
