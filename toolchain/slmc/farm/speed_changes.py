"""Did a bundle become slower or faster than its frozen control?

The logarithm of a night's ratio is taken for a level, which stays, plus the night's noise. The level is the median of
the nights since the last change; the noise's scale comes from how far the series' own nights lay from their level:
the larger of two quantiles of those distances, each in terms of a normal's, so that a few wild nights neither set the
scale nor are left out of it. While they are few it is drawn towards what the rounds of its nights say, and PRIOR_NOISE
at least, as a scaled inverse chi-squared prior of PRIOR_NIGHTS draws a variance (A. Gelman et al., Bayesian Data
Analysis, 2.6). Tails are a Student's t of 6 degrees of freedom, the prior's and those of the fewest nights that make a
level; they stay so with more nights, which have worse tails than a normal's. Nor is a night better known than its own
rounds say: a median of rounds, its error near a normal.

A change at night f is told when all of the k nights from f on lie on one side of the level, each by at least c scales
of the nights' noise and by what its own rounds must show: the least deviating night stands for all of them, so that
wild nights alone tell nothing. With independent nights that has a chance of 2 P(T > c)^k. All k from 2 to RUN are tried
each night, as in a likelihood ratio over change points in a window (M. Basseville and I. V. Nikiforov 1993, 2.4); two
nights have half of the chance, the others share the rest: a large change is told by two, a small one by as many as RUN.
Nights just before that lie nearer to the new level than to the old one, but were too shaky to count, are taken for its
first (D. V. Hinkley 1970, of equal variances).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import NormalDist, median

from slmc.farm.judgement import Call, Found, Said
from slmc.farm.tracks import Point
from slmc.validate.statistics import Interval

WANTED = math.log(1.08)
"""What two nights must be able to show."""
PRIOR_NOISE, PRIOR_NIGHTS = 0.006, 4
"""Of the logarithm of a night's ratio, at least, and the nights that this is worth."""
LEAST_NIGHTS = 3
"""That a level needs."""
RUN = 6
"""Nights after which a small change is no longer told apart from the level."""
LATELY, UNCLEAR = 7, 4
"""Of so many nights so many without a measurement: too often."""
MEDIAN_ERROR = 1.2533
"""Standard error of a median in terms of a mean's: sqrt(pi / 2)."""
FREEDOM = PRIOR_NIGHTS + LEAST_NIGHTS - 1
"""Degrees of it, of the t distribution."""
POWER = 2.0
"""Scales by which a change must lie beyond its limit, so that both of two nights do."""
T_975 = 2.447
"""Of 6 degrees of freedom: a two-sided interval of 95%."""


@dataclass(frozen=True)
class Level:
    """What was known before a night."""

    centre: float
    nights: int
    noise: float

    @property
    def spread(self) -> float:
        """Of a further night around the level, which is not known exactly either."""
        return self.noise * math.sqrt(1 + 1 / self.nights)


@dataclass(frozen=True)
class Limits:
    """What each night of a run must deviate by, so that all do with no more than their part of the chance."""

    nights: float
    """In scales of the nights' noise."""
    rounds: float
    """In standard errors of its own rounds' median."""


@dataclass(frozen=True)
class Measured:
    night: int
    """Index into the track's points."""
    value: float
    """Logarithm of the ratio."""
    error: float
    """Of that, by the night's own rounds."""
    level: Level | None
    """Before it; None for the first since a change."""
    last: int | None
    """The night before it that was measured, likewise."""

    def deviation(self, level: Level, limits: Limits) -> float:
        """From the level; 1 is what the limits ask for."""
        return (self.value - level.centre) / max(limits.nights * level.spread, limits.rounds * self.error)


@dataclass
class Known:
    """What a series' nights so far say."""

    values: list[float] = field(default_factory=list)
    """Since the last change, in order of size."""
    distances: list[float] = field(default_factory=list)
    """Of all nights from their level, in order of size."""
    errors: list[float] = field(default_factory=list)
    """Of all nights by their own rounds, in order of size."""
    recent: list[Measured] = field(default_factory=list)
    since: str = "the first night"

    def level(self) -> Level | None:
        if not self.values:
            return None
        count = len(self.values)
        centre = (self.values[(count - 1) // 2] + self.values[count // 2]) / 2
        return Level(centre, count, self._noise())

    def _noise(self) -> float:
        count = len(self.distances)
        prior = max(PRIOR_NOISE, self.errors[len(self.errors) // 2])
        if not count:
            return prior
        middle = self.distances[count // 2] / 0.6745
        outer = self.distances[min(count - 1, 9 * count // 10)] / 1.6449
        # Of the two variances, each by its nights; hypot also takes what no device measures.
        own = math.sqrt(count) * max(middle, outer)
        return math.hypot(math.sqrt(PRIOR_NIGHTS) * prior, own) / math.sqrt(PRIOR_NIGHTS + count)

    def learn(self, night: int, value: float, error: float) -> None:
        level = self.level()
        last = self.recent[-1].night if self.recent else None
        self.recent = [*self.recent[1 - RUN :], Measured(night, value, error, level, last)]
        insort(self.values, value)
        insort(self.errors, error)
        if level is not None:
            insort(self.distances, distance(value, level))

    def begin_again(self, changed: Sequence[Measured], since: str) -> None:
        """From these nights on there is another level; how far they lay from the old one was no noise."""
        for one in changed:
            del self.errors[bisect_left(self.errors, one.error)]
            if one.level is not None:
                del self.distances[bisect_left(self.distances, distance(one.value, one.level))]
        self.values, self.recent, self.since = [], [], since
        for one in changed:
            self.learn(one.night, one.value, one.error)


def distance(value: float, level: Level) -> float:
    """Of a night from the level before it, as if that were known exactly."""
    return abs(value - level.centre) / math.sqrt(1 + 1 / level.nights)


def judge(points: Sequence[Point], chances: Sequence[float], controls: Sequence[str | None]) -> Iterator[Said]:
    """A verdict for each night."""
    known, control = Known(), None
    for night, (point, chance) in enumerate(zip(points, chances, strict=True)):
        if controls[night] is not None and controls[night] != control:
            if control is not None:
                known.begin_again((), "another control was taken")
            control = controls[night]
        missing = _missing(points, night, controls[night])
        if missing is not None:
            yield Said("can't tell", missing)
            continue
        assert point.ratio is not None
        assert point.variation is not None
        assert point.rounds is not None
        known.learn(night, math.log(point.ratio), MEDIAN_ERROR * point.variation / math.sqrt(point.rounds))
        yield _judge(known, chance, points, night)


def _missing(points: Sequence[Point], night: int, control: str | None) -> str | None:
    """Why a night has no weight."""
    point = points[night]
    if point.ratio is None:
        return f"no speed: {point.reason or point.outcome}"
    if point.verdict != "measured":
        return f"unclear: {point.speed_reason or 'its rounds varied too much, or the device was too hot'}"
    return "no control is known" if control is None else None


def _judge(known: Known, chance: float, points: Sequence[Point], night: int) -> Said:
    told = _change(known, chance)
    if told is not None:
        return told
    level = known.recent[-1].level
    if level is None or level.nights < LEAST_NIGHTS:
        count = 0 if level is None else level.nights
        return Said("can't tell", f"{count} nights since {known.since}: a level needs {LEAST_NIGHTS}")
    tonight, limits = known.recent[-1], limits_of(chance, 2)
    by = _share(tonight.value - level.centre)
    if abs(tonight.deviation(level, limits)) >= 1:
        return Said("can't tell", f"{by:+.1%} of time tonight: a second such night would be a change")
    lately = points[max(0, night + 1 - LATELY) : night + 1]
    unclear = sum(point.verdict != "measured" for point in lately)
    if unclear >= UNCLEAR:
        return Said("can't tell", f"unclear on {unclear} of the last {len(lately)} nights")
    visible = max((limits.nights + POWER) * level.spread, (limits.rounds + POWER) * tonight.error)
    if visible > WANTED:
        return Said(
            "can't tell", f"{by:+.1%} of time: nights vary so much that less than {_share(visible):.1%} is not seen"
        )
    return Said("no change", f"{by:+.1%} of time")


def _change(known: Known, chance: float) -> Said | None:
    """The run of nights that says most clearly that the level is another."""
    best, found = 1.0, None
    for length in range(2, len(known.recent) + 1):
        nights = known.recent[-length:]
        level = nights[0].level
        if level is None or level.nights < LEAST_NIGHTS:
            continue
        limits = limits_of(chance, length)
        if abs(nights[-1].deviation(level, limits)) < 1:
            continue  # as nearly always: years of nights are judged at once
        deviations = [one.deviation(level, limits) for one in nights]
        least = max(min(deviations), -max(deviations))  # below 0 where they lie on both sides
        if least >= best:
            best, found = least, (nights, level)
    if found is None:
        return None
    return _told(known, *_with_shaky(known.recent, *found))


def _with_shaky(
    recent: Sequence[Measured], nights: Sequence[Measured], level: Level
) -> tuple[Sequence[Measured], Level]:
    """The nights of a change, and the level before them."""
    moved = median(one.value for one in nights) - level.centre
    earlier = recent[: -len(nights)]
    while earlier and earlier[-1].level and (earlier[-1].value - level.centre) / moved > 0.5:
        earlier = earlier[:-1]
    changed = recent[len(earlier) :]
    return changed, changed[0].level or level


def _told(known: Known, nights: Sequence[Measured], level: Level) -> Said:
    """Tell it, and begin with another level."""
    moved = median(one.value for one in nights) - level.centre
    noise = max(level.noise, *(one.error for one in nights))
    half = T_975 * noise * MEDIAN_ERROR * math.sqrt(1 / level.nights + 1 / len(nights))
    interval = Interval(low=_share(moved - half), high=_share(moved + half))
    call: Call = "regression" if moved > 0 else "improvement"
    known.begin_again(nights, "the last change")
    size, before = _share(moved), nights[0].last
    assert before is not None  # what its level came from
    return Said(call, f"{size:+.1%} of time", Found(call, before, nights[0].night, size, interval))


def _share(logarithm: float) -> float:
    """By how much more time; beyond any that a clock measures it is cut off."""
    return math.expm1(min(logarithm, 100.0))


@cache
def limits_of(chance: float, length: int) -> Limits:
    """For so many nights in a row."""
    part = chance / 2 if length == 2 else chance / 2 / (RUN - 2)
    each = (part / 2) ** (1 / length)
    return Limits(quantile(each), NormalDist().inv_cdf(1 - each))


def quantile(tail: float) -> float:
    """What a Student's t of 6 degrees of freedom exceeds with this chance, to 9 digits; by bisection, for its sum."""
    low, high = 0.0, 1e3
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _exceeded(middle) > tail else (low, middle)
    return high


def _exceeded(deviate: float) -> float:
    """The chance of that; the finite sum of even degrees (M. Abramowitz and I. A. Stegun 1964, 26.7.4)."""
    sine = deviate / math.sqrt(FREEDOM + deviate**2)
    cosine = 1 - sine**2
    return (1 - sine * (1 + cosine / 2 + cosine**2 * 3 / 8)) / 2
