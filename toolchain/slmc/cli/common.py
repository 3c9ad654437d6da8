"""Options and small helpers that several verbs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from slmc.recipe import BackendName
from slmc.store import Store

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a machine.")
target_option = click.option("--target", "target_name", default="host", show_default=True, help="Where it ships.")
store_option = click.option(
    "--store",
    "store_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results of stages are kept. [default: $SLMC_STORE, else ~/.cache/slmc]",
)
backend_option = click.option(
    "--backend", type=click.Choice(get_args(BackendName)), help="Instead of the recipe's or the target's choice."
)
recipe_argument = click.argument("recipe", type=click.Path(path_type=Path, exists=True, file_okay=False))
bundle_argument = click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))


def open_store(folder: Path | None) -> Store:
    return Store.default() if folder is None else Store(folder)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False))


def megabytes(size: int) -> str:
    """10^6 bytes, as app stores count."""
    return f"{size / 1e6:,.1f} MB"
