"""`slmc build`: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from slmc.cli.common import (
    as_json,
    backend_option,
    delegate_option,
    end_by_worst,
    engine_option,
    limit_option,
    megabytes,
    open_engine,
    open_store,
    print_json,
    recipe_argument,
    shared_store_option,
    store_option,
    target_option,
)
from slmc.console import out
from slmc.errors import SlmcError
from slmc.names import BackendName, DelegateName
from slmc.pipeline import Built, build_each, proof_folder
from slmc.plan import Options, resolve
from slmc.recipe import load_recipe
from slmc.target import load_target
from slmc.validate.table import print_report


@click.command("build")
@recipe_argument
@target_option
@backend_option
@delegate_option
@click.option(
    "--out",
    "destination",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("DIST"),
    show_default=True,
    help="Where the bundle goes.",
)
@click.option("--validate/--no-validate", default=True, show_default=True, help="Climb the ladder and judge it.")
@limit_option
@store_option
@shared_store_option
@engine_option
@as_json
def command(
    recipe: Path,
    target_name: str,
    backend: BackendName | None,
    delegate: DelegateName | None,
    destination: Path,
    validate: bool,
    limit: int | None,
    store_folder: Path | None,
    shared_url: str | None,
    engine_name: str,
    as_json: bool,
) -> None:
    """Build RECIPE for a target; by default also prove it, and end with the verdict's exit code.

    A recipe with several adapters gives a bundle for each, and the worst verdict.
    """
    loaded, options = load_recipe(recipe), Options(backend, validate, delegate)
    plans = [resolve(one, load_target(target_name), options) for one in loaded.each()]
    made, store = [], open_store(store_folder, shared_url)
    with open_engine(engine_name, store) as engine:
        outcomes = list(build_each(plans, store, destination, limit=limit, engine=engine))
    for built in outcomes:
        if isinstance(built, SlmcError):
            raise built
        made.append(built)
        if not as_json:
            _show(built)
    if as_json:
        described = [_described(built) for built in made]
        print_json(described if loaded.recipe.adapters else described[0])
    end_by_worst([built.report for built in made if built.report is not None])


def _described(built: Built) -> dict[str, object]:
    return {
        "bundle": str(built.bundle),
        "digest": built.manifest.digest,
        "bytes": built.manifest.size,
        "verdict": None if built.report is None else built.report.verdict,
        "report": None if built.report is None else str(proof_folder(built.bundle) / "report.json"),
    }


def _show(built: Built) -> None:
    if built.report is not None:
        print_report(built.report, out)
    out.print(f"bundle   {built.bundle}  {megabytes(built.manifest.size)}, digest {built.manifest.digest[:16]}")
    if built.report is None:
        out.print("judged   [yellow]not run[/]: built with --no-validate")
    else:
        out.print(f"report   {proof_folder(built.bundle) / 'report.html'}")
    out.print(f"device   {built.manifest.device}")
