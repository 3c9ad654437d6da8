"""`slmc report`: the morning report of a night, as a folder of pages and files for CI."""

from __future__ import annotations

from pathlib import Path

import click

from slmc.cli.common import open_store, store_option
from slmc.cli.history import FILE, database_option
from slmc.farm.history import open_history
from slmc.farm.morning import words
from slmc.farm.morning.site import write_site
from slmc.farm.morning.standing import morning_of, until
from slmc.farm.morning.summary import first_lines
from slmc.farm.morning.webhook import post


@click.command("report")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--recipe", help="Only this recipe.")
@click.option("--night", "name", metavar="ID", help="As it was after this night. [default: the last]")
@click.option(
    "--webhook",
    metavar="URL",
    envvar="SLMC_WEBHOOK",
    show_envvar=True,
    help="Also post the first lines there, as Slack takes them. The URL is a secret: the variable hides it better.",
)
@database_option
@store_option
def command(
    out: Path, recipe: str | None, name: str | None, webhook: str | None, where: str | None, store_folder: Path | None
) -> None:
    """Write the morning report of a night into the folder OUT: index.html, junit.xml, report.json, summary.md."""
    history = open_history(where or open_store(store_folder).root / FILE, make=False)
    past = until(history.past(), name)
    morning = morning_of(past, history.night(past.evenings[-1].id), recipe)
    write_site(morning, out)
    click.echo(f"{morning.night.id}: {words.headline(morning)}")
    click.echo(f"report  {out / 'index.html'}")
    if webhook:
        post(webhook, first_lines(morning))
