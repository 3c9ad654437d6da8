"""`slmc select`: from the nights on devices, which bundle each device class and model is to have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from slmc.cli.common import as_json, megabytes, open_store, print_json, store_option
from slmc.cli.history import FILE, database_option
from slmc.console import out, table
from slmc.errors import GateFailed, GateUnclear, InputError
from slmc.farm.history import open_history
from slmc.farm.portfolio.choice import Choice, Portfolio, TargetChoices, portfolio_of
from slmc.farm.portfolio.evidence import NIGHTS, REFUSED, Evidence, Terms
from slmc.farm.portfolio.past import since
from slmc.names import TargetName
from slmc.strict import write_json
from slmc.target import Target, load_target


@click.command("select")
@click.argument("recipe")
@click.option(
    "--out",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default="portfolio.json",
    show_default=True,
    help="What is written.",
)
@click.option("--nights", type=click.IntRange(1, 3650), default=NIGHTS, show_default=True, help="That count.")
@click.option(
    "--since",
    "day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="As if there had been no night before this day (UTC): so what became worse before it is accepted.",
)
@click.option("--max-ms", type=click.FloatRange(min=0, min_open=True), help="That a decision may take, p50.")
@database_option
@store_option
@as_json
def command(
    recipe: str,
    path: Path,
    nights: int,
    day: datetime | None,
    max_ms: float | None,
    where: str | None,
    store_folder: Path | None,
    as_json: bool,
) -> None:
    """Write which bundle of RECIPE the measurements support for each device class and model, for the app to download.

    Ends with 20 where no bundle is supported anywhere and one is refused, with 21 where too little was measured. The
    file is written all the same, and tells why.
    """
    if max_ms is not None and not math.isfinite(max_ms):
        raise InputError(f"--max-ms {max_ms} is no time", expected="milliseconds")
    past = open_history(where or open_store(store_folder).root / FILE, make=False).past()
    if day is not None:
        past = since(past, day.replace(tzinfo=UTC))
    targets = _targets({track.series.target for track in past.tracks})
    portfolio = portfolio_of(past, recipe, targets, Terms(nights, max_ms))
    _write(portfolio, path)
    if as_json:
        print_json(portfolio.model_dump(mode="json"))
    else:
        out.print(_shown(portfolio))
        out.print(f"portfolio  {escape(str(path))}")
    _end(portfolio)


def _targets(names: Iterable[TargetName]) -> dict[TargetName, Target]:
    return {name: load_target(name) for name in names}


def _write(portfolio: Portfolio, path: Path) -> None:
    """At once: whoever serves the file never serves half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    write_json(portfolio, part)
    part.replace(path)


def _shown(portfolio: Portfolio) -> Table:
    rows = table("target", "for", "backend", "bundle", "p50", "right", "memory", "measured on")
    for its in portfolio.targets:
        for model in its.models:
            of_model = [one for one in its.evidence if one.model == model.model]
            rows.add_row(its.target, escape(model.model), *_row(model.choice, model.reason, of_model))
        for one in its.classes:
            of_class = [each for each in its.evidence if each.device_class == one.name]
            rows.add_row(its.target, f"class {escape(one.name)}", *_row(one.choice, one.reason, of_class))
        if not its.models and not its.classes:
            rows.add_row(its.target, "", *_row(None, _unplaced(its), ()))
    return rows


def _unplaced(its: TargetChoices) -> str:
    """Of a target without classes, none of whose models has measured enough to be told apart."""
    return "; ".join(f"{one.backend}: {one.support}: {one.detail}" for one in its.evidence) or "never measured"


def _row(choice: Choice | None, reason: str, evidence: Sequence[Evidence]) -> tuple[str, ...]:
    """The worst of its devices by each measure."""
    if choice is None:
        return ("[yellow]none[/]", "", "", "", "", escape(reason))
    own = [one for one in evidence if one.backend == choice.backend and one.bundle == choice.bundle]
    times = [one.decision_ms_p50 for one in own if one.decision_ms_p50 is not None]
    shares = [one.accuracy.right / one.accuracy.items for one in own if one.accuracy is not None]
    peaks = [one for one in own if one.peak_memory_bytes is not None]
    fullest = max(peaks, key=lambda one: (one.peak_memory_bytes or 0) / (one.memory_limit_bytes or 1), default=None)
    passed = [one.nights for one in own]
    return (
        f"[green]{choice.backend}[/]",
        escape(choice.bundle[:12]),
        f"{max(times):.4g} ms" if times else "–",
        f"{min(shares):.2%}" if shares else "–",
        _memory(fullest),
        f"{len(own)} device{'s' if len(own) > 1 else ''}, {_span(passed)} nights",
    )


def _memory(one: Evidence | None) -> str:
    if one is None or one.peak_memory_bytes is None:
        return "–"
    limit = "" if one.memory_limit_bytes is None else f" of {megabytes(one.memory_limit_bytes)}"
    return megabytes(one.peak_memory_bytes) + limit


def _span(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _end(portfolio: Portfolio) -> None:
    """Raises GateFailed or GateUnclear where there is nothing that an app could be given."""
    if portfolio.choices():
        return
    refused = [one for its in portfolio.targets for one in its.evidence if one.support in REFUSED]
    if refused:
        first = refused[0]
        raise GateFailed(
            f"the history supports no bundle of {portfolio.recipe} on any device",
            expected=f"{first.backend}: {first.support}: {first.detail}",
            todo="see slmc report",
        )
    raise GateUnclear(
        f"too little was measured of {portfolio.recipe} to choose a bundle for any device",
        expected="two nights that pass on a device",
        todo="run slmc nightly",
    )
