"""`slmc plan`: everything a build would do, before it does any of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from rich.table import Table

from slmc.cli.common import (
    as_json,
    backend_option,
    delegate_option,
    megabytes,
    open_store,
    print_json,
    recipe_argument,
    shared_store_option,
    store_option,
    target_option,
)
from slmc.console import out, table
from slmc.names import ACTIVATIONS, Activations, BackendName, DelegateName, SchemeName
from slmc.plan import Choice, Options, Plan, resolve
from slmc.recipe import load_recipe
from slmc.store import Stage, Store
from slmc.target import load_target


@click.command("plan")
@recipe_argument
@target_option
@backend_option
@delegate_option
@store_option
@shared_store_option
@as_json
def command(
    recipe: Path,
    target_name: str,
    backend: BackendName | None,
    delegate: DelegateName | None,
    store_folder: Path | None,
    shared_url: str | None,
    as_json: bool,
) -> None:
    """Show what building RECIPE would do: choices, sizes, memory by device class, stages in the store."""
    loaded, options = load_recipe(recipe), Options(backend, delegate=delegate)
    store = open_store(store_folder, shared_url)
    plans = [resolve(one, load_target(target_name), options) for one in loaded.each()]
    if as_json:
        described = [describe(plan, store) for plan in plans]
        print_json(described if loaded.recipe.adapters else described[0])
    else:
        for plan in plans:
            show(plan, store)


def describe(plan: Plan, store: Store) -> dict[str, object]:
    """The plan as JSON; bytes and shares."""
    forecast = plan.forecast
    return {
        "name": plan.name,
        "target": plan.target.name,
        "choices": {name: {"value": choice.value, "origin": choice.origin} for name, choice in _choices(plan).items()},
        "forecast": {
            "weights": forecast.weights,
            "kv_cache": forecast.kv_cache,
            "activations": forecast.activations,
            "copies": forecast.copies,
            "memory": forecast.memory,
        },
        "device_classes": [
            {"name": fit.device.name, "process_mib": fit.device.process_mib, "share": fit.share, "fits": fit.fits}
            for fit in plan.fits()
        ],
        "steps": [
            {
                "method": step.quantization.method,
                "budget": step.budget,
                "stages": [
                    {"name": s.name, "key": s.key, "stored": store.has(s), "shared": store.shares(s)}
                    for s in step.stages
                ],
            }
            for step in plan.steps
        ],
    }


def show(plan: Plan, store: Store) -> None:
    out.print(f"[bold]{plan.name}[/]  {plan.architecture.family}, {plan.target.title}")
    out.print(_choice_table(plan))
    forecast = plan.forecast
    out.print(
        f"foretold: weights {megabytes(forecast.weights)}, KV cache {megabytes(forecast.kv_cache)}, "
        f"activations {megabytes(forecast.activations)}"
        + (f", weights held twice {megabytes(forecast.copies)}" if forecast.copies else "")
    )
    out.print(_memory(plan))
    for step in plan.steps:
        out.print(_method(step))
        for stage in step.stages:
            out.print(f"  {stage.name:<9} {stage.key[:12]}  {_state(stage, store)}")
    if len(plan.steps) > 1:
        out.print("the first of these that the gate passes is built")


def _state(stage: Stage, store: Store) -> str:
    if store.has(stage):
        return "[green]in the store[/]"
    return "[green]in the shared store[/]" if store.shares(stage) else "to do"


def _method(plan: Plan) -> str:
    limit = "" if plan.budget is None else f", at most {plan.budget:.3g} bits a quantized weight"
    return f"method {plan.quantization.method}{limit}"


_AnyChoice = Choice[BackendName] | Choice[SchemeName] | Choice[int] | Choice[Activations] | Choice[DelegateName]


def _choices(plan: Plan) -> Mapping[str, _AnyChoice]:
    found: dict[str, _AnyChoice] = {"backend": plan.backend, "scheme": plan.scheme, "context": plan.context}
    if plan.delegate is not None:
        found["delegate"] = plan.delegate
    if plan.backend.value in ACTIVATIONS:
        found["activations"] = plan.activations
    return found


def _choice_table(plan: Plan) -> Table:
    rows = table("choice", "value", "from")
    for name, choice in _choices(plan).items():
        origin = f"[dim]{choice.origin}[/]" if choice.origin == "default" else choice.origin
        rows.add_row(name, str(choice.value), origin)
    if plan.triples:
        rows.add_row("library", ", ".join(plan.triples), "target")
    if plan.backend.value == "mlc":
        tool = plan.mlc_llm.value
        by = "slmc's own compiler" if tool is None else f"{tool.program}, {tool.version}"
        rows.add_row("library by", by, plan.mlc_llm.origin)
    return rows


def _memory(plan: Plan) -> Table:
    rows = table("device class", "a process may use", "foretold", "")
    for fit in plan.fits():
        verdict = "[green]fits[/]" if fit.fits else "[red]does not fit[/]"
        rows.add_row(fit.device.name, f"{fit.device.process_mib:,} MiB", f"{fit.share:.1%}", verdict)
    return rows
