"""`slmc nightly`: build a farm's recipes, ask them on its devices, and add the night to the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.markup import escape

from slmc.cli.common import (
    as_json,
    engine_option,
    limit_option,
    open_engine,
    open_store,
    shared_store_option,
    store_option,
)
from slmc.cli.history import FILE, database_option
from slmc.console import out, table
from slmc.errors import GateFailed
from slmc.farm.farm_file import load_farm
from slmc.farm.history import open_history
from slmc.farm.nightly import Order, Shard, run_night
from slmc.farm.opening import open_asker
from slmc.farm.quarantine import Quarantine, quarantined
from slmc.farm.record import Night

COLOURS = {"pass": "green", "fail": "red", "unclear": "yellow", "not run": "red"}


def _shard(context: click.Context, option: click.Parameter, text: str) -> Shard:
    number, count = (int(part) if part.isdecimal() else 0 for part in (*text.split("/"), "")[:2])
    if not 1 <= number <= count or text != f"{number}/{count}":
        raise click.BadParameter(f"{text!r} is not I/N, such as 2/3")
    return number, count


def _name_of(shard: Shard) -> str:
    """Today's; shards are nights of their own, since each adds to the history when it is done."""
    today, (number, count) = f"{datetime.now(UTC):%Y-%m-%d}", shard
    return today if count == 1 else f"{today}.{number}of{count}"


@click.command("nightly")
@click.argument("farm", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--only", multiple=True, metavar="NAME", help="Only this device or recipe; may be given again.")
@click.option(
    "--id", "name", help="Of the night; one that was stopped goes on. [default: today's date, UTC, and the shard]"
)
@click.option("--shard", callback=_shard, default="1/1", metavar="I/N", help="Every N-th run, from number I on.")
@limit_option
@engine_option
@shared_store_option
@database_option
@store_option
@as_json
def command(
    farm: Path,
    only: Sequence[str],
    name: str | None,
    shard: Shard,
    limit: int | None,
    engine_name: str,
    shared_url: str | None,
    where: str | None,
    store_folder: Path | None,
    as_json: bool,
) -> None:
    """Run the night that FARM describes. Stopped, the same command goes on from there.

    Ends with exit code 20 where a device broke a recipe's promise, could not be asked, or failed its control.
    """
    store = open_store(store_folder, shared_url)
    history = open_history(where or store.root / FILE)
    folder = store.root / "farm"
    loaded = load_farm(farm)
    with open_engine(engine_name, store) as engine:
        order = Order(
            id=name or _name_of(shard),
            farm=loaded,
            base=farm.parent,
            folder=folder,
            store=store,
            open_device=lambda name, at: open_asker(name, at, store, folder),
            limit=limit,
            quarantined={device: one.since for device, one in quarantined(history.past()).items()},
            engine=engine,
        )
        night = run_night(order, only, shard)
    history.add(night)
    apart = {device: one for device, one in quarantined(history.past()).items() if device in loaded.devices}
    if as_json:
        click.echo(night.model_dump_json(indent=1))
    else:
        _show(night, apart)
    bad = [run for run in night.runs if run.outcome in ("fail", "not run")]
    if bad:
        raise GateFailed(
            f"{len(bad)} of {len(night.runs)} runs failed or were not made"
            + (f"; quarantined: {', '.join(apart)}" if apart else ""),
            where=f"{bad[0].series.recipe} on {bad[0].series.device}",
            expected=bad[0].reason,
        )


def _show(night: Night, apart: Mapping[str, Quarantine]) -> None:
    rows = table("recipe", "device", "system", "outcome", "right", "ms p50", "of control", "memory", "")
    for run in night.runs:
        accuracy, speed = run.accuracy, run.speed
        rows.add_row(
            run.series.recipe,
            run.series.device,
            "" if run.circumstances is None else run.circumstances.os,
            f"[{COLOURS[run.outcome]}]{run.outcome}[/]",
            "–" if accuracy is None else f"{accuracy.right / accuracy.items:.2%}",
            "–" if speed is None else f"{speed.decision_ms_p50:.2f}",
            "–" if speed is None else f"{speed.ratio:.3f}" + ("" if speed.verdict == "measured" else ", can't tell"),
            "–" if run.peak_memory_bytes is None else f"{run.peak_memory_bytes / 1e6:.0f} MB",
            escape("; ".join(filter(None, (run.reason, speed.reason if speed else "")))),
        )
    out.print(rows)
    for device, one in apart.items():
        out.print(f"{escape(device)} is [red]quarantined[/] {escape(str(one).removeprefix('quarantined '))}")
