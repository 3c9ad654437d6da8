"""Options and small helpers that several verbs share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import click

from slmc.bundle.manifest import Manifest
from slmc.engine import LOCAL, Engine
from slmc.errors import GateFailed, GateUnclear, InputError
from slmc.names import BackendName, DelegateName
from slmc.plan import Options, Plan, resolve
from slmc.provenance import data_digests
from slmc.recipe import load_recipe
from slmc.shared_store import ENVIRONMENT, SharedStore
from slmc.store import Store
from slmc.target import load_target
from slmc.validate.report import Report
from slmc.validate.statistics import Verdict

_ORDER: tuple[Verdict, ...] = ("pass", "unclear", "fail")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a machine.")
target_option = click.option("--target", "target_name", default="host", show_default=True, help="Where it ships.")
store_option = click.option(
    "--store",
    "store_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results of stages are kept. [default: $SLMC_STORE, else ~/.cache/slmc]",
)
shared_store_option = click.option(
    "--shared-store",
    "shared_url",
    metavar="URL",
    help=f"Where machines share results: what is there is fetched, what is made is added. [default: ${ENVIRONMENT}]",
)
engine_option = click.option(
    "--engine",
    "engine_name",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="What runs the stages: this machine, or the Ray cluster that it is part of.",
)
backend_option = click.option(
    "--backend", type=click.Choice(get_args(BackendName)), help="Instead of the recipe's or the target's choice."
)
delegate_option = click.option(
    "--delegate",
    type=click.Choice(get_args(DelegateName)),
    help="Of backends executorch and coreml: what runs the matrix products.",
)
recipe_argument = click.argument("recipe", type=click.Path(path_type=Path, exists=True, file_okay=False))
bundle_argument = click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
recipe_option = click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The recipe that the bundle was built from. [default: recipes/<name>]",
)
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Ask only so many evaluation items.")


def open_store(folder: Path | None, shared_url: str | None = None) -> Store:
    url = shared_url or os.environ.get(ENVIRONMENT)
    shared = SharedStore(url) if url else None
    return Store.default(shared) if folder is None else Store(folder, shared)


@contextmanager
def open_engine(name: str, store: Store) -> Iterator[Engine]:
    """Raises InputError where the cluster or what it needs is not there."""
    if name == "local":
        yield LOCAL
        return
    from slmc.cluster.engine import ray_engine

    with ray_engine(store) as engine:
        yield engine


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False))


def megabytes(size: int) -> str:
    """10^6 bytes, as app stores count."""
    return f"{size / 1e6:,.1f} MB"


def _options(manifest: Manifest) -> Options:
    return Options(manifest.backend, delegate=manifest.delegate)


def find_plan(manifest: Manifest, folder: Path | None) -> Plan:
    """The plan that made a bundle. Raises InputError where the recipe is not the one that did."""
    folder = folder or Path("recipes") / manifest.name
    if not folder.is_dir():
        raise InputError(f"no recipe at {folder}", todo="name the bundle's recipe with --recipe")
    recipes = {one.recipe.name: one for one in load_recipe(folder).each()}
    if manifest.name not in recipes:
        raise InputError(f"no recipe of {manifest.name}", where=folder, expected=f"{', '.join(recipes)}")
    plan = resolve(recipes[manifest.name], load_target(manifest.target), _options(manifest))
    built_from = (manifest.origins.recipe, manifest.origins.data)
    if (plan.recipe.digest(), data_digests(plan.recipe)) != built_from:
        raise InputError(
            "the recipe or its data is not what the bundle was built from",
            where=folder,
            todo="build the bundle again, or name its own recipe with --recipe",
        )
    return plan


def end_by_worst(reports: Sequence[Report]) -> None:
    """As `end_by_verdict` for the worst of them."""
    worst = max(reports, key=lambda report: _ORDER.index(report.verdict), default=None)
    if worst is not None:
        end_by_verdict(worst)


def end_by_verdict(report: Report) -> None:
    """Raises GateFailed or GateUnclear, whose exit codes tell a script how it went."""
    if report.verdict == "pass":
        return
    if report.verdict == "fail":
        blame = report.blame
        raise GateFailed(
            f"the recipe's promise is broken at the rung {blame.rung!r}: {blame.gate}" if blame else "a gate failed",
            expected=blame.evidence if blame else None,
            todo="the report names the items that flipped",
        )
    unclear = [check for check in report.checks if check.verdict == "unclear"]
    raise GateUnclear(
        f"the sample can't tell whether {unclear[0].gate} holds at {unclear[0].rung!r}",
        expected=unclear[0].evidence,
        todo="evaluate more items, or widen the gate",
    )
