from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from slmc.architecture import CALIBRATED, FAMILIES, Family
from slmc.backends import check_delegation, here
from slmc.backends.executorch.profiles import check_delegate
from slmc.config_json import read_architecture
from slmc.errors import CheckpointError, GateFailed, InputError, MissingToolError, RecipeError
from slmc.forecast import foretell
from slmc.mlc_llm import MlcLlm
from slmc.models.exported import Delegation, write_exported
from slmc.names import SCHEMES
from slmc.plan import Choice, Options, Plan, resolve
from slmc.recipe import Quantization, load_recipe
from slmc.store import Store
from slmc.target import load_target

from .artifacts import exported
from .configs import CONFIGS

G32 = SCHEMES["int4-g32"]


def plan(folder: Path, target: str = "host", options: Options | None = None) -> Plan:
    return resolve(load_recipe(folder), load_target(target), options)


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace(old, new))


def test_float32_activations_are_refused_where_a_backend_has_none(recipe_folder: Path) -> None:
    edit(recipe_folder, "context: 64", "targets: {ios: {backend: executorch, activations: float32}}")
    with pytest.raises(RecipeError, match="'executorch' does not have activations of float32"):
        plan(recipe_folder, "ios")
    assert plan(recipe_folder, "ios", Options(backend="tvm")).activations.value == "float32"


def test_choices_tell_where_they_come_from(recipe_folder: Path) -> None:
    found = plan(recipe_folder)
    assert (found.backend.value, found.backend.origin) == ("tvm", "target")
    assert (found.scheme.value, found.scheme.origin) == ("int4-g32", "default")
    assert (found.context.value, found.context.origin) == (64, "recipe")
    edit(recipe_folder, "context: 64", "targets: {ios: {backend: executorch, scheme: int4-g64}}")
    found = plan(recipe_folder, "ios")
    assert (found.backend.value, found.backend.origin) == ("executorch", "recipe")
    assert (found.scheme.value, found.scheme.origin) == ("int4-g64", "recipe")
    assert plan(recipe_folder, "ios", Options(backend="mlc")).backend.origin == "option"


def test_a_backend_that_the_target_lacks(recipe_folder: Path) -> None:
    with pytest.raises(InputError, match="no backend 'coreml'"):
        plan(recipe_folder, "android", Options(backend="coreml"))


def test_a_context_longer_than_the_models(recipe_folder: Path) -> None:
    edit(recipe_folder, "context: 64", "context: 129")
    with pytest.raises(RecipeError, match="longer than the model's own 128"):
        plan(recipe_folder)


def test_a_context_beyond_which_other_ropes_hold(recipe_folder: Path) -> None:
    (recipe_folder / "base" / "config.json").write_text(json.dumps(CONFIGS["phi3"]))
    assert plan(recipe_folder).context.value == 64
    edit(recipe_folder, "context: 64", "context: 65")
    with pytest.raises(RecipeError, match="longer than the model's own 64") as caught:
        plan(recipe_folder)
    assert "original_max_position_embeddings" in str(caught.value.expected)
    edit(recipe_folder, "context: 65", "")
    assert plan(recipe_folder).context.value == 64


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("quantization", "told"),
    [
        ("{method: gptq}", "method gptq"),
        ("{method: tuned}", "method tuned"),
        ("{method: auto}", "method auto"),
        ("{budget: 5 bits}", "budget 5 bits"),
        ("{max_size_mb: 0.5}", "max_size_mb 0.5"),
    ],
)
def test_families_that_calibrated_methods_do_not_know(
    recipe_folder: Path, family: Family, quantization: str, told: str
) -> None:
    (recipe_folder / "base" / "config.json").write_text(json.dumps(CONFIGS[family]))
    edit(recipe_folder, "credit: ours", "calibration: eval.jsonl, credit: ours")
    plan(recipe_folder)
    edit(recipe_folder, "context: 64", f"context: 64\nquantization: {quantization}")
    if family in CALIBRATED:
        plan(recipe_folder)
        return
    with pytest.raises(RecipeError, match=f"{told} needs a calibrated method, .* none for {family}") as caught:
        plan(recipe_folder)
    assert "method: rtn" in str(caught.value.todo)


def test_foretold_bytes_are_those_of_the_layout(recipe_folder: Path) -> None:
    architecture = read_architecture(recipe_folder / "base")
    linear = 300 * 64 + 2 * (128 * 64 + 2 * 64 * 64 + 64 * 128 + 3 * 64 * 128)
    norms = 64 + 2 * (64 + 64 + 32 + 32)
    found = foretell(architecture, G32, {}, Quantization(), 64, "tvm")
    assert found.weights == linear // 2 + 2 * (linear // 32) + 4 * norms
    assert found.kv_cache == 2 * 2 * 2 * 32 * 64 * 2
    kept = foretell(architecture, G32, {}, Quantization(keep=("model.embed_tokens.weight",)), 64, "tvm")
    assert kept.weights - found.weights == 2 * 300 * 64 - (300 * 64 // 2 + 2 * (300 * 64 // 32))
    wide = foretell(architecture, G32, {"model.embed_tokens.weight": 8}, Quantization(), 64, "tvm")
    assert wide.weights - found.weights == 300 * 64 // 2
    assert (
        foretell(architecture, G32, {}, Quantization(budget="5.5 bits"), 64, "tvm").weights
        == linear * 11 // 16 + 4 * norms
    )
    assert (
        foretell(architecture, G32, {}, Quantization(budget="16 bits"), 64, "tvm").weights
        == linear * 17 // 16 + 4 * norms
    )
    assert foretell(architecture, G32, {}, Quantization(max_size_mb=0.07), 64, "tvm").weights == 70000


def test_a_limit_is_told_in_bits_a_weight(recipe_folder: Path) -> None:
    assert plan(recipe_folder).budget is None
    edit(recipe_folder, "credit: ours", "calibration: eval.jsonl, credit: ours")
    edit(recipe_folder, "context: 64", "context: 64\nquantization: {budget: 4.6 bits}")
    assert plan(recipe_folder).budget == 4.6
    edit(recipe_folder, "budget: 4.6 bits", "max_size_mb: 0.07")
    found = plan(recipe_folder)
    norms = 64 + 2 * (64 + 64 + 32 + 32)
    weights = 300 * 64 + 2 * (128 * 64 + 2 * 64 * 64 + 64 * 128 + 3 * 64 * 128)
    assert found.budget == pytest.approx((70000 - 4 * norms) * 8 / weights)


@pytest.mark.parametrize(
    ("quantization", "match"),
    [
        ("{budget: 4.4 bits}", r"at least 4\.50 bits"),
        ("{embedding: 8, budget: 4.6 bits}", r"at least 5\.\d\d bits"),
        ("{max_size_mb: 0.06}", r"at least 0\.1"),
        ("{head: 8}", "head is its embedding"),
        ("{head: 4, embedding: 8}", "head is its embedding"),
        ("{scheme: int8-g32, head: 4}", "head is its embedding"),
    ],
)
def test_bits_that_cannot_be(recipe_folder: Path, quantization: str, match: str) -> None:
    edit(recipe_folder, "credit: ours", "calibration: eval.jsonl, credit: ours")
    edit(recipe_folder, "context: 64", f"context: 64\nquantization: {quantization}")
    with pytest.raises(RecipeError, match=match):
        plan(recipe_folder)


@pytest.mark.parametrize("quantization", ["{head: 4}", "{head: 8, embedding: 8}", "{scheme: int8-g32, head: 8}"])
def test_a_tied_head_may_be_named_with_its_embedding(recipe_folder: Path, quantization: str) -> None:
    edit(recipe_folder, "credit: ours", "calibration: eval.jsonl, credit: ours")
    edit(recipe_folder, "context: 64", f"context: 64\nquantization: {quantization}")
    plan(recipe_folder)


@pytest.mark.parametrize(
    "quantization", ["{embedding: 8}", "{scheme: int8-g32}", "{budget: 5 bits}", "{max_size_mb: 100}"]
)
def test_bits_that_the_backend_lacks(recipe_folder: Path, quantization: str) -> None:
    edit(recipe_folder, "credit: ours", "calibration: eval.jsonl, credit: ours")
    edit(recipe_folder, "context: 64", f"context: 64\nquantization: {quantization}")
    plan(recipe_folder)
    with pytest.raises(RecipeError, match="backend 'executorch' can't hold codes of 8 bits"):
        plan(recipe_folder, "ios", Options(backend="executorch"))


def test_stage_keys_change_with_what_goes_in_and_with_nothing_else(recipe_folder: Path) -> None:
    before = plan(recipe_folder)
    edit(recipe_folder, "version: 1.0.0", "version: 1.0.1")
    other_version = plan(recipe_folder)
    assert other_version.compile.key == before.compile.key
    assert other_version.bundle.key != before.bundle.key
    edit(recipe_folder, "context: 64", "context: 65")
    other_context = plan(recipe_folder)
    assert other_context.quantize.key == before.quantize.key
    assert other_context.compile.key != before.compile.key
    (recipe_folder / "base" / "model.safetensors").write_bytes(b"weights")
    assert plan(recipe_folder).merge.key != before.merge.key


def test_too_little_memory_shows(recipe_folder: Path) -> None:
    config = json.loads((recipe_folder / "base" / "config.json").read_text())
    config |= {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    (recipe_folder / "base" / "config.json").write_text(json.dumps(config))
    fits = {fit.device.ram_mib: fit.fits for fit in plan(recipe_folder, "android").fits()}
    assert fits[4096] is False
    assert fits[12288] is True


def test_an_unknown_architecture(recipe_folder: Path) -> None:
    path = recipe_folder / "base" / "config.json"
    path.write_text(path.read_text().replace("qwen3", "qwen33"))
    with pytest.raises(CheckpointError, match="unknown architecture 'qwen33'") as caught:
        plan(recipe_folder)
    assert caught.value.todo == "did you mean 'qwen3'?"


def test_planning_imports_nothing_heavy(recipe_folder: Path) -> None:
    code = (
        "import sys; from slmc.cli.main import cli; "
        f"cli.main(['plan', {str(recipe_folder)!r}, '--json'], standalone_mode=False); "
        "heavy = {'torch', 'transformers', 'tvm', 'peft'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["name"] == "small-1.0.0-host-tvm"


def test_a_delegate_is_the_target_s_first_unless_named(recipe_folder: Path) -> None:
    found = plan(recipe_folder, "android").delegate
    assert found is not None
    assert (found.value, found.origin) == ("xnnpack", "target")
    assert plan(recipe_folder, "android", Options(backend="tvm")).delegate is None


def test_a_named_delegate_makes_another_bundle(recipe_folder: Path) -> None:
    usual, other = plan(recipe_folder, "android"), plan(recipe_folder, "android", Options(delegate="vulkan"))
    assert other.name == f"{usual.name}-vulkan"
    assert other.compile.key != usual.compile.key
    edit(recipe_folder, "context: 64", "targets: {android: {delegate: vulkan}}")
    found = plan(recipe_folder, "android").delegate
    assert found is not None
    assert (found.value, found.origin) == ("vulkan", "recipe")


def test_a_delegate_that_a_target_lacks_is_refused(recipe_folder: Path) -> None:
    with pytest.raises(InputError, match="backend executorch for target ios has no delegate 'vulkan'"):
        plan(recipe_folder, "ios", Options(backend="executorch", delegate="vulkan"))


def test_a_delegate_without_its_backend_is_refused(recipe_folder: Path) -> None:
    with pytest.raises(InputError, match="backend tvm has no delegates"):
        plan(recipe_folder, "host", Options(delegate="xnnpack"))
    edit(recipe_folder, "context: 64", "targets: {android: {backend: tvm, delegate: vulkan}}")
    with pytest.raises(RecipeError, match="backend tvm has no delegates"):
        plan(recipe_folder, "android")


def test_what_a_delegate_leaves_to_the_cpu_is_gated(recipe_folder: Path, tmp_path: Path) -> None:
    found = Delegation(delegate="vulkan", graphs=2, outside={"aten::mm": 3, "aten::add": 1}, unexpected={"aten::mm": 3})
    write_exported(tmp_path, exported(found))
    chosen = plan(recipe_folder, "android", Options(delegate="vulkan"))
    with pytest.raises(GateFailed, match=r"leaves 3 operators to the CPU that it should run: aten::mm \(3\)"):
        check_delegation(chosen, tmp_path)
    edit(recipe_folder, "context: 64", "gates: {max_outside_delegate: 3}")
    assert check_delegation(plan(recipe_folder, "android", Options(delegate="vulkan")), tmp_path) == found


def test_a_delegate_that_needs_a_vendor_s_kit_says_which(recipe_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    architecture = plan(recipe_folder, "android", Options(delegate="qnn")).architecture
    with pytest.raises(MissingToolError, match="Qualcomm AI Engine Direct SDK") as error:
        check_delegate("qnn", architecture, 64)
    assert "QNN_SDK_ROOT" in str(error.value)


def test_only_a_delegate_of_this_system_runs_here(recipe_folder: Path, tmp_path: Path) -> None:
    for name, wanted in (("xnnpack", []), ("vulkan", None)):
        delegation = Delegation(delegate=name, graphs=1, outside={}, unexpected={})
        write_exported(tmp_path, exported(delegation))
        assert here(Store(tmp_path / "store"), "executorch", tmp_path) == wanted


def test_each_adapter_has_a_plan_on_one_foundation(recipe_folder: Path) -> None:
    several = "adapters: {first: {path: adapter}, second: {path: other, data: {evaluation: other.jsonl, credit: x}}}"
    edit(recipe_folder, "context: 64", several)
    for name in ("adapter", "other"):
        (recipe_folder / name).mkdir()
        (recipe_folder / name / "adapter_model.safetensors").write_bytes(name.encode())
    loaded = load_recipe(recipe_folder)
    first, other = (resolve(one, load_target("android")) for one in loaded.each())
    assert (first.recipe.recipe.name, other.recipe.recipe.name) == ("small-first", "small-second")
    assert (first.recipe.recipe.data.evaluation, other.recipe.recipe.data.evaluation) == ("eval.jsonl", "other.jsonl")
    assert first.foundation.key == other.foundation.key
    assert first.quantize.key != other.quantize.key
    assert first.foundation in first.stages


def test_what_an_adapter_has_of_its_own_is_checked_as_a_recipe_is(recipe_folder: Path) -> None:
    own = '{path: a, task: {kind: classify, labels: ["yes", "no"], abstain: {max_error: 0.1}}}'
    edit(recipe_folder, "context: 64", f"adapters: {{first: {own}}}")
    with pytest.raises(RecipeError, match=r"task\.abstain is fitted to data\.calibration, which is not given") as error:
        load_recipe(recipe_folder)
    assert "adapters.first" in str(error.value)


def test_an_adapter_stays_unmerged_only_where_a_backend_can(recipe_folder: Path) -> None:
    edit(recipe_folder, "context: 64", "adapter: {path: adapter}\nunmerged: true")
    (recipe_folder / "adapter").mkdir()
    (recipe_folder / "adapter" / "adapter_model.safetensors").write_bytes(b"x")
    assert plan(recipe_folder, "android").unmerged
    with pytest.raises(RecipeError, match="can stay unmerged with backend executorch and delegate xnnpack alone"):
        plan(recipe_folder, "host")
    with pytest.raises(RecipeError, match="can stay unmerged"):
        plan(recipe_folder, "android", Options(delegate="vulkan"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("adapter: {path: a}\nadapters: {b: {path: b}}", "either adapter or adapters"),
        ("unmerged: true", "unmerged needs an adapter"),
        ("adapters: {b: {path: b}}\nquantization: {budget: 5 bits}", "wants method rtn"),
    ],
)
def test_what_adapters_can_t_be_is_said(recipe_folder: Path, lines: str, message: str) -> None:
    edit(recipe_folder, "context: 64", lines)
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_folder)


def test_executorch_holds_more_than_its_file(recipe_folder: Path) -> None:
    """fp32 keys and values, and a tied embedding beside the head that XNNPACK packs anew."""
    native = plan(recipe_folder, "android", Options(backend="tvm")).forecast
    other = plan(recipe_folder, "android", Options(backend="executorch")).forecast
    assert (native.copies, native.weights) == (0, other.weights)
    assert other.kv_cache == 2 * native.kv_cache
    assert other.copies == round(300 * 64 * 4.5 / 8)


MLC = Options(backend="mlc")


@pytest.fixture
def mlc_llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command of that name, alone on the PATH."""
    (tmp_path / "mlc_llm.py").write_text("__version__ = '0.20'\n")
    command = tmp_path / "bin" / "mlc_llm"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(command.parent))
    return command


def test_mlc_holds_a_scale_for_each_32_weights_in_its_activations_type(recipe_folder: Path) -> None:
    """Whatever the scheme's groups are; the cache too."""
    edit(recipe_folder, "context: 64", "quantization: {scheme: int4-g128}\ntargets: {ios: {activations: float32}}")
    native = plan(recipe_folder, "android", Options(backend="tvm")).forecast
    half = plan(recipe_folder, "android", Options(backend="mlc")).forecast
    full = plan(recipe_folder, "ios", Options(backend="mlc")).forecast
    assert (half.kv_cache, full.kv_cache) == (native.kv_cache, 2 * native.kv_cache)
    assert native.weights < half.weights < full.weights
    sizes = [one.weights for one in (native, half, full)]
    assert (sizes[2] - sizes[1]) / (sizes[1] - sizes[0]) == pytest.approx((5 - 4.5) / (4.5 - 4.125), rel=0.01)


def test_mlc_llm_compiles_where_it_is_there(recipe_folder: Path, mlc_llm: Path) -> None:
    found = plan(recipe_folder, "ios", MLC)
    assert found.mlc_llm == Choice(MlcLlm(mlc_llm, "0.20"), "default")
    assert plan(recipe_folder, "ios", Options(backend="tvm")).mlc_llm == Choice(None, "default")
    mlc_llm.unlink()
    assert plan(recipe_folder, "ios", MLC).mlc_llm == Choice(None, "default")


def test_a_recipe_may_want_our_own_compiler(recipe_folder: Path, mlc_llm: Path) -> None:
    edit(recipe_folder, "context: 64", "targets: {ios: {mlc_llm: none}}")
    assert plan(recipe_folder, "ios", MLC).mlc_llm == Choice(None, "recipe")


def test_an_mlc_llm_that_the_recipe_names_must_be_there(recipe_folder: Path, mlc_llm: Path) -> None:
    edit(recipe_folder, "context: 64", f"targets: {{ios: {{mlc_llm: {mlc_llm}}}}}")
    assert plan(recipe_folder, "ios", MLC).mlc_llm == Choice(MlcLlm(mlc_llm, "0.20"), "recipe")
    mlc_llm.unlink()
    with pytest.raises(MissingToolError, match="is not there"):
        plan(recipe_folder, "ios", MLC)


def test_a_family_that_mlc_llm_would_get_wrong(recipe_folder: Path, mlc_llm: Path) -> None:
    """Taken to our own compiler, unless the recipe insists."""
    (recipe_folder / "base" / "config.json").write_text(json.dumps(CONFIGS["gemma3_text"]))
    assert plan(recipe_folder, "ios", MLC).mlc_llm == Choice(None, "default")
    edit(recipe_folder, "context: 64", "targets: {ios: {mlc_llm: mlc_llm}}")
    with pytest.raises(RecipeError, match="turns local layers as global ones") as caught:
        plan(recipe_folder, "ios", MLC)
    assert "leave mlc_llm out" in str(caught.value.todo)


def test_mlc_s_activations_are_float16_or_float32(recipe_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert plan(recipe_folder, "ios", MLC).activations == Choice("float16", "default")
    edit(recipe_folder, "context: 64", "targets: {ios: {activations: float32}}")
    assert plan(recipe_folder, "ios", MLC).activations == Choice("float32", "recipe")
    edit(recipe_folder, "float32", "int8")
    with pytest.raises(RecipeError, match="'mlc' does not have activations of int8") as caught:
        plan(recipe_folder, "ios", MLC)
    assert "float16 or float32 with backend mlc" in str(caught.value.expected)


def test_what_compiles_mlc_s_library_is_in_its_stage_s_key(
    recipe_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    ours = plan(recipe_folder, "ios", MLC)
    named = [MlcLlm(Path(path), version) for path, version in (("/a", "0.20"), ("/b", "0.20"), ("/a", "0.21"))]
    keys = [dataclasses.replace(ours, mlc_llm=Choice(tool, "recipe")).compile.key for tool in named]
    assert keys[0] == keys[1]
    assert len({ours.compile.key, *keys}) == 3
    (recipe_folder / "eval.jsonl").write_text((recipe_folder / "eval.jsonl").read_text().splitlines()[0])
    assert plan(recipe_folder, "ios", MLC).compile.key != ours.compile.key
