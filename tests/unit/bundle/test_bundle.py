from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmc import digest
from slmc.bundle.golden import evenly, read_golden
from slmc.bundle.manifest import (
    MANIFEST,
    Abstain,
    Answered,
    Confidence,
    Manifest,
    RunRecord,
    Validation,
    read_manifest,
    write_manifest,
)
from slmc.bundle.pack import Content, deliver, pack
from slmc.bundle.verify import verify
from slmc.errors import BundleError


def test_a_packed_bundle_verifies(bundle: Path) -> None:
    manifest = verify(bundle)
    assert "model/weights.bin" in manifest.files
    assert not any(".stage.json" in name for name in manifest.files)
    assert manifest.device == "not run on a device"
    assert [item.expected for item in read_golden(bundle)] == ["yes", "no", "yes"]


def test_the_same_content_gives_the_same_bytes(
    bundle: Path, content: Content, manifest: Manifest, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    pack(content, manifest, again)
    assert digest.of_folder(again) == digest.of_folder(bundle)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("model/weights.bin", lambda p: p.write_bytes(b"short"), "has 5 bytes, not 256"),
        ("model/weights.bin", lambda p: p.write_bytes(bytes(256)), "was changed"),
        ("model/weights.bin", lambda p: p.unlink(), "is missing"),
        ("model/more.bin", lambda p: p.write_bytes(b""), "not in the manifest"),
        (MANIFEST, lambda p: p.write_text("{}"), "Field required"),
        (MANIFEST, lambda p: p.write_text("{"), "can't be read"),
        (MANIFEST, lambda p: p.unlink(), r"no manifest\.json"),
    ],
)
def test_damage_is_named(bundle: Path, name: str, change: object, match: str) -> None:
    assert callable(change)
    change(bundle / name)
    with pytest.raises(BundleError, match=match):
        verify(bundle)


def test_a_changed_prompt_format_is_named_even_if_the_manifest_vouches_for_it(bundle: Path) -> None:
    path = bundle / "tokenizer" / "prompt.json"
    path.write_text(path.read_text().replace("<|user|>", "<|system|>"))
    manifest = read_manifest(bundle)
    entry = manifest.files["tokenizer/prompt.json"]
    forged = entry.model_copy(update={"bytes": path.stat().st_size, "sha256": digest.of_file(path)})
    files = manifest.files | {"tokenizer/prompt.json": forged}
    write_manifest(manifest.model_copy(update={"files": files}), bundle)
    with pytest.raises(BundleError, match="golden prompt '0' reads differently"):
        verify(bundle)


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", "..\\b"])
def test_a_manifest_cannot_name_files_outside(bundle: Path, name: str) -> None:
    raw = json.loads((bundle / MANIFEST).read_text())
    raw["files"][name] = {"bytes": 1, "sha256": "0"}
    (bundle / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="leaves the bundle"):
        verify(bundle)


def test_what_was_run_does_not_change_the_bundles_name(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    run = RunRecord(rung="compiled", runtime="tvm", device="cpu", verdict="pass")
    answered = Answered(items=20, coverage=0.9, error=0.05)
    abstain = Abstain(threshold=0.5, max_error=0.05, fitted=answered, measured={"compiled": answered})
    confidence = Confidence(calibration_error={"compiled": 0.04}, abstain=abstain)
    judged = {"validation": Validation(verdict="pass", runs=(run,)), "confidence": confidence}
    write_manifest(manifest.model_copy(update=judged), bundle)
    found = verify(bundle)
    assert (found.digest, found.confidence) == (manifest.digest, confidence)


def test_delivery_replaces_a_bundle_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    destination = tmp_path / "DIST" / "small"
    deliver(bundle, destination)
    (destination / "stray").write_text("")
    deliver(bundle, destination)
    verify(destination)
    shutil.rmtree(destination)
    destination.mkdir()
    (destination / "precious.txt").write_text("mine")
    with pytest.raises(BundleError, match="no bundle stands where"):
        deliver(bundle, destination)
    assert [path.name for path in destination.parent.rglob("*")] == ["small", "precious.txt"]


def test_evenly_spread() -> None:
    assert evenly(range(10), 3) == [0, 3, 6]
    assert evenly([1, 2], 5) == [1, 2]
