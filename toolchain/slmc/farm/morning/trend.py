"""A metric from night to night as a small SVG, thinned so that years of it stay a few kB; colours are CSS variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from slmc.farm.morning.bands import Band

WIDTH, HEIGHT = 340, 116
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 92
COLUMNS = 90
"""That nights are thinned to: the least and greatest of each are drawn."""


@dataclass(frozen=True)
class Mark:
    """A change, at a night."""

    night: int
    kind: str
    """The class that colours it."""
    title: str


@dataclass(frozen=True)
class Trend:
    title: str
    nights: tuple[str, str]
    """Names of the first and the last."""
    values: Sequence[float | None]
    """Of each night; None where it was not measured or does not count."""
    bands: Sequence[Band | None]
    marks: Sequence[Mark]
    least: float
    """Height of the plot at least, so that noise does not look like mountains."""
    told: Callable[[float], str]
    """A value in words."""


def plot(trend: Trend) -> Markup:
    """Empty where nothing was measured."""
    measured = [value for value in trend.values if value is not None]
    if not measured:
        return Markup("")
    low, high = _range(trend, measured)
    x = _across(len(trend.values))

    def y(value: float) -> int:
        return round(BOTTOM - (BOTTOM - TOP) * (min(max(value, low), high) - low) / (high - low))

    parts = [_level(y(value), trend.told(value)) for value in (low, (low + high) / 2, high)]
    parts += [_band(trend.bands, x, y), _missing(trend.values, x)]
    parts += [_mark(mark, x(mark.night)) for mark in trend.marks]
    parts += [_line(trend.values, x, y), _names(trend.nights)]
    return Markup('<svg class="trend" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, f"{trend.title}: {trend.told(measured[-1])} when last measured", Markup("").join(parts)
    )


def _range(trend: Trend, measured: Sequence[float]) -> tuple[float, float]:
    """Of the values, and of the band as far as it is no wider than three times theirs."""
    low, high = min(measured), max(measured)
    room = max(high - low, trend.least)
    bands = [band for band in trend.bands if band is not None]
    low = min(low, max(low - room, min((band.low for band in bands), default=low)))
    high = max(high, min(high + room, max((band.high for band in bands), default=high)))
    missing = max(0.0, trend.least - (high - low)) / 2
    margin = missing + 0.05 * max(high - low, trend.least)
    return low - margin, high + margin


def _across(nights: int) -> Callable[[int], int]:
    return lambda night: round(LEFT + (WIDTH - RIGHT - LEFT) * (night / max(1, nights - 1)))


def _columns(count: int) -> Iterator[range]:
    """Nights side by side that are drawn as one."""
    step = max(1, -(-count // COLUMNS))
    return (range(start, min(count, start + step)) for start in range(0, count, step))


def _line(values: Sequence[float | None], x: Callable[[int], int], y: Callable[[float], int]) -> Markup:
    places: list[tuple[int, int]] = []
    for nights in _columns(len(values)):
        there = [(value, night) for night in nights if (value := values[night]) is not None]
        if there:
            kept = sorted({min(there)[1], max(there)[1], there[-1][1]})
            places += [(x(night), y(values[night] or 0.0)) for night in kept]
    last = places[-1]
    return Markup('<polyline points="{}"/><circle cx="{}" cy="{}" r="3"/>').format(_points(_straight(places)), *last)


def _band(bands: Sequence[Band | None], x: Callable[[int], int], y: Callable[[float], int]) -> Markup:
    above, below = [], []
    for nights in _columns(len(bands)):
        there = [band for night in nights if (band := bands[night]) is not None]
        if there:
            place = x(nights[len(nights) // 2])
            above.append((place, y(max(band.high for band in there))))
            below.append((place, y(min(band.low for band in there))))
    if not above:
        return Markup("")
    return Markup('<polygon points="{}"/>').format(_points([*_straight(above), *reversed(_straight(below))]))


def _straight(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without the places in the middle of a level stretch."""
    stretches = (list(group) for _, group in groupby(places, key=lambda place: place[1]))
    return [place for stretch in stretches for place in dict.fromkeys((stretch[0], stretch[-1]))]


def _points(places: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def _missing(values: Sequence[float | None], x: Callable[[int], int]) -> Markup:
    """A tick for nights without a value."""
    there = sorted({x(night) for night, value in enumerate(values) if value is None})
    path = "".join(f"M{place} {BOTTOM}v4" for place in there)
    return Markup('<path class="missing" d="{}"/>').format(path) if path else Markup("")


def _mark(mark: Mark, x: int) -> Markup:
    return Markup(
        '<g class="mark {kind}"><title>{title}</title><line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
        '<path d="M{x} {top}l-4 -7h8z"/></g>'
    ).format(kind=mark.kind, title=mark.title, x=x, top=TOP, bottom=BOTTOM)


def _level(y: int, text: str) -> Markup:
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, y, y, LEFT - 5, y + 4, text)


def _names(nights: tuple[str, str]) -> Markup:
    first, last = (name if len(name) <= 20 else f"{name[:19]}…" for name in nights)
    return Markup('<text x="{}" y="{}">{}</text><text x="{}" y="{}" text-anchor="end">{}</text>').format(
        LEFT, HEIGHT - 6, first, WIDTH - RIGHT, HEIGHT - 6, last
    )
