#!/usr/bin/env python3
"""What each part of the calibrated methods brings: the same recipe with that part left out or set otherwise.

    scripts/bench-ablation RECIPE [--items 1000] [--draws 4] [--only PATTERN] [--markdown FILE]

A single rounding is a matter of luck to some percent, so every variant quantizes several times, each time from
another half of the recipe's calibration items, drawn at random and the same for all variants. Told is the mean
over the draws of what bench_quality.py tells of one, and the mean ratio to the variant that is compared with,
draw by draw, with the standard error of that mean.
"""

from __future__ import annotations

import argparse
import fnmatch
import random
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
import transformers

from bench_quality import Reference, make_questions, show, torch_logits
from slmc.artifacts import MergedCheckpoint
from slmc.models.decoder import matrices
from slmc.pipeline import merge_stage
from slmc.plan import Plan, resolve
from slmc.prompt import compile_prompt
from slmc.quant.calibrated import ends, fold, gptq, learn, moments
from slmc.quant.calibrated.run import quantize_calibrated
from slmc.quant.calibration import Calibration, Order
from slmc.quant.schemes import SCHEMES
from slmc.quantization import calibration
from slmc.recipe import load_recipe
from slmc.runners.torch_model import load
from slmc.store import Store
from slmc.target import load_target

SEED = 12
EVERY_ROW = 1 << 20
PLAIN_ENDS = {(ends, "inverse_factor"): lambda moments: torch.eye(len(moments))}
"""Embedding and head rounded to nearest, whatever the task makes of them."""


@dataclass(frozen=True, eq=False)
class Variant:
    method: Literal["gptq", "tuned"]
    name: str
    prompt_weight: float = 1.0
    constants: Mapping[tuple[object, str], object] = field(default_factory=dict)
    """Values for names of modules, in place of their own."""


VARIANTS = (
    Variant("gptq", "as it is"),
    *(Variant("gptq", f"prompt's positions weigh {weight:g}", weight) for weight in (0.3, 0.1, 0.0)),
    Variant("gptq", "blind to the task: embedding and head plainly rounded", constants=PLAIN_ENDS),
    Variant("gptq", "no scales folded into norms", constants={(fold, "POWERS"): (0.0,)}),
    Variant("tuned", "as it is"),
    Variant("tuned", "prompt's positions weigh 0.3", 0.3),
    Variant("tuned", "rows don't take up one another's errors", constants={(gptq, "ROWS"): EVERY_ROW}),
    Variant("tuned", "losses of the layers before not made good", constants={(moments, "RIDGE"): 1e6}),
    Variant("tuned", "nothing learned by gradient", constants={(learn, "STEPS"): 0}),
    Variant("tuned", "no scales folded into norms", constants={(fold, "POWERS"): (0.0,)}),
)
"""The first of a method is what its others are compared with."""


@contextmanager
def changed(constants: Mapping[tuple[object, str], object]) -> Iterator[None]:
    before = {place: getattr(*place) for place in constants}
    for (module, name), value in constants.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def quantized(plan: Plan, merged: MergedCheckpoint, variant: Variant, learned: Calibration, folder: Path) -> Path:
    scratch, out = folder / "scratch", folder / "out"
    for new in (scratch, out):
        new.mkdir(parents=True)
    order = Order(variant.method, None, matrices(merged.architecture), plan.quantization.seed, torch.get_num_threads())
    scheme = SCHEMES[plan.scheme.value]
    with changed(variant.constants):
        quantize_calibrated(merged, scheme, plan.quantization.keep, plan.bits, order, learned, scratch, out)
    return out


def bench(options: argparse.Namespace, folder: Path) -> None:
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    recipe = load_recipe(options.recipe)
    plan = resolve(recipe, load_target("host"))
    merged = merge_stage(plan, Store.default())
    codec = compile_prompt(recipe, merged.folder, recipe.examples(recipe.recipe.data.evaluation))
    questions = make_questions(recipe, codec, options.items)
    logits = torch_logits(load(merged.folder, "cpu"), questions)
    reference = Reference(questions, logits, merged.architecture.vocab_size, folder / "reference.npy")
    sequences, drawn = calibration(plan, codec).sequences, random.Random(SEED)
    halves = [tuple(drawn.sample(sequences, len(sequences) // 2)) for _ in range(options.draws)]
    found: dict[Variant, list[float]] = {}
    for index, variant in enumerate(VARIANTS):
        if fnmatch.fnmatch(f"{variant.method}: {variant.name}", options.only):
            found[variant] = []
            for draw, half in enumerate(halves):
                learned = Calibration(half, variant.prompt_weight)
                out = quantized(plan, merged, variant, learned, folder / f"{index}-{draw}")
                name = f"{variant.method}: {variant.name}, draw {draw}"
                measured = reference.measure(name, 0.0, torch_logits(load(out, "cpu"), questions))
                found[variant].append(reference.mean(measured))
    where = f"{recipe.recipe.name}, {len(questions)} items, means over {options.draws} halves of the calibration items"
    text = show(where, ["method", "variant", "mean KL", "to the method as it is"], list(rows(found)))
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")


def rows(found: Mapping[Variant, list[float]]) -> Iterator[list[str]]:
    whole = {}
    for variant, values in found.items():
        against = whole.setdefault(variant.method, values)
        ratios = [value / other for value, other in zip(values, against, strict=True)]
        spread = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
        told = "–" if values is against else f"{statistics.mean(ratios):.2f} ± {spread:.2f}"
        yield [variant.method, variant.name, f"{statistics.mean(values):.5f}", told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a recipe's folder")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--only", default="*", help="a shell pattern for `method: variant`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the table here")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        bench(options, Path(folder))


if __name__ == "__main__":
    main()
