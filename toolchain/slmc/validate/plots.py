"""Small SVG plots for the report's page. Colours are CSS variables, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS = 4
"""The page's stylesheet has so many, s0 to s3."""
WIDTH = 640
LEFT, RIGHT = 110, 90
ROW = 34
CURVE_WIDTH, CURVE_HEIGHT = 460, 220
CURVE_LEFT, CURVE_RIGHT = 50, 110
SHARES = (0.0, 0.5, 0.95)
LAYERS_WIDTH, LAYERS_HEIGHT = 960, 150
LAYER_NAMES = 16
"""At most so many layers are named on an axis."""
LEAST = 1e-6
"""Values below this part of the greatest are drawn at the left end of a logarithmic axis."""


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
class Dot:
    """What was measured of one matrix, with its interval."""

    name: str
    kind: str
    """Matrices of one kind have one colour."""
    layer: int | None
    low: float
    value: float
    high: float


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
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            factors = (1, 2, 5) if last - first < 4 else (1,)
            marks = [factor * 10.0**power for power in range(first, last) for factor in factors]
            return [mark for mark in marks if self.low <= mark <= self.high]
        step = _step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def intervals(bars: Sequence[Bar]) -> Markup:
    """Each value as a point on its interval, in percent, one row each."""
    low, high = min(bar.low for bar in bars), max(bar.high for bar in bars)
    margin = max((high - low) * 0.15, 0.002)
    scale = _Scale(max(0.0, low - margin), min(1.0, high + margin), LEFT, WIDTH - RIGHT)
    height = ROW * len(bars) + 8
    parts = [_ticks(scale, height, [f"{tick:.4g}%" for tick in (100 * tick for tick in scale.ticks())])]
    parts += [_coloured(index, _bar(bar, ROW * index + ROW / 2 + 4, scale)) for index, bar in enumerate(bars)]
    return _svg(WIDTH, height + 26, parts, "accuracy by rung, with 95% intervals")


def _bar(bar: Bar, y: float, scale: _Scale) -> Markup:
    return Markup(
        '<text x="{name_x}" y="{text_y}" text-anchor="end">{bar.name}</text>'
        '<line x1="{low}" x2="{high}" y1="{y}" y2="{y}"/><circle cx="{value}" cy="{y}" r="5"/>'
        '<text x="{text_x}" y="{text_y}" text-anchor="end">{bar.text}</text>'
    ).format(
        bar=bar,
        y=y,
        name_x=LEFT - 14,
        text_x=WIDTH - 4,
        text_y=y + 4,
        low=_px(scale.at(bar.low)),
        value=_px(scale.at(bar.value)),
        high=_px(scale.at(bar.high)),
    )


def _coloured(index: int, marks: Markup) -> Markup:
    return Markup('<g class="series s{}">{}</g>').format(index % COLOURS, marks)


def curves(plotted: Sequence[Curve], unit: str, *, first: int = 0) -> Markup:
    """Cumulative distributions over a logarithmic axis; `first` is the colour of the first curve."""
    values = [value for curve in plotted for value in curve.quantiles if value > 0]
    high = max(values, default=1.0)
    low = max(min(values, default=1.0), high * LEAST)
    scale = _Scale(low / 1.3, high * 1.3, CURVE_LEFT, CURVE_WIDTH - CURVE_RIGHT, log=True)
    parts = [_ticks(scale, CURVE_HEIGHT, [f"{tick:g}" for tick in scale.ticks()])]
    parts += [_across(_height(share), CURVE_WIDTH - CURVE_RIGHT, f"{share:.0%}") for share in SHARES]
    for index, curve in enumerate(plotted):
        points = " ".join(f"{_px(scale.at(max(value, low)))},{y}" for value, y in _steps(curve))
        line = Markup('<polyline points="{}"/>').format(points)
        parts.append(_coloured(index + first, line + _legend(index, curve.name)))
    parts.append(
        Markup('<text class="tick" x="{}" y="{}">{}</text>').format(
            CURVE_WIDTH - CURVE_RIGHT + 8, CURVE_HEIGHT + 18, unit
        )
    )
    return _svg(CURVE_WIDTH, CURVE_HEIGHT + 26, parts, f"share of all below a number of {unit}")


def _steps(curve: Curve) -> Iterator[tuple[float, float]]:
    """Each quantile with its height."""
    last = len(curve.quantiles) - 1
    return ((value, _height(rank / last)) for rank, value in enumerate(curve.quantiles))


def _height(share: float) -> float:
    return _px(10 + (CURVE_HEIGHT - 18) * (1 - share))


def risks(plotted: Sequence[Curve]) -> Markup:
    """Error against the share of items that are answered, surest first; curves hold it in equal steps up to all."""
    x = _Scale(0.0, 1.0, CURVE_LEFT, CURVE_WIDTH - CURVE_RIGHT)
    y = _Scale(0.0, max(0.01, *(max(curve.quantiles) for curve in plotted)), CURVE_HEIGHT, 10)
    parts = [_ticks(x, CURVE_HEIGHT, [f"{tick:.0%}" for tick in x.ticks()])]
    parts += [_across(_px(y.at(tick)), CURVE_WIDTH - CURVE_RIGHT, f"{100 * tick:.3g}%") for tick in y.ticks()]
    for index, curve in enumerate(plotted):
        steps = ((rank / len(curve.quantiles), error) for rank, error in enumerate(curve.quantiles, 1))
        points = " ".join(f"{_px(x.at(share))},{_px(y.at(error))}" for share, error in steps)
        line = Markup('<polyline points="{}"/>').format(points)
        parts.append(_coloured(index, line + _legend(index, curve.name)))
    return _svg(CURVE_WIDTH, CURVE_HEIGHT + 26, parts, "share of wrong answers by share of items answered")


def layers(dots: Sequence[Dot], title: str) -> Markup:
    """Matrices from first to last, their values between 0 and 1 or beyond."""
    x = _Scale(-1, len(dots), CURVE_LEFT, LAYERS_WIDTH - CURVE_RIGHT)
    y = _Scale(min(0.0, *(dot.low for dot in dots)), max(1.0, *(dot.high for dot in dots)), LAYERS_HEIGHT, 10)
    parts = [_across(_px(y.at(mark)), LAYERS_WIDTH - CURVE_RIGHT, f"{mark:.0%}") for mark in (0, 0.5, 1)]
    parts += [_layer_name(_px(x.at(rank)), layer) for rank, layer in _layer_starts(dots)]
    for index, kind in enumerate(sorted({dot.kind for dot in dots})):
        marks = [_dot(dot, _px(x.at(rank)), y) for rank, dot in enumerate(dots) if dot.kind == kind]
        parts.append(_coloured(index + 1, Markup("").join(marks) + _legend(index, kind, LAYERS_WIDTH, LAYERS_HEIGHT)))
    return _svg(LAYERS_WIDTH, LAYERS_HEIGHT + 26, parts, title)


def _dot(dot: Dot, x: float, y: _Scale) -> Markup:
    return Markup(
        '<line x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'
        '<circle cx="{x}" cy="{value}" r="3"><title>{name}</title></circle>'
    ).format(x=x, low=_px(y.at(dot.low)), high=_px(y.at(dot.high)), value=_px(y.at(dot.value)), name=dot.name)


def _layer_starts(dots: Sequence[Dot]) -> list[tuple[int, int]]:
    """Rank of the first matrix of a layer, with the layer; not all of many layers."""
    starts = {dot.layer: rank for rank, dot in reversed(list(enumerate(dots))) if dot.layer is not None}
    step = max(1, math.ceil(len(starts) / LAYER_NAMES))
    return [(rank, layer) for layer, rank in sorted(starts.items())[::step]]


def _layer_name(x: float, layer: int) -> Markup:
    return Markup(
        '<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{h}"/><text class="tick" x="{x}" y="{y}">layer {layer}</text>'
    ).format(x=x, h=LAYERS_HEIGHT, y=LAYERS_HEIGHT + 18, layer=layer)


def _across(y: float, right: float, text: str) -> Markup:
    return Markup(
        '<line class="grid" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>'
        '<text class="tick" x="{tx}" y="{ty}" text-anchor="end">{text}</text>'
    ).format(x1=CURVE_LEFT, x2=right, y=y, tx=CURVE_LEFT - 8, ty=y + 4, text=text)


def _legend(index: int, name: str, width: int = CURVE_WIDTH, height: int = CURVE_HEIGHT) -> Markup:
    x, y = width - CURVE_RIGHT + 16, height / 3 + 24 * index
    return Markup('<circle cx="{}" cy="{}" r="5"/><text x="{}" y="{}">{}</text>').format(x, y, x + 12, y + 4, name)


def _ticks(scale: _Scale, height: float, texts: Iterable[str]) -> Markup:
    lines = (
        Markup('<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{h}"/>').format(x=_px(scale.at(tick)), h=height)
        + Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _px(scale.at(tick)), height + 18, text
        )
        for tick, text in zip(scale.ticks(), texts, strict=True)
    )
    return Markup("").join(lines)


def _svg(width: float, height: float, parts: Iterable[Markup], title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )


def _step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _px(value: float) -> float:
    return round(value, 1)
