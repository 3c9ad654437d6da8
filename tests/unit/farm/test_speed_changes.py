"""Whole histories in, changes out; the t distribution against its published table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from slmc.farm.changes import ALARMS, Followed, follow
from slmc.farm.record import Circumstances, Speed
from slmc.farm.speed_changes import LEAST_NIGHTS, RUN, limits_of, quantile

from .nights import WHERE, night, past_of, run, series, speed


def judged(nights: Sequence[Speed | float | None], where: Sequence[Circumstances] = ()) -> Followed:
    """What is told of a series of ratios, as of one among 500; the last of `where` holds for all further nights."""
    made = []
    for number, its in enumerate(nights):
        place = where[min(number, len(where) - 1)] if where else WHERE
        result = run(series()).model_copy(
            update={"speed": speed(its) if isinstance(its, float) else its, "circumstances": place}
        )
        made.append(night(number, result))
    [found] = [one for one in follow(past_of(made), ALARMS / 500) if one.metric == "speed"]
    return found


def quiet(count: int, seed: int = 1, noise: float = 0.005, level: float = 1.0) -> list[Speed | float | None]:
    random = Random(seed)
    return [level * math.exp(random.gauss(0, noise)) for _ in range(count)]


def calls(found: Followed) -> list[str]:
    return [one.call for one in found.said]


def test_a_level_needs_nights_then_nothing_changes() -> None:
    found = judged(quiet(40, noise=0.003))
    assert calls(found) == ["can't tell"] * LEAST_NIGHTS + ["no change"] * (40 - LEAST_NIGHTS)
    assert found.changes == ()


@pytest.mark.parametrize("before", [8, 16, 40])
@pytest.mark.parametrize(("factor", "call"), [(1.08, "regression"), (1 / 1.08, "improvement")])
def test_eight_percent_are_told_on_the_second_night(before: int, factor: float, call: str) -> None:
    new = [WHERE] * before + [WHERE.model_copy(update={"os": "17.2"})]
    found = judged([*quiet(before), *quiet(5, 2, level=factor)], new)
    assert calls(found)[before : before + 2] == ["can't tell", call]
    [change] = found.changes
    assert (change.call, change.before, change.first, change.told) == (call, before - 1, before, before + 1)
    assert change.interval.low < factor - 1 < change.interval.high
    assert change.size == pytest.approx(factor - 1, abs=0.015)
    assert [(one.name, one.was, one.now) for one in change.differences] == [("os", "17.1", "17.2")]


def test_a_small_change_takes_more_nights() -> None:
    found = judged([*quiet(40), *quiet(RUN, 3, level=1.02)])
    [change] = found.changes
    assert change.first == 40
    assert change.told > 41


def test_after_a_change_the_next_is_told_from_the_new_level() -> None:
    found = judged([*quiet(20), *quiet(20, 2, level=1.08), *quiet(20, 3)])
    assert [(one.call, one.first) for one in found.changes] == [("regression", 20), ("improvement", 40)]


@pytest.mark.parametrize("wild", [(1.5,), (0.6,), (1.4, 0.7), (0.7, 1.4, 0.7)])
def test_wild_nights_are_no_change(wild: tuple[float, ...]) -> None:
    found = judged([*quiet(20), *wild, *quiet(20, 2)])
    assert calls(found)[20] == "can't tell"
    assert found.changes == ()


def test_unclear_nights_have_no_weight() -> None:
    unclear = speed(1.5, variation=0.4, verdict="unclear")
    found = judged([*quiet(20), unclear, unclear, *quiet(5, 2)])
    assert calls(found)[20:22] == ["can't tell"] * 2
    assert found.changes == ()
    found = judged([*quiet(20), unclear, 1.08, unclear, 1.08])
    assert [(one.before, one.first, one.told) for one in found.changes] == [(19, 21, 23)]


def test_unclear_too_often() -> None:
    unclear = speed(verdict="unclear")
    found = judged([*quiet(10), *[unclear, 1.0] * 5])
    assert calls(found)[11::2] == ["no change"] * 5
    found = judged([*quiet(10), *[unclear, unclear, 1.0] * 3])
    assert calls(found)[-1] == "can't tell"
    assert found.said[-1].reason == "unclear on 4 of the last 7 nights"


def test_another_control_begins_again() -> None:
    """A ratio to another control is another ratio."""
    where = [WHERE] * 10 + [WHERE.model_copy(update={"control": "control-2"})]
    found = judged([*quiet(10), *quiet(10, 2, level=1.3)], where)
    assert calls(found)[9:14] == ["no change", "can't tell", "can't tell", "can't tell", "no change"]
    assert "since another control was taken" in found.said[10].reason
    assert found.changes == ()


def test_a_night_without_a_speed_or_a_control() -> None:
    where = [WHERE] * 5 + [WHERE.model_copy(update={"control": None}), WHERE]
    found = judged([*quiet(4), None, 1.0, 1.0], where)
    assert calls(found)[4:] == ["can't tell", "can't tell", "no change"]
    assert [one.reason for one in found.said[4:6]] == ["no speed: pass", "no control is known"]


def test_a_series_too_noisy_to_show_eight_percent_says_so() -> None:
    found = judged(quiet(40, noise=0.03))
    assert set(calls(found)) == {"can't tell"}
    assert "is not seen" in found.said[-1].reason


def test_a_night_is_no_better_known_than_its_rounds_say() -> None:
    shaky = [speed(1.08, variation=0.15) for _ in range(2)]
    found = judged([*quiet(20), *shaky])
    assert found.changes == ()
    assert calls(found)[-2:] == ["can't tell"] * 2


@pytest.mark.parametrize(("tail", "deviate"), [(0.25, 0.718), (0.025, 2.447), (0.005, 3.707), (0.0005, 5.959)])
def test_quantiles_are_those_of_student_s_table(tail: float, deviate: float) -> None:
    assert quantile(tail) == pytest.approx(deviate, abs=5e-4)


def test_all_runs_of_nights_share_the_chance() -> None:
    chance = 5e-6
    shares = [2 * _tail(limits_of(chance, length).nights) ** length for length in range(2, RUN + 1)]
    assert sum(shares) == pytest.approx(chance, rel=1e-4)
    assert shares[0] == pytest.approx(chance / 2, rel=1e-4)


def _tail(deviate: float) -> float:
    """Student's density of 6 degrees of freedom, summed up."""
    constant = math.gamma(3.5) / (math.gamma(3) * math.sqrt(6 * math.pi))
    steps = np.linspace(deviate, 400, 2_000_001)
    return float(np.trapezoid(constant * (1 + steps**2 / 6) ** -3.5, steps))
