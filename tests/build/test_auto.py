"""Method `auto` on the demo recipe, with few items: what it tries, what it builds, and what the report tells of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from slmc.bundle.golden import evenly
from slmc.pipeline import Built, build, merge_stage, run_reference
from slmc.plan import Plan, resolve
from slmc.prompt import compile_prompt
from slmc.quant.table import read_table
from slmc.quantization import choose
from slmc.recipe import load_recipe
from slmc.seal import SEAL
from slmc.store import Store
from slmc.target import load_target
from slmc.validate.report import Step, read_report

from .conftest import DEMO

learning = pytest.importorskip("slmc.quant.calibrated.learn", exc_type=ImportError)
pytestmark = pytest.mark.build

LABELS, ITEMS, LEARNED_FROM = 24, 60, 24
LENIENT = {"max_accuracy_drop": 0.5, "min_survival": 0, "min_agreement": 0}


def recipe(folder: Path, gates: dict[str, float]) -> Plan:
    """The demo's, with a few of its labels, little to learn from and no threshold to fit."""
    shutil.copytree(DEMO, folder)
    asked = yaml.safe_load((folder / "recipe.yaml").read_text())
    del asked["task"]["abstain"]
    asked |= {"quantization": {"method": "auto", "budget": "5 bits"}, "gates": gates}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(asked))
    labels = (folder / "data" / "labels.txt").read_text().splitlines()[:LABELS]
    (folder / "data" / "labels.txt").write_text("\n".join(labels) + "\n")
    for file, count in (("eval", ITEMS), ("calibration", LEARNED_FROM)):
        path = folder / "data" / f"{file}.jsonl"
        lines = [line for line in path.read_text().splitlines(keepends=True) if json.loads(line)["label"] in labels]
        path.write_text("".join(evenly(lines, count)))
    return resolve(load_recipe(folder), load_target("host"))


@dataclass(frozen=True)
class Impossible:
    """Built where no method keeps the promise."""

    plan: Plan
    store: Store
    out: Path
    built: Built


@pytest.fixture(scope="module")
def impossible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Impossible]:
    root = tmp_path_factory.mktemp("auto")
    plan, store = recipe(root / "recipe", LENIENT | {"max_mean_kl": 1e-6}), Store(root / "store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(learning, "STEPS", 20)  # those of 200 that gain most
        yield Impossible(plan, store, root / "DIST", build(plan, store, root / "DIST"))


def test_where_no_method_is_enough_all_are_tried(impossible: Impossible) -> None:
    report = impossible.built.report
    assert report is not None
    assert report.verdict == "fail"
    assert [(step.method, step.budget) for step in report.steps] == [
        ("rtn", None),
        ("gptq", None),
        ("tuned", None),
        ("tuned", 5.0),
    ]
    rtn, gptq, tuned, wide = report.steps
    assert {step.verdict for step in report.steps} == {"fail"}
    assert all("nats a token" in step.evidence for step in report.steps)
    assert all(step.seconds > 0 for step in report.steps)
    # What each cost, and what it bought.
    assert 4.5 < rtn.bits < min(gptq.bits, tuned.bits)  # norms that are folded take more
    assert max(gptq.bits, tuned.bits) < 4.6
    assert 4.9 < wide.bits < 5.1
    assert rtn.divergence is not None
    assert tuned.divergence is not None
    assert wide.divergence is not None
    assert wide.divergence < tuned.divergence < 0.8 * rtn.divergence
    for step in report.steps:
        assert step.accuracy is not None
        assert step.accuracy > 0.7
        assert step.kept is not None
        assert step.kept > 0.8


def test_the_nearest_to_the_reference_is_built(impossible: Impossible) -> None:
    report, manifest = impossible.built.report, impossible.built.manifest
    assert report is not None
    nearest = min(report.steps, key=lambda step: step.divergence or 1.0)
    assert (manifest.quantization.method, manifest.quantization.bits) == (nearest.method, nearest.bits)
    assert manifest.recipe.quantization.method == "auto"
    answers = report.rung("quantized").answers
    assert answers is not None
    assert answers.against_reference is not None
    assert answers.against_reference.divergence is not None
    assert answers.against_reference.divergence.mean == nearest.divergence
    read_back = report.rung("compiled").read_back
    assert read_back is not None
    assert read_back.wrong == ()
    [step] = [
        step
        for step in impossible.plan.steps
        if (step.quantization.method, step.budget) == (nearest.method, nearest.budget)
    ]
    assert manifest.origins.stages["quantize"] == step.quantize.key


def test_the_steps_are_in_the_report(impossible: Impossible) -> None:
    proof = impossible.out / f"{impossible.plan.name}.proof"
    report = impossible.built.report
    assert report is not None
    assert read_report(proof / "report.json").steps == report.steps
    told = json.loads((proof / "report.json").read_text())["steps"]
    assert [step["method"] for step in told] == ["rtn", "gptq", "tuned", "tuned"]
    page = (proof / "report.html").read_text()
    assert all(step.evidence in page for step in report.steps)


def test_a_second_build_does_nothing_again(impossible: Impossible) -> None:
    stored = set(impossible.store.root.glob(f"*/*/{SEAL}"))
    again = build(impossible.plan, impossible.store, impossible.out.parent / "again")
    assert set(impossible.store.root.glob(f"*/*/{SEAL}")) == stored
    assert again.report == impossible.built.report
    assert again.manifest.digest == impossible.built.manifest.digest
    assert not list((impossible.store.root / "scratch").iterdir())


def test_it_stops_at_the_first_method_that_is_enough(impossible: Impossible, tmp_path: Path) -> None:
    """A promise that `rtn` and `gptq` may have broken, by these few items, and `tuned` surely keeps."""
    assert impossible.built.report is not None
    before, store = impossible.built.report.steps[:3], impossible.store
    rtn, gptq, tuned = map(upper_end, before)
    limit = (min(rtn, gptq) + tuned) / 2
    assert tuned < limit
    plan = recipe(tmp_path / "recipe", LENIENT | {"max_mean_kl": limit})
    stored = set(store.root.glob(f"quantize/*/{SEAL}"))
    merged = merge_stage(plan, store)
    codec = compile_prompt(plan.recipe, merged.folder, ())
    chosen = choose(plan, store, merged, codec, run_reference(plan, store, merged, codec, None))
    assert [(step.method, step.budget) for step in chosen.steps] == [("rtn", None), ("gptq", None), ("tuned", None)]
    assert {step.verdict for step in chosen.steps[:2]} <= {"unclear", "fail"}
    assert (chosen.steps[2].verdict, chosen.steps[2].evidence) == ("pass", "the gate passes")
    assert (chosen.plan.quantization.method, chosen.plan.budget) == ("tuned", None)
    assert {row.method for row in read_table(chosen.quantized.folder).tensors if row.scheme} == {"tuned"}
    assert set(store.root.glob(f"quantize/*/{SEAL}")) == stored  # the gate has no part in what a method makes
    assert [step.seconds for step in chosen.steps] == [step.seconds for step in before]  # what they took then
    assert [step.divergence for step in chosen.steps] == [step.divergence for step in before]


def upper_end(step: Step) -> float:
    """Of the interval of a step's mean divergence."""
    told = re.search(r"\([\d.e-]+ to ([\d.e-]+)\)", step.evidence)
    assert told is not None
    return float(told[1])
