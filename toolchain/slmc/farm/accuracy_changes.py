"""Did a series' accuracy change? The same items answered on two nights, counted where only one of them was right.

On two quiet nights an item that a device doesn't always answer alike is as likely to be lost as won, so that of the
items that flipped the lost ones are Binomial(flips, 1/2): McNemar's exact test (1947), with no model of the noise; a
device that always answers alike has no flips at all. A change is told when

- two nights in a row are both worse (or both better) than the nights before: the first held against the last quiet
  night, the second against the quiet night before that. No night is in both pairs, so that their chances multiply;
- two nights in a row are so against the first two of the series since its last change: steps too small to be seen one
  by one, summed up. The first night is then where the counts of right answers are best split in two (D. V. Hinkley
  1970);
- one night is overwhelmingly so.

Where other items are asked there are no pairs: two shares by the normal test, one night alone, and "can't tell" where
that says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from slmc.farm.judgement import Call, Found, Said
from slmc.farm.tracks import Point
from slmc.validate.statistics import Interval, mcnemar, paired, proportion

WANTED = 0.02
"""What a night must be able to show: two points."""
OVERWHELMING = 0.01
"""Of a night's chance of a false alarm, what one night alone may use; each pair of nights has half of the rest."""
POWER_Z = 1.96
"""Of a flip count on each of two nights, so that both show a change with 95%."""


@dataclass(frozen=True)
class Answers:
    """Of one night."""

    night: int
    """Index into the track's points."""
    items: int
    right: int
    asked: str
    bits: int

    @classmethod
    def of(cls, night: int, point: Point) -> Answers | None:
        if point.items is None or point.right is None or point.asked is None or point.answered is None:
            return None
        return cls(night, point.items, point.right, point.asked, int.from_bytes(point.answered))

    def pairs_with(self, other: Answers) -> bool:
        return (self.asked, self.items) == (other.asked, other.items)


def judge(points: Sequence[Point], chances: Sequence[float], controls: Sequence[str | None]) -> Iterator[Said]:
    """A verdict for each night."""
    since: list[Answers] = []  # the last change
    for night, (point, chance) in enumerate(zip(points, chances, strict=True)):
        tonight = Answers.of(night, point)
        if tonight is None:
            yield Said("can't tell", f"no answers: {point.reason or point.outcome}")
            continue
        said = _judge(since, tonight, chance)
        if said.found is not None:
            since = [one for one in since if one.night >= said.found.first]
        elif since and not since[-1].pairs_with(tonight):
            since = []
        since.append(tonight)
        yield said


def _judge(since: Sequence[Answers], tonight: Answers, chance: float) -> Said:
    if not since:
        return Said("can't tell", "the first night: nothing to hold it against")
    last = since[-1]
    if not last.pairs_with(tonight):
        return _unpaired(last, tonight, chance * OVERWHELMING)
    alone, each = chance * OVERWHELMING / 2, one_of_two(chance)
    lost, won = flips(last, tonight)
    if _tail(lost, won) <= alone:
        return _told(last, tonight, tonight)
    # Asked the same, all of them: other items begin a new list.
    if len(since) >= 3 and _agree(each, (since[-2], last), (since[-3], tonight)):
        return _told(since[-2], last, tonight)
    if len(since) >= 4 and _agree(each, (since[0], last), (since[1], tonight)):
        nights = [*since, tonight]
        first = _split(nights)
        return _told(nights[first - 1], nights[first], tonight)
    if len(since) < 2 and _tail(lost, won) <= each:
        return Said("can't tell", f"{_counted(lost, won, tonight.items)}: one night before it is too few to tell")
    return _quiet(lost, won, tonight.items, each)


def one_of_two(chance: float) -> float:
    """The one-sided chance that each of two nights may have: either direction, and two kinds of pairs."""
    return math.sqrt(chance * (1 - OVERWHELMING) / 2 / 2)


def flips(before: Answers, after: Answers) -> tuple[int, int]:
    """Items lost and won."""
    changed = before.bits ^ after.bits
    return (before.bits & changed).bit_count(), (after.bits & changed).bit_count()


def _tail(lost: int, won: int) -> float:
    """One-sided chance of so uneven a split; 1 where it is not worth computing, as below two standard deviations."""
    return mcnemar(lost, won) / 2 if (lost - won) ** 2 > 4 * (lost + won) else 1.0


def _agree(each: float, *pairs: tuple[Answers, Answers]) -> bool:
    """Every pair differs by more than chance, and in the same direction."""
    worse = set()
    for pair in pairs:
        lost, won = flips(*pair)
        if _tail(lost, won) > each:
            return False
        worse.add(lost > won)
    return len(worse) == 1


def _split(nights: Sequence[Answers]) -> int:
    """The index from which on the counts of right answers differ most from those before."""
    total, before, best, found = sum(one.right for one in nights), 0, -1.0, 1
    for index in range(1, len(nights)):
        before += nights[index - 1].right
        rest = len(nights) - index
        gain = (before / index - (total - before) / rest) ** 2 * index * rest
        if gain > best:
            best, found = gain, index
    return found


def _told(before: Answers, first: Answers, tonight: Answers) -> Said:
    lost, won = flips(before, tonight)
    held = paired(lost, won, 0, tonight.items)
    # `paired` counts what was lost; here below 0 is worse.
    interval = Interval(low=-held.interval.high, high=-held.interval.low)
    call: Call = "regression" if lost > won else "improvement"
    reason = _counted(lost, won, tonight.items)
    return Said(call, reason, Found(call, before.night, first.night, -held.drop, interval))


def _unpaired(last: Answers, tonight: Answers, chance: float) -> Said:
    """Two shares, by the pooled normal test; the interval is Newcombe's (1998, method 10)."""
    change = tonight.right / tonight.items - last.right / last.items
    share = (tonight.right + last.right) / (tonight.items + last.items)
    spread = math.sqrt(share * (1 - share) * (1 / tonight.items + 1 / last.items))
    if not spread or abs(change) < NormalDist().inv_cdf(1 - chance / 2) * spread:
        return Said("can't tell", "other items than the night before, which have no pairs")
    now, was = proportion(tonight.right, tonight.items), proportion(last.right, last.items)
    interval = Interval(
        low=change - math.hypot(now.share - now.interval.low, was.interval.high - was.share),
        high=change + math.hypot(now.interval.high - now.share, was.share - was.interval.low),
    )
    call: Call = "regression" if change < 0 else "improvement"
    return Said(call, "other items than the night before", Found(call, last.night, tonight.night, change, interval))


def _quiet(lost: int, won: int, items: int, each: float) -> Said:
    """No change is told; could one have been?"""
    told = _counted(lost, won, items)
    if lost + won == 0:
        return Said("no change", told)
    if _tail(lost, won) <= each:
        return Said("can't tell", f"{told}: a second such night would be a change")
    visible = detectable(lost + won, items, each)
    if visible > WANTED:
        return Said("can't tell", f"{told}: less than {visible:.1%} would not be seen")
    return Said("no change", told)


def _counted(lost: int, won: int, items: int) -> str:
    return f"{lost} items lost and {won} won of {items}"


def detectable(flips: int, items: int, each: float) -> float:
    """The share of items that must be lost so that two nights tell of it, beside so many that flip anyway.

    Of x lost beside d flips the normal deviate is x / sqrt(x + d), which must reach the test's and POWER_Z.
    """
    deviate = NormalDist().inv_cdf(1 - each) + POWER_Z
    lost = (deviate**2 + math.sqrt(deviate**4 + 4 * deviate**2 * flips)) / 2
    return min(1.0, lost / items)
