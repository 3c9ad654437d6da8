"""`slmc validate`: judge a bundle that was built before."""

from __future__ import annotations

from pathlib import Path

import click

from slmc.bundle.verify import verify
from slmc.cli.common import (
    as_json,
    bundle_argument,
    end_by_verdict,
    find_plan,
    limit_option,
    open_store,
    recipe_option,
    store_option,
)
from slmc.console import out
from slmc.devices.opening import FORMS, open_device
from slmc.pipeline import proof_folder, validate
from slmc.validate.table import print_report


@click.command("validate")
@bundle_argument
@recipe_option
@limit_option
@click.option("--device", metavar="DEVICE", help=f"Run it there too: {FORMS}.")
@store_option
@as_json
def command(
    bundle: Path,
    recipe: Path | None,
    limit: int | None,
    device: str | None,
    store_folder: Path | None,
    as_json: bool,
) -> None:
    """Climb the ladder from the reference to BUNDLE, judge it, and end with the verdict's exit code.

    The reference and the quantized rung come from the store where they are there.
    """
    manifest = verify(bundle)
    opened = None if device is None else open_device(device)
    try:
        report = validate(find_plan(manifest, recipe), open_store(store_folder), bundle, limit=limit, device=opened)
    finally:
        if opened is not None:
            opened.clear()
            opened.close()
    if as_json:
        click.echo(report.model_dump_json(indent=1))
    else:
        print_report(report, out)
        out.print(f"report   {proof_folder(bundle) / 'report.html'}")
    end_by_verdict(report)
