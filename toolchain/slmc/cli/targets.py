"""`slmc targets`: where a bundle can ship, and which backend each one prefers."""

from __future__ import annotations

import click

from slmc.cli.common import as_json, print_json
from slmc.console import out, table
from slmc.target import load_target, target_names


@click.command("targets")
@as_json
def command(as_json: bool) -> None:
    """List the targets and their backends, in order of preference."""
    targets = [load_target(name) for name in target_names()]
    if as_json:
        print_json([target.model_dump(mode="json") for target in targets])
        return
    rows = table("target", "ships to", "at least", "backends, preferred first")
    for target in targets:
        rows.add_row(target.name, target.title, target.minimum_os, ", ".join(target.backends))
    out.print(rows)
