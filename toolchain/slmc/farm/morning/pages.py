"""The pages: an overview, one a recipe, one a device; each whole in itself, with no script and nothing to load.

Names and reasons come from devices and files that we did not write: the templates escape everything that is not a plot
of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import jinja2
from markupsafe import Markup

from slmc.farm.changes import Followed, Metric
from slmc.farm.morning import words
from slmc.farm.morning.bands import Band, speed_bands
from slmc.farm.morning.climbs import climbs
from slmc.farm.morning.health import health
from slmc.farm.morning.names import page, slug
from slmc.farm.morning.placement import placement
from slmc.farm.morning.standing import Morning, Standing
from slmc.farm.morning.stories import still_worse, stories
from slmc.farm.morning.trend import Mark, Trend, plot
from slmc.farm.morning.visible import visible
from slmc.farm.tracks import Past, Point

NIGHTS = 365
"""The last ones, which plots and a device's counts are of."""
MOST, NAMED = 30, 12
"""Stories of a kind, and series that a story names; the matrix has every series."""
OPEN, LISTED = 5, 100
"""Of the items that flipped on a rung: seen at once, and on the page at all."""
MARKED = {"regression": "fail", "improvement": "pass"}
TITLES: dict[Metric, str] = {"accuracy": "accuracy", "speed": "time, as a part of the control's"}
LEAST: dict[Metric, float] = {"accuracy": 0.01, "speed": 0.02}
"""Height of a plot at least, in shares or in the control's time."""


def pages(morning: Morning) -> Iterator[tuple[str, str]]:
    """Each page's file name and text."""
    yield "index.html", _overview(morning)
    for recipe in _names(morning, "recipe"):
        its = [one for one in morning.standings if one.series.recipe == recipe]
        shown = [(one, _plots(morning, one)) for one in its]
        ladders = climbs(its)
        climbed = {one.series for climb in ladders for one, _ in climb.devices}
        rest = [one for one in its if one.series not in climbed]
        values = {"recipe": recipe, "climbs": ladders, "unclimbed": rest, "shown": shown}
        yield page("recipe", recipe), _render("recipe", morning, **values)
    for device in _names(morning, "device"):
        its = [one for one in morning.standings if one.series.device == device]
        found = health(morning.past, its, _first(morning))
        drawn = _variation_plot(morning, found.variations)
        told = {"health": found, "drawn": drawn, "quarantine": morning.quarantined.get(device)}
        yield page("device", device), _render("device", morning, device=device, its=its, **told)


def _overview(morning: Morning) -> str:
    news = [(title, list(told)) for title, told in groupby(stories(morning), lambda story: story.title)]
    rows, recipes = _matrix(morning), _names(morning, "recipe")
    return _render("index", morning, news=news, old=still_worse(morning), rows=rows, recipes=recipes)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(words=words, page=page, slug=slug, placement=placement, visible=visible)
    environment.globals.update(MOST=MOST, NAMED=NAMED, OPEN=OPEN, LISTED=LISTED)
    return environment


def _render(name: str, morning: Morning, **values: object) -> str:
    template = _environment().get_template(f"{name}.html.j2")
    return template.render(morning=morning, past=morning.past, nights=_shown(morning), **values)


def _names(morning: Morning, kind: str) -> list[str]:
    return sorted({getattr(one.series, kind) for one in morning.standings})


def _matrix(morning: Morning) -> list[tuple[str, list[tuple[str, list[Standing]]]]]:
    """Each device with its series of each recipe, of which it has none, one, or one a target and backend."""
    cells: dict[tuple[str, str], list[Standing]] = {}
    for one in morning.standings:
        cells.setdefault((one.series.device, one.series.recipe), []).append(one)
    recipes = _names(morning, "recipe")
    return [
        (device, [(recipe, cells.get((device, recipe), [])) for recipe in recipes])
        for device in _names(morning, "device")
    ]


def _first(morning: Morning) -> int:
    """The first evening that plots show."""
    return max(0, len(morning.past.evenings) - NIGHTS)


def _shown(morning: Morning) -> int:
    return len(morning.past.evenings) - _first(morning)


def _plots(morning: Morning, one: Standing) -> list[tuple[str, Markup]]:
    """By each metric that there is a value of, under its title."""
    drawn = {TITLES[metric]: _plot(morning, one, followed) for metric, followed in one.followed.items()}
    return [(title, each) for title, each in drawn.items() if each]


def _plot(morning: Morning, one: Standing, followed: Followed) -> Markup:
    first = _first(morning)
    values: list[float | None] = [None] * _shown(morning)
    bands: list[Band | None] = [None] * _shown(morning)
    for point, band in zip(one.track.points, _bands(morning.past, one, followed), strict=True):
        if point.evening >= first:
            values[point.evening - first] = _value(point, followed.metric)
            bands[point.evening - first] = band
    return plot(
        Trend(
            title=TITLES[followed.metric],
            nights=_ends(morning),
            values=values,
            bands=bands,
            marks=[
                Mark(change.first - first, MARKED[change.call], words.change(morning.past, change))
                for change in followed.changes
                if change.first >= first
            ],
            least=LEAST[followed.metric],
            told=_percent if followed.metric == "accuracy" else "{:.3g}".format,
        )
    )


def _bands(past: Past, one: Standing, followed: Followed) -> Iterable[Band | None]:
    """Accuracy has none: it is compared item by item."""
    return speed_bands(past, one.track, followed) if followed.metric == "speed" else [None] * len(one.track.points)


def _value(point: Point, metric: Metric) -> float | None:
    """None where the night does not count."""
    if metric == "speed":
        return point.ratio if point.verdict == "measured" else None
    return point.right / point.items if point.items and point.right is not None else None


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _variation_plot(morning: Morning, variations: Sequence[float | None]) -> Markup:
    bands = [None] * len(variations)
    return plot(Trend("variation of rounds", _ends(morning), variations, bands, (), 0.01, _percent))


def _ends(morning: Morning) -> tuple[str, str]:
    return morning.past.evenings[_first(morning)].id, morning.night.id
