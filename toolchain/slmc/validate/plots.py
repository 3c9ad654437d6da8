"""Small SVG plots for the report's page. Colours are CSS variables, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 640
LEFT, RIGHT = 110, 20
ROW = 34
CURVE_HEIGHT = 220
GAP = 14
"""Between the texts at the ends of two curves."""


@dataclass(frozen=True)
class Bar:
    """A value with its interval."""

    name: str
    low: float
    value: float
    high: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A distribution: its quantiles in equal steps of probability, from 0 to 1."""

    name: str
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class _Scale:
    """Values to pixels across the plot."""

    low: float
    high: float
    left: float
    right: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = _step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def intervals(bars: Sequence[Bar]) -> Markup:
    """Each value as a point on its interval, in percent, one row each."""
    low, high = min(bar.low for bar in bars), max(bar.high for bar in bars)
    margin = max((high - low) * 0.15, 0.002)
    scale = _Scale(max(0.0, low - margin), min(1.0, high + margin), LEFT, WIDTH - RIGHT - 70)
    height = ROW * len(bars) + 8
    parts = [_ticks(scale, height, [f"{tick:.4g}%" for tick in (100 * tick for tick in scale.ticks())])]
    for index, bar in enumerate(bars):
        y = ROW * index + ROW / 2 + 4
        parts.append(
            Markup(
                '<g class="series s{n}"><text class="name" x="{lx}" y="{ty}" text-anchor="end">{name}</text>'
                '<line x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/><circle cx="{cx}" cy="{y}" r="5"/>'
                '<text class="value" x="{rx}" y="{ty}" text-anchor="end">{text}</text></g>'
            ).format(
                n=index % 4,
                lx=LEFT - 14,
                ty=y + 4,
                name=bar.name,
                x1=_px(scale.at(bar.low)),
                x2=_px(scale.at(bar.high)),
                y=y,
                cx=_px(scale.at(bar.value)),
                rx=WIDTH - 4,
                text=bar.text,
            )
        )
    return _svg(height + 26, parts, "accuracy by rung, with 95% intervals")


def curves(plotted: Sequence[Curve], unit: str, *, first: int = 0) -> Markup:
    """Cumulative distributions over a logarithmic axis; `first` is the colour of the first curve."""
    values = [value for curve in plotted for value in curve.quantiles if value > 0]
    low = max(min(values, default=1.0), max(values, default=1.0) * 1e-6)
    high = max(values, default=10.0)
    scale = _Scale(low / 1.3, high * 1.3, 56, WIDTH - 120, log=True)
    parts = [_ticks(scale, CURVE_HEIGHT, [f"{tick:g}" for tick in scale.ticks()])]
    for share in (0.0, 0.5, 0.95, 1.0):
        y = _height(share)
        parts.append(
            Markup('<line class="grid" x1="56" x2="{}" y1="{}" y2="{}"/>').format(WIDTH - 120, y, y)
            + Markup('<text class="tick" x="48" y="{}" text-anchor="end">{}%</text>').format(y + 4, f"{share:.0%}"[:-1])
        )
    names = _apart([_height(0.5) for _ in plotted])
    for index, (curve, y) in enumerate(zip(plotted, names, strict=True)):
        steps = len(curve.quantiles) - 1
        points = " ".join(
            f"{_px(scale.at(max(value, low)))},{_height(rank / steps)}" for rank, value in enumerate(curve.quantiles)
        )
        parts.append(
            Markup('<g class="series s{}"><polyline points="{}"/>').format((index + first) % 4, points)
            + Markup('<circle cx="{}" cy="{}" r="4"/>').format(WIDTH - 108, y)
            + Markup('<text class="name" x="{}" y="{}">{}</text></g>').format(WIDTH - 98, y + 4, curve.name)
        )
    parts.append(Markup('<text class="tick" x="{}" y="{}">{}</text>').format(WIDTH - 112, CURVE_HEIGHT + 20, unit))
    return _svg(CURVE_HEIGHT + 26, parts, f"share of all below a number of {unit}")


def _height(share: float) -> float:
    return round(10 + (CURVE_HEIGHT - 18) * (1 - share), 1)


def _apart(wanted: Sequence[float]) -> list[float]:
    """Places for labels, each GAP below the one before."""
    start = wanted[0] - GAP * (len(wanted) - 1) if wanted else 0.0
    return [start + 2 * GAP * index for index in range(len(wanted))]


def _ticks(scale: _Scale, height: float, texts: Iterable[str]) -> Markup:
    lines = (
        Markup('<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{h}"/>').format(x=_px(scale.at(tick)), h=height)
        + Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _px(scale.at(tick)), height + 18, text
        )
        for tick, text in zip(scale.ticks(), texts, strict=True)
    )
    return Markup("").join(lines)


def _svg(height: float, parts: Iterable[Markup], title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, escape(title), Markup("").join(parts)
    )


def _step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _px(value: float) -> float:
    return round(value, 1)
