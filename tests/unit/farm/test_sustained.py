"""A bundle asked without a pause: what of its first tenth is left in the last, and what a decision takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slmc.devices.device import Charge, State
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.interleaved import run_rounds, summarize
from slmc.farm.sustained import Sustained, energy_mj, sustain

from .test_interleaved import Asked, result, state

PLAN = SpeedPlan(rounds=3, items=3, cool_down_s=30, sustained_s=600)
SLOWING = (1000, 1000, 950, 900, 850, 800, 760, 720, 710, 700)
VOLTS_4 = 3600e-6 * 4


def charged(count: int, unit_j: float = VOLTS_4, charging: bool | None = False) -> State:
    return state(charge=Charge(count=count, unit_j=unit_j), charging=charging)


def sustained(*states: State, counts: tuple[int, ...] | None = SLOWING, slept: list[float] | None = None) -> Sustained:
    told: Iterator[State] = iter(states)
    waited: list[float] = [] if slept is None else slept
    return sustain(lambda: result(1, 1, counts), lambda: next(told), PLAN, (), sleep=waited.append)


def test_the_last_tenth_over_the_first() -> None:
    assert sustained(state("none"), state("severe")) == Sustained(0.7, None, "")


def test_a_hot_device_cools_before_and_not_meanwhile() -> None:
    slept: list[float] = []
    found = sustained(state("severe"), state("light"), state("critical"), slept=slept)
    assert (found.share, slept) == (0.7, [10])


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (state("severe"), "the device was hot before it began"),
        (state(battery=0.1, charging=False), "its battery was low before it began"),
    ],
)
def test_what_begins_badly_tells_nothing(before: State, why: str) -> None:
    assert sustained(*[before] * 6) == Sustained(None, None, why)


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ((19, *SLOWING[1:]), "19 decisions in the first 60 s and 700 in the last 60 s"),
        ((*SLOWING[:-1], 0), "1000 decisions in the first 60 s and 0 in the last 60 s"),
        (None, "0 decisions in the first 60 s and 0 in the last 60 s"),
    ],
)
def test_few_decisions_tell_nothing(counts: tuple[int, ...] | None, why: str) -> None:
    assert sustained(*[state()] * 2, counts=counts) == Sustained(None, None, why)


def test_what_a_decision_takes() -> None:
    """100 mAh at 4 V for the workload's 3 items and all that were counted."""
    found = sustained(charged(3_000_500), charged(2_900_500))
    assert found.energy_mj == pytest.approx(0.1 * 3600 * 4 * 1000 / (3 + sum(SLOWING)))


def test_a_voltage_that_sinks_is_no_energy() -> None:
    """Joules left before less joules left after would be 3.3 times what was taken."""
    states = [charged(3_000_500, VOLTS_4), charged(2_900_500, VOLTS_4 * 0.925)]
    assert energy_mj(states, 1000) == pytest.approx(0.1 * 3600 * 4 * 0.9625)


@pytest.mark.parametrize(
    "states",
    [
        [charged(3_000_000, charging=True), charged(2_900_000)],
        [charged(3_000_000), charged(2_900_000, charging=True)],
        [charged(3_000_000), charged(2_900_000, charging=None)],
        [state(charging=False), charged(2_900_000)],
        [charged(3_000_000), state(charging=False)],
        [charged(3_000_000), charged(3_000_000)],
        [charged(2_900_000), charged(3_000_000)],
        [charged(2_850_000), charged(2_750_000)],  # a percentage of 5000 mAh: two steps
        [charged(2_499_450), charged(2_411_750)],  # of 4385 mAh
        [charged(3_009_000), charged(3_000_000)],  # nine steps of 1 mAh
    ],
)
def test_energy_is_told_where_the_counter_tells_it(states: list[State]) -> None:
    assert energy_mj(states, 1000) is None


def test_what_was_told_before_shows_a_counters_steps() -> None:
    """2.9 and 3 Ah could be of steps of 100 mAh; a reading between them is of finer ones."""
    states = [charged(3_000_000), charged(2_900_000)]
    assert energy_mj(states, 1000) is None
    assert energy_mj([charged(3_001_000), *states], 1000) == pytest.approx(0.1 * 3600 * 4)


def test_it_is_told_with_the_speed() -> None:
    rounds = run_rounds(Asked(bundle=[10] * 4, control=[10] * 4), state, PLAN)
    speed = summarize(rounds, PLAN, Sustained(0.7, 1.5, ""))
    assert (speed.sustained, speed.energy_mj, speed.verdict, speed.reason) == (0.7, 1.5, "measured", "")
    speed = summarize(rounds, PLAN, Sustained(None, None, "the device was hot before it began"))
    assert (speed.sustained, speed.verdict) == (None, "measured")
    assert speed.reason == "not sustained: the device was hot before it began"
    speed = summarize(rounds, PLAN)
    assert (speed.sustained, speed.energy_mj, speed.reason) == (None, None, "")
