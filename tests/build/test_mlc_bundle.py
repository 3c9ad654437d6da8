"""The demo recipe as bundles for MLC's engines: complete, judged on this machine's CPU, and said to be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from slmc.backends.mlc.conversation import engine_ids, message_of
from slmc.bundle.golden import read_golden
from slmc.bundle.manifest import NOT_RUN
from slmc.bundle.verify import verify
from slmc.cli.main import cli
from slmc.models.mlc import CHAT_CONFIG, PACKAGE_CONFIG, read_mlc
from slmc.pipeline import Built, build
from slmc.plan import Options, resolve
from slmc.prompt import Codec
from slmc.target import load_target

from .conftest import LIMIT, Demo

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries
TARGETS = ("metal", "ios", "android")


@pytest.fixture(scope="module")
def android(demo: Demo) -> Built:
    plan = resolve(demo.plan.recipe, load_target("android"), Options("mlc"))
    return build(plan, demo.store, demo.out, limit=LIMIT)


@pytest.fixture(scope="module")
def bundles(demo: Demo, android: Built) -> dict[str, Built]:
    """The others are not judged again: their weights are the same."""
    others = {}
    for target in ("metal", "ios"):
        plan = resolve(demo.plan.recipe, load_target(target), Options("mlc", validate=False))
        others[target] = build(plan, demo.store, demo.out)
    return others | {"android": android}


def test_the_cpu_agrees_with_the_quantized_rung(android: Built) -> None:
    assert android.report is not None
    quantized, compiled = android.report.rung("quantized").answers, android.report.rung("compiled").answers
    assert quantized is not None
    assert compiled is not None
    assert abs(quantized.accuracy.share - compiled.accuracy.share) < 0.01
    assert compiled.against_previous is not None
    assert compiled.against_previous.agreement is not None
    assert compiled.against_previous.agreement.share > 0.995


def test_weights_and_prompts_are_read_back(android: Built) -> None:
    assert android.report is not None
    verdicts = {(one.gate, one.rung): one.verdict for one in android.report.checks}
    assert verdicts["weights", "compiled"] == "pass"
    assert verdicts["prompt", "compiled"] == "pass"


def test_report_and_manifest_say_what_ran(android: Built) -> None:
    assert android.report is not None
    rung = android.report.rung("compiled")
    assert rung.adds == "the backend's arithmetic, simulated"
    validation = android.manifest.validation
    assert validation is not None
    assert [run.runtime for run in validation.runs if run.rung == "compiled"] == ["mlc-cpu TVM 0.27.0.post1"]
    assert (android.manifest.library_by, android.manifest.device) == ("slmc", NOT_RUN)


@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle_is_complete(bundles: dict[str, Built], target: str) -> None:
    """Everything that its README names is there."""
    bundle = bundles[target].bundle
    verify(bundle)
    artifact = bundle / "model"
    made = read_mlc(artifact)
    assert {path.name for path in (artifact / made.model_id).iterdir()} >= {
        CHAT_CONFIG,
        "tensor-cache.json",
        "params_shard_0.bin",
        "tokenizer.json",
    }
    assert (artifact / made.library).is_file()
    assert (artifact / PACKAGE_CONFIG).is_file() == (target != "metal")
    named = re.findall(r"^\| `([^`]+)`", (bundle / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(named) > 6
    assert all((bundle / name).exists() for name in named)


@pytest.mark.parametrize(("target", "device"), [("ios", "iphone"), ("android", "android")])
def test_mlc_llm_package_finds_what_it_is_told_of(bundles: dict[str, Built], target: str, device: str) -> None:
    artifact, manifest = bundles[target].bundle / "model", bundles[target].manifest
    config = json.loads((artifact / PACKAGE_CONFIG).read_text())
    [model] = config["model_list"]
    assert config["device"] == device
    assert (artifact / model["model"] / CHAT_CONFIG).is_file()
    assert (artifact / config["model_lib_path_for_prepare_libs"][model["model_lib"]]).is_file()
    memory = manifest.memory
    assert model["estimated_vram_bytes"] == memory.weights + memory.kv_cache + memory.activations + memory.copies
    stored = sum(path.stat().st_size for path in (artifact / model["model"]).glob("*.bin"))
    assert abs(memory.weights - stored) < 0.02 * stored


@pytest.mark.parametrize("target", TARGETS)
def test_the_engine_reads_golden_prompts_as_the_recipe_does(bundles: dict[str, Built], target: str) -> None:
    """From the shipped configuration and tokenizer."""
    bundle = bundles[target].bundle
    model = bundle / "model" / read_mlc(bundle / "model").model_id
    template = json.loads((model / CHAT_CONFIG).read_text(encoding="utf-8"))["conv_template"]
    codec = Codec.open(bundle / "tokenizer")
    assert (model / "tokenizer.json").read_bytes() == written(codec, bundle)
    for item in read_golden(bundle):
        assert engine_ids(codec, template, message_of(codec.format, item.fields)) == list(item.input_ids)
    assert template["stop_token_ids"] == [codec.end_id]


def written(codec: Codec, folder: Path) -> bytes:
    path = folder.with_name("tokenizer.json")
    codec.write_tokenizer(path)
    return path.read_bytes()


def test_slmc_run_asks_it(bundles: dict[str, Built], monkeypatch: pytest.MonkeyPatch, demo: Demo) -> None:
    monkeypatch.setenv("SLMC_STORE", str(demo.store.root))
    done = CliRunner().invoke(cli, ["run", str(bundles["ios"].bundle), "what is the weather in Paris", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["label"] == "weather"


def test_no_speed_is_read_off_a_cpu(bundles: dict[str, Built], monkeypatch: pytest.MonkeyPatch, demo: Demo) -> None:
    monkeypatch.setenv("SLMC_STORE", str(demo.store.root))
    done = CliRunner().invoke(cli, ["bench", str(bundles["android"].bundle), "--rounds", "3"])
    assert "the times of a simulation are no speed" in str(done.exception)
