"""Tasks other than classify through the whole pipeline, on the demo's own model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from slmc.bundle.verify import verify
from slmc.pipeline import build
from slmc.plan import resolve
from slmc.recipe import load_recipe
from slmc.store import Store
from slmc.target import load_target
from slmc.validate.report import Report

from .conftest import DEMO

pytestmark = pytest.mark.build
ITEMS = 40

SCHEMA = {"type": "object", "properties": {"intent": {"type": "string"}}, "required": ["intent"]}
EXTRACT = {"kind": "extract", "json_schema": "schema.json", "max_tokens": 8}


def judged(tmp_path: Path, task: dict[str, object]) -> Report:
    """The demo's evaluation items with another task; its calibration items have no answers to that."""
    folder = Path(shutil.copytree(DEMO, tmp_path / "recipe"))
    asked = yaml.safe_load((folder / "recipe.yaml").read_text())
    del asked["data"]["calibration"]
    asked |= {"task": task, "quantization": {"method": "rtn"}}
    asked["gates"]["min_accuracy"] = 0.0
    (folder / "recipe.yaml").write_text(yaml.safe_dump(asked))
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    lines = (folder / "data" / "eval.jsonl").read_text().splitlines()[:ITEMS]
    items = []
    for item in map(json.loads, lines):
        label = item.pop("label")
        items.append(json.dumps(item | {"answer": {"intent": label} if task["kind"] == "extract" else label}))
    (folder / "data" / "eval.jsonl").write_text("\n".join(items) + "\n")
    plan = resolve(load_recipe(folder), load_target("host"))
    built = build(plan, Store(tmp_path / "store"), tmp_path / "DIST")
    verify(built.bundle)
    assert built.report is not None
    return built.report


def test_generate_is_judged_by_exact_match(tmp_path: Path) -> None:
    """The model writes its label freely, and is right about as often as when it chooses."""
    report = judged(tmp_path, {"kind": "generate", "max_tokens": 12})
    for name in ("reference", "quantized", "compiled", "app"):
        answers = report.rung(name).answers
        assert answers is not None
        assert answers.accuracy.share > 0.7
        assert answers.prompt_mismatches == 0


def test_extract_counts_what_is_no_json_as_wrong(tmp_path: Path) -> None:
    """A model that was never taught to write JSON gets nothing right, and nothing breaks."""
    report = judged(tmp_path, EXTRACT)
    for name in ("reference", "quantized", "compiled"):
        answers = report.rung(name).answers
        assert answers is not None
        assert answers.accuracy.count == 0
        assert [field.field for field in answers.fields] == ["intent"]
        assert answers.micro_f1 == 0
