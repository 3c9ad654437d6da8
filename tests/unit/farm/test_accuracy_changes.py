"""Whole histories in, changes out; chances against exact sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import pytest

from slmc.farm.accuracy_changes import OVERWHELMING, detectable, one_of_two
from slmc.farm.changes import ALARMS, Followed, follow
from slmc.farm.record import Accuracy, Run
from slmc.validate.statistics import mcnemar

from .nights import WHERE, accuracy, night, past_of, run, series

ITEMS, RIGHT = 4500, 4000
Answers = list[bool]


def judged(nights: Sequence[Accuracy | None], new_from: int | None = None) -> Followed:
    """What is told of a series, as of one among 500; from a night on it is of a new recipe."""
    made = []
    for number, its in enumerate(nights):
        new = new_from is not None and number >= new_from
        where = WHERE.model_copy(update={"recipe": "recipe-2", "bundle": "bundle-2"} if new else {})
        made.append(night(number, _run(its).model_copy(update={"circumstances": where})))
    [found] = [one for one in follow(past_of(made), ALARMS / 500) if one.metric == "accuracy"]
    return found


def _run(its: Accuracy | None) -> Run:
    result = run(series()).model_copy(update={"accuracy": its})
    return result if its else result.model_copy(update={"outcome": "not run", "reason": "no battery"})


def calls(found: Followed) -> list[str]:
    return [one.call for one in found.said]


def flipped(bits: Answers, lost: int, won: int, seed: int = 1) -> Answers:
    random, found = Random(seed), list(bits)
    for what, count in ((True, lost), (False, won)):
        for index in random.sample([i for i, bit in enumerate(bits) if bit is what], count):
            found[index] = not what
    return found


BASE = [index < RIGHT for index in range(ITEMS)]


def test_a_device_that_answers_alike_has_no_change() -> None:
    found = judged([accuracy(BASE)] * 4)
    assert calls(found) == ["can't tell", "no change", "no change", "no change"]
    assert found.changes == ()


def test_two_points_at_once_are_told_at_once() -> None:
    worse = flipped(BASE, 110, 20)
    found = judged([accuracy(BASE)] * 3 + [accuracy(worse)] * 2, new_from=3)
    assert calls(found) == ["can't tell", "no change", "no change", "regression", "no change"]
    [change] = found.changes
    assert (change.call, change.before, change.first, change.told) == ("regression", 2, 3, 3)
    assert change.size == pytest.approx(-0.02)
    assert change.interval.low < -0.02 < change.interval.high < 0
    assert [(one.name, one.was, one.now) for one in change.differences] == [
        ("recipe", "recipe-1", "recipe-2"),
        ("bundle", "bundle-1", "bundle-2"),
    ]


def test_what_is_less_clear_is_told_by_the_second_night() -> None:
    """And what is gained likewise."""
    for lost, won, call in ((20, 2, "regression"), (2, 20, "improvement")):
        found = judged([accuracy(BASE)] * 3 + [accuracy(flipped(BASE, lost, won))] * 2)
        assert calls(found)[2:] == ["no change", "can't tell", call]
        [change] = found.changes
        assert (change.before, change.first, change.told) == (2, 3, 4)
        assert change.size == pytest.approx((won - lost) / ITEMS)
        assert change.differences == ()


def test_one_bad_night_is_no_change() -> None:
    found = judged([accuracy(BASE)] * 3 + [accuracy(flipped(BASE, 20, 2))] + [accuracy(BASE)] * 3)
    assert calls(found)[3] == "can't tell"
    assert found.changes == ()


def test_many_flips_both_ways_are_not_called_unchanged() -> None:
    found = judged([accuracy(BASE)] * 2 + [accuracy(flipped(BASE, 250, 240))])
    assert calls(found)[-1] == "can't tell"
    assert "would not be seen" in found.said[-1].reason


def test_a_small_sample_can_t_tell() -> None:
    few = [True] * 180 + [False] * 20
    found = judged([accuracy(few), accuracy(few), accuracy(flipped(few, 3, 1))])
    assert calls(found) == ["can't tell", "no change", "can't tell"]


def test_steps_too_small_to_be_seen_add_up() -> None:
    """Eight items worse every third night."""
    nights, bits = [], BASE
    for step in range(12):
        nights += [accuracy(bits)] * 3
        bits = flipped(bits, 8, 0, seed=step)
    found = judged(nights)
    change = found.changes[0]
    assert change.call == "regression"
    assert 3 <= change.first <= change.told <= 20
    assert change.first % 3 == 0  # the night of a step


def test_other_items_have_no_pairs() -> None:
    found = judged([accuracy(BASE)] * 2 + [accuracy(flipped(BASE, 90, 0), "items-2")] * 2)
    assert calls(found)[2:] == ["can't tell", "no change"]
    assert "other items" in found.said[2].reason


def test_a_landslide_is_told_of_other_items_too() -> None:
    found = judged([accuracy(BASE)] * 2 + [accuracy(flipped(BASE, 800, 0)[:4000], "items-2")])
    [change] = found.changes
    share = sum(flipped(BASE, 800, 0)[:4000]) / 4000 - RIGHT / ITEMS
    assert change.size == pytest.approx(share)
    assert change.interval.low < share < change.interval.high < -0.02


def test_a_night_without_answers_says_why_and_counts_for_nothing() -> None:
    worse = accuracy(flipped(BASE, 20, 2))
    found = judged([*[accuracy(BASE)] * 3, None, worse, None, worse])
    assert calls(found)[3:] == ["can't tell"] * 3 + ["regression"]
    assert found.said[3].reason == "no answers: no battery"
    assert [(one.before, one.first, one.told) for one in found.changes] == [(2, 4, 6)]


def test_as_many_items_as_before_or_there_are_no_pairs() -> None:
    """Whatever the digest says."""
    found = judged([accuracy(BASE)] * 2 + [accuracy(BASE[:-8])] * 2)
    assert calls(found)[2:] == ["can't tell", "no change"]


def test_one_night_is_too_few_to_hold_two_against() -> None:
    found = judged([accuracy(BASE), accuracy(flipped(BASE, 20, 2))])
    assert calls(found) == ["can't tell"] * 2
    assert found.said[1].reason.endswith("one night before it is too few to tell")


@pytest.mark.parametrize("flips", [10, 15, 22, 40, 75])
def test_two_quiet_pairs_agree_no_more_often_than_their_chance(flips: int) -> None:
    """By the binomial's exact sum, of flips that are as likely lost as won."""
    chance = 1e-3
    each = one_of_two(chance)
    called = [lost for lost in range(flips + 1) if lost > flips / 2 and mcnemar(lost, flips - lost) / 2 <= each]
    tail = sum(math.comb(flips, lost) for lost in called) / 2**flips
    assert 0 < 2 * tail**2 <= chance * (1 - OVERWHELMING) / 2


def test_what_is_called_detectable_mostly_is() -> None:
    """Two nights, each with flips of its own, must both tell in 90% of draws."""
    random, each, flips = Random(3), one_of_two(5e-6), 60
    lost = round(detectable(flips, ITEMS, each) * ITEMS)
    told = 0
    for _ in range(300):
        counts = [sum(random.random() < 0.5 for _ in range(flips)) for _ in range(2)]
        told += all(mcnemar(lost + more, flips - more) / 2 <= each for more in counts)
    assert told >= 270
    half = [mcnemar(lost // 2 + flips // 2, flips // 2) / 2 <= each]
    assert half == [False]
