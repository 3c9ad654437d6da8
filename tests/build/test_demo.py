"""The main job on the demo recipe: what a newcomer's one command does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from slmc import digest
from slmc.bundle.golden import read_golden
from slmc.bundle.verify import verify
from slmc.errors import BundleError
from slmc.pipeline import build
from slmc.seal import SEAL
from slmc.store import Store
from slmc.validate.report import read_report

from .conftest import DEMO, LIMIT, Demo

pytestmark = pytest.mark.build


def slmc(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slmc", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Of torch, as a process that embeds slmc may have set them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def test_the_adapter_is_the_task_and_survives(demo: Demo) -> None:
    report = demo.built.report
    assert report is not None
    reference, quantized, compiled = (report.rung(name).answers for name in ("reference", "quantized", "compiled"))
    assert reference is not None
    assert quantized is not None
    assert compiled is not None
    assert reference.accuracy.share >= 0.85
    assert reference.accuracy.share - quantized.accuracy.share <= 0.015
    assert compiled.against_previous is not None
    assert compiled.against_previous.agreement is not None
    assert compiled.against_previous.agreement.share >= 0.98
    assert report.not_run == ("device",)
    assert report.base is not None
    assert report.base.accuracy.share < 0.05
    for rung in (quantized, compiled):
        assert rung.fine_tune is not None
        assert rung.fine_tune.kept is not None
        assert rung.fine_tune.kept.total == report.base.changed
        assert rung.fine_tune.kept.share >= 0.95
    adapter = report.rung("quantized").adapter
    assert adapter is not None
    assert len(adapter.tensors) == 28
    assert all(one.coefficient > 0.9 for one in adapter.tensors)


def test_the_threshold_of_the_bundle_keeps_the_errors_down(demo: Demo) -> None:
    """What was fitted to the calibration items holds on the evaluation items, about."""
    confidence = verify(demo.built.bundle).confidence
    assert confidence is not None
    assert set(confidence.calibration_error) == {"reference", "quantized", "compiled", "app"}
    assert all(0 < error < 0.1 for error in confidence.calibration_error.values())
    abstain = confidence.abstain
    assert abstain is not None
    assert abstain.threshold is not None
    assert 0 < abstain.threshold < 1
    assert (abstain.max_error, abstain.fitted.items) == (0.05, 512)
    assert abstain.fitted.error is not None
    assert abstain.fitted.error <= 0.05
    assert set(abstain.measured) == {"quantized", "compiled", "app"}
    for answered in abstain.measured.values():
        assert answered.items == LIMIT
        assert answered.coverage > 0.7
        assert answered.error is not None
        assert answered.error < 0.08


def test_the_bundle_verifies_and_says_what_was_run(demo: Demo) -> None:
    manifest = verify(demo.built.bundle)
    assert manifest.device == "not run on a device"
    assert manifest.validation is not None
    assert [run.rung for run in manifest.validation.runs] == ["reference", "quantized", "compiled", "app", "device"]
    assert manifest.validation.runs[-1].verdict == "not run"
    golden = read_golden(demo.built.bundle)
    assert len(golden) == 32
    assert all(item.reference is not None and item.reference.logprobs for item in golden)


def test_a_second_build_reuses_everything_and_a_fresh_one_gives_the_same_bytes(demo: Demo, tmp_path: Path) -> None:
    stored = set(demo.store.root.glob(f"*/*/{SEAL}"))
    again = build(demo.plan, demo.store, tmp_path / "again", limit=LIMIT)
    assert set(demo.store.root.glob(f"*/*/{SEAL}")) == stored
    with threads(3 - min(2, torch.get_num_threads())):
        fresh = build(demo.plan, Store(tmp_path / "store"), tmp_path / "fresh", limit=LIMIT)
    wanted = digest.of_folder(demo.built.bundle)
    assert digest.of_folder(again.bundle) == wanted
    assert digest.of_folder(fresh.bundle) == wanted


def test_the_proof_is_complete(demo: Demo) -> None:
    proof = demo.out / f"{demo.plan.name}.proof"
    names = {path.name for path in proof.iterdir()}
    assert names == {
        "workload.jsonl",
        "reference.jsonl",
        "quantized.jsonl",
        "app.jsonl",
        "compiled.jsonl",
        "report.json",
        "report.html",
    }
    report = read_report(proof / "report.json")
    assert report == demo.built.report
    page = (proof / "report.html").read_text()
    assert "not run on a device" in page.lower()
    assert all(flip.id in page for flip in report.flips[:20])
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "src=" not in page


def test_the_verbs_on_a_bundle(demo: Demo, tmp_path: Path) -> None:
    bundle, store = demo.built.bundle, demo.store.root
    assert json.loads(slmc("verify", bundle, "--json", cwd=tmp_path).stdout)["ok"] is True
    shown = json.loads(slmc("inspect", bundle, "--json", cwd=tmp_path).stdout)
    assert shown["quantization"]["scheme"] == "int4-g32"
    assert "model.layers.0.self_attn.q_proj.weight" in slmc("inspect", bundle, cwd=tmp_path).stdout
    speed = json.loads(slmc("bench", bundle, "--rounds", 3, "--json", cwd=tmp_path).stdout)
    assert speed["decode_tokens_per_s"]["median"] > 0
    judged = slmc("validate", bundle, "--recipe", DEMO, "--store", store, "--limit", LIMIT, "--json", cwd=tmp_path)
    report = json.loads(judged.stdout)
    assert judged.returncode == {"pass": 0, "unclear": 21}[report["verdict"]]


def test_a_bundle_can_be_asked(demo: Demo, tmp_path: Path) -> None:
    told = slmc("run", demo.built.bundle, "what is the meaning of life", "--json", cwd=tmp_path)
    answer = json.loads(told.stdout)
    assert answer["label"] == "meaning_of_life"
    assert answer["probability"] > 0.9
    assert not answer["abstain"]
    refused = slmc("run", demo.built.bundle, "--field", "colour=red", cwd=tmp_path)
    assert refused.returncode != 0
    assert "the prompt is made of text" in refused.stderr


def test_a_damaged_bundle_is_not_judged(demo: Demo, tmp_path: Path) -> None:
    weights = demo.built.bundle / "model" / "model.slm"
    original = weights.read_bytes()
    try:
        weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        done = slmc("validate", demo.built.bundle, "--recipe", DEMO, cwd=tmp_path)
        assert done.returncode == BundleError.exit_code
        assert "model.slm was changed" in done.stderr
    finally:
        weights.write_bytes(original)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_stopped_anywhere_leaves_nothing_half_made(
    tmp_path: Path, how: signal.Signals, demo: Demo
) -> None:
    """Stopped as each stage begins to write; the last run finishes and gives the same bundle."""
    store, out = tmp_path / "store", tmp_path / "DIST"
    words = ["build", str(DEMO), "--store", str(store), "--out", str(out), "--limit", str(LIMIT), "--json"]
    for stage in ("merge", "reference", "quantize"):
        process = subprocess.Popen(
            [sys.executable, "-m", "slmc", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_begun(store, stage, process)
        os.kill(process.pid, how)
        process.wait(timeout=60)
        assert not out.exists()
        assert not list(store.glob(f"{stage}/*/{SEAL}"))
    done = slmc(*words, cwd=tmp_path)
    assert json.loads(done.stdout)["digest"] == demo.built.manifest.digest
    assert list((store / "work").iterdir()) == []


def wait_until_begun(store: Path, stage: str, process: subprocess.Popen[bytes]) -> None:
    """The stage's lock is there, and unfinished work with a file in it."""
    deadline = time.monotonic() + 120
    while not (list(store.glob(f"{stage}/*.lock")) and list(store.glob("work/*/*"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
