"""The quantized checkpoint that ships: what a method learns from, and how `auto` finds the cheapest that is enough."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from slmc import console
from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.bundle.golden import evenly
from slmc.checkpoint.adapter import WEIGHTS
from slmc.checkpoint.adapter_config import CONFIG
from slmc.checkpoint.unmerged import FOLDER, read_pairs
from slmc.evidence import base_side, open_base, quantized_rung, reference_rung
from slmc.models.decoder import matrices
from slmc.plan import Plan
from slmc.prompt import Codec
from slmc.quant.calibration import Calibration, Order, Sequence
from slmc.quant.quantizer import quantize
from slmc.quant.reader import open_quantized
from slmc.quant.schemes import SCHEMES
from slmc.quant.table import read_table
from slmc.rungs import WATCHED
from slmc.runners import machine
from slmc.runners.files import read_workload
from slmc.seal import SEAL
from slmc.sources import locate
from slmc.store import Entry, Store
from slmc.validate.gate import overall
from slmc.validate.ladder import judge
from slmc.validate.report import Step
from slmc.validate.workload import check_length

MOST_ITEMS = 1024
"""At most so many calibration items are learned from, evenly spread."""


@dataclass(frozen=True)
class Chosen:
    plan: Plan
    """With the method that is built."""
    quantized: QuantizedCheckpoint
    steps: tuple[Step, ...] = ()
    """What method `auto` tried; empty for any other method."""


def choose(plan: Plan, store: Store, merged: MergedCheckpoint, codec: Codec, reference: Entry | None) -> Chosen:
    """Quantize; with method `auto` until the recipe's gate passes, or else what came nearest to the reference.

    `reference` is None where nothing is validated, which no plan with `auto` is.
    """
    if plan.unmerged:
        return Chosen(plan, open_quantized(beside_stage(plan, store, codec).folder))
    if plan.quantization.method != "auto":
        return Chosen(plan, open_quantized(quantize_stage(plan, store, merged, codec).folder))
    assert reference is not None, "the plan was checked to validate"
    tried: list[tuple[Chosen, Step]] = []
    for attempt in plan.steps:
        entry = quantize_stage(attempt, store, merged, codec)
        quantized = open_quantized(entry.folder)
        step = _judged(attempt, store, merged, quantized, reference, entry.seconds)
        tried.append((Chosen(attempt, quantized), step))
        console.err.print(f"  [dim]{step.method} at {step.bits:.2f} bits a weight: {step.evidence}[/]")
        if step.verdict == "pass":
            break
    passed = [chosen for chosen, step in tried if step.verdict == "pass"]
    nearest, _ = min(tried, key=lambda one: math.inf if one[1].divergence is None else one[1].divergence)
    return replace(passed[0] if passed else nearest, steps=tuple(step for _, step in tried))


def beside_stage(plan: Plan, store: Store, codec: Codec) -> Entry:
    """The base quantized on its own, the same for every adapter, with the plan's adapter beside it."""
    base, source = open_base(plan), plan.recipe.recipe.adapter
    assert base is not None, "the recipe was checked for an adapter"
    assert source is not None
    plain = MergedCheckpoint(base.folder, base.architecture, base.digest)
    foundation, adapter = quantize_stage(plan, store, plain, codec), locate(plan.recipe, source, weights=True)

    def make(folder: Path) -> None:
        read_pairs(adapter, base.architecture)  # raises for one that can only be merged
        shutil.copytree(foundation.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SEAL))
        (folder / FOLDER).mkdir()
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(adapter / name, folder / FOLDER / name)

    with console.step(plan.quantize.name) as told:
        return told(store.obtain(plan.quantize, make))


def quantize_stage(plan: Plan, store: Store, merged: MergedCheckpoint, codec: Codec) -> Entry:
    """By the plan's method; one that is calibrated goes on after the last layer that an interrupted build finished."""
    stage, quantization = plan.foundation if plan.unmerged else plan.quantize, plan.quantization
    scheme, keep = SCHEMES[plan.scheme.value], quantization.keep

    def make(folder: Path) -> None:
        if not quantization.calibrated:
            with console.progress(stage.name, merged.architecture.weights) as advance:
                quantize(merged, scheme, keep, folder, advance, plan.bits)
            return
        from slmc.quant.calibrated.run import quantize_calibrated  # needs torch

        method = quantization.method
        assert method != "auto", "auto is made of steps"
        order = Order(method, plan.budget, matrices(merged.architecture), quantization.seed, machine.cores())
        with store.scratch(stage) as scratch:
            quantize_calibrated(merged, scheme, keep, plan.bits, order, calibration(plan, codec), scratch, folder)

    with console.step(stage.name) as told:
        return told(store.obtain(stage, make))


def calibration(plan: Plan, codec: Codec) -> Calibration:
    """The recipe's calibration items as the model reads and answers them.

    Raises RecipeError naming an item that does not fit the context.
    """
    recipe, context = plan.recipe, plan.context.value
    assert recipe.recipe.data.calibration is not None, "the recipe was checked for one"
    file = recipe.recipe.data.calibration
    sequences = []
    for example in evenly(recipe.examples(file), MOST_ITEMS):
        _, prompt = codec.prompt(example.fields)
        ids = (*prompt, *codec.answer(example.answer))
        check_length(example.id, len(prompt), len(ids) - len(prompt), context, recipe.file(file))
        sequences.append(Sequence(ids, len(prompt)))
    return Calibration(tuple(sequences))


def _judged(
    plan: Plan,
    store: Store,
    merged: MergedCheckpoint,
    quantized: QuantizedCheckpoint,
    reference: Entry,
    seconds: float,
) -> Step:
    """One step of `auto`: the ladder as far as the quantized rung."""
    report = judge(
        plan.recipe,
        read_workload(reference.folder / WATCHED),
        [reference_rung(reference), quantized_rung(plan, store, merged, quantized, reference)],
        base=base_side(plan, store, reference),
    )
    checks = [check for check in report.checks if check.rung == "quantized"]
    verdict, answers = overall(checks), report.rung("quantized").answers
    compared = None if answers is None else answers.against_reference
    kept = None if answers is None or answers.fine_tune is None else answers.fine_tune.kept
    return Step(
        method=plan.quantization.method,
        budget=plan.budget,
        bits=round(read_table(quantized.folder).bits_per_weight, 4),
        seconds=seconds,
        accuracy=None if answers is None else answers.accuracy.share,
        divergence=compared.divergence.mean if compared and compared.divergence else None,
        kept=None if kept is None else kept.share,
        verdict=verdict,
        evidence=next((check.evidence for check in checks if check.verdict == verdict != "pass"), "the gate passes"),
    )
