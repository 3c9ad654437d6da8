"""`slmc history`: nights on devices, what they say of each bundle, and what changed when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from slmc.cli.common import as_json, megabytes, open_store, print_json, store_option
from slmc.console import out, table
from slmc.errors import InputError, did_you_mean
from slmc.farm.changes import Change, Followed, follow
from slmc.farm.history import open_history
from slmc.farm.record import Series
from slmc.farm.tracks import Past, Point, Track

FILE = "history.sqlite"
"""In the store's folder."""
NIGHTS = 7
"""That are listed."""
COLOURS = {"no change": "green", "improvement": "green", "regression": "red", "can't tell": "yellow"}


database_option = click.option(
    "--db",
    "where",
    envvar="SLMC_HISTORY",
    show_envvar=True,
    metavar="URL|PATH",
    help="A SQLite file, or postgresql://USER@HOST/DATABASE. [default: history.sqlite in the store]",
)


@click.command("history")
@click.option("--recipe", help="Only this recipe.")
@click.option("--device", help="Only this device, as the farm file calls it.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only nights and changes from this day on (UTC).")
@database_option
@store_option
@as_json
def command(
    recipe: str | None,
    device: str | None,
    since: datetime | None,
    where: str | None,
    store_folder: Path | None,
    as_json: bool,
) -> None:
    """Show the nights, the latest verdict of each series, and every change with its first night and what changed."""
    past = open_history(where or open_store(store_folder).root / FILE, make=False).past()
    tracks, first = _chosen(past.tracks, recipe, device), _first(past, since)
    shown = {track.series: track for track in tracks}
    # All of the farm is judged, whatever is shown: its false alarms share one budget.
    followed = [one for one in follow(past) if one.series in shown]
    if as_json:
        print_json(_json(past, tracks, followed, first))
        return
    out.print(_nights(past, tracks, first))
    out.print(_series(past, shown, followed, first))
    out.print(_changes(past, followed, first))


def _first(past: Past, since: datetime | None) -> int:
    """Index of the first night that is shown."""
    if since is None:
        return 0
    return sum(evening.started < since.replace(tzinfo=UTC) for evening in past.evenings)


def _chosen(tracks: Sequence[Track], recipe: str | None, device: str | None) -> list[Track]:
    """Raises InputError for a name that no series has."""
    for option, name in (("recipe", recipe), ("device", device)):
        known = {getattr(track.series, option) for track in tracks}
        if name is not None and name not in known:
            raise InputError(f"no {option} {name} in the history", todo=did_you_mean(name, known))
    return [
        track for track in tracks if recipe in (None, track.series.recipe) and device in (None, track.series.device)
    ]


def _nights(past: Past, tracks: Sequence[Track], first: int) -> Table:
    outcomes: dict[int, Counter[str]] = {}
    for track in tracks:
        for point in track.points:
            outcomes.setdefault(point.evening, Counter())[point.outcome] += 1
    rows = table("night", "started (UTC)", "runs", "outcomes")
    for index in range(first, len(past.evenings))[-NIGHTS:]:
        evening, counts = past.evenings[index], outcomes.get(index, Counter())
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        rows.add_row(evening.id, f"{evening.started:%Y-%m-%d %H:%M}", str(counts.total()), told)
    return rows


def _series(past: Past, shown: dict[Series, Track], followed: Sequence[Followed], first: int) -> Table:
    """The last night of each series by each metric."""
    rows = table("recipe", "target", "device", "night", "by", "measured", "verdict", "")
    for one in followed:
        if one.evenings[-1] < first:
            continue
        series, said = one.series, one.said[-1]
        measured = _measured(shown[series].points[-1], one.metric)
        verdict = f"[{COLOURS[said.call]}]{said.call}[/]"
        rows.add_row(
            *_named(series), past.evenings[one.evenings[-1]].id, one.metric, measured, verdict, _why(past, one)
        )
    for series in _unmeasured(shown.values(), followed):
        last = shown[series].points[-1]
        rows.add_row(*_named(series), past.evenings[last.evening].id, "–", "never", "", escape(last.reason))
    return rows


def _why(past: Past, one: Followed) -> str:
    """The last night's reason, and which change its level goes back to: what stays worse must not look well."""
    reason = escape(one.said[-1].reason)
    if not one.changes:
        return reason
    last = one.changes[-1]
    return f"{reason}; [{COLOURS[last.call]}]{last.call} on {past.evenings[last.first].id}[/]"


def _named(series: Series) -> tuple[str, str, str]:
    return escape(series.recipe), f"{series.target} {series.backend}", escape(series.device)


def _measured(point: Point, metric: str) -> str:
    if metric == "accuracy":
        return f"{point.right / point.items:.2%}" if point.items and point.right is not None else "–"
    load = "" if point.load_ms is None else f", loaded in {point.load_ms:.0f} ms"
    peak = "" if point.peak_memory_bytes is None else f", peak {megabytes(point.peak_memory_bytes)}"
    return (f"{point.ratio:.3f} × control" if point.ratio else "–") + load + peak


def _changes(past: Past, followed: Sequence[Followed], first: int) -> Table | str:
    rows = table("changed", "series", "by", "size", "what changed that night")
    for one in followed:
        for change in one.changes:
            if change.first >= first:
                differences = [f"{each.name} {_short(each.was)} → {_short(each.now)}" for each in change.differences]
                night = f"{past.evenings[change.first].id}, after {past.evenings[change.before].id}"
                what = ", ".join(differences) or "nothing that is recorded"
                call = f"[{COLOURS[change.call]}]{change.call}[/] {_size(change)}"
                rows.add_row(night, escape(str(one.series)), change.metric, call, escape(what))
    return rows if rows.row_count else "No change was found."


def _size(change: Change) -> str:
    if change.metric == "accuracy":
        low, high = change.interval.low * 100, change.interval.high * 100
        return f"{change.size * 100:+.2f} points ({low:+.2f} to {high:+.2f})"
    return f"{change.size:+.1%} of time ({change.interval.low:+.1%} to {change.interval.high:+.1%})"


def _short(value: str | None) -> str:
    """A digest's beginning is enough for a person."""
    if value is None:
        return "none"
    return value[:12] if len(value) == 64 else value


def _json(past: Past, tracks: Sequence[Track], followed: Sequence[Followed], first: int) -> dict[str, Any]:
    nights = [evening.id for evening in past.evenings]
    points = {track.series: track.points for track in tracks}
    return {
        "nights": [
            {"id": one.id, "started": one.started.isoformat(), "finished": one.finished.isoformat(), "runs": one.runs}
            for one in past.evenings[first:]
        ],
        "series": [
            {
                **one.series.model_dump(),
                "metric": one.metric,
                "verdicts": [
                    {"night": nights[point.evening], "call": said.call, "reason": said.reason, **_point_json(point)}
                    for point, said in zip(points[one.series], one.said, strict=True)
                    if point.evening >= first
                ],
                "changes": [_change_json(change, nights) for change in one.changes if change.first >= first],
            }
            for one in followed
        ],
        "unmeasured": [one.model_dump() for one in _unmeasured(tracks, followed)],
    }


def _unmeasured(tracks: Iterable[Track], followed: Sequence[Followed]) -> list[Series]:
    measured = {one.series for one in followed}
    return [track.series for track in tracks if track.series not in measured]


def _point_json(point: Point) -> dict[str, Any]:
    names = ("items", "right", "ratio", "variation", "decision_ms_p50", "load_ms", "peak_memory_bytes")
    return {name: getattr(point, name) for name in names}


def _change_json(change: Change, nights: Sequence[str]) -> dict[str, Any]:
    return {
        "call": change.call,
        **{name: nights[getattr(change, name)] for name in ("before", "first", "told")},
        "size": change.size,
        "interval": change.interval.model_dump(),
        "differences": [asdict(difference) for difference in change.differences],
    }
