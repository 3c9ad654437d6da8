"""What a foreign quantization_config says of each tensor, and what of it is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmc.architecture import EMBEDDING, FAMILIES, HEAD, Family
from slmc.config_json import parse_architecture
from slmc.errors import CheckpointError
from slmc.imported import imported_schemes
from slmc.names import Scheme

from .configs import CONFIGS
from .conftest import CONFIG

Json = dict[str, Any]


def group(targets: list[str], bits: int = 4, size: int = 32, **weights: object) -> Json:
    """As llm-compressor writes it."""
    args = {
        "actorder": None,
        "block_structure": None,
        "dynamic": False,
        "group_size": size,
        "num_bits": bits,
        "observer": "minmax",
        "observer_kwargs": {},
        "strategy": "group",
        "symmetric": True,
        "type": "int",
    }
    return {"input_activations": None, "output_activations": None, "targets": targets, "weights": args | weights}


def config(*groups: Json, ignore: tuple[str, ...] = ("lm_head",)) -> Json:
    return {
        "config_groups": {f"group_{number}": one for number, one in enumerate(groups or [group(["Linear"])])},
        "format": "pack-quantized",
        "global_compression_ratio": 1.5,
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {"format": "dense"},
        "transform_config": {},
        "version": "0.10.2",
    }


def schemes(folder: Path, quantization: object, *, tied: bool = False) -> dict[str, Scheme]:
    described = CONFIG | {"tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(described | {"quantization_config": quantization}))
    return imported_schemes(folder, parse_architecture(described, folder))


def bits(found: dict[str, Scheme], *parts: str) -> set[int | None]:
    """Of the tensors of both layers whose names end so."""
    names = [f"model.layers.{layer}.{part}.weight" for layer in (0, 1) for part in parts]
    return {found[name].bits if name in found else None for name in names}


LINEARS = tuple(f"self_attn.{part}_proj" for part in "qkvo") + tuple(
    f"mlp.{part}_proj" for part in ("gate", "up", "down")
)


def test_no_quantization_config_is_an_ordinary_checkpoint(tmp_path: Path) -> None:
    assert schemes(tmp_path, None) == {}


@pytest.mark.parametrize("ignore", ["lm_head", "re:.*lm_head", "re:lm"])
def test_linears_but_not_what_is_ignored(tmp_path: Path, ignore: str) -> None:
    found = schemes(tmp_path, config(ignore=(ignore,)))
    assert len(found) == 2 * len(LINEARS)
    assert {scheme.name for scheme in found.values()} == {"int4-g32"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_of_every_family(tmp_path: Path, family: Family) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[family] | {"quantization_config": config()}))
    architecture = parse_architecture(CONFIGS[family], tmp_path)
    linears = {spec.name for spec in architecture.tensors() if spec.role == "linear"}
    assert set(imported_schemes(tmp_path, architecture)) == linears


def test_a_class_takes_the_head_too(tmp_path: Path) -> None:
    found = schemes(tmp_path, config(group(["Linear", "Embedding"], 8, 128), ignore=()))
    assert {HEAD, EMBEDDING} <= set(found)
    assert {scheme.name for scheme in found.values()} == {"int8-g128"}
    assert HEAD not in schemes(tmp_path, config(ignore=()), tied=True)


def test_a_name_goes_before_a_pattern_and_a_pattern_before_a_class(tmp_path: Path) -> None:
    """compressed-tensors' order, whatever the order of the groups."""
    named = group(["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"], 4)
    found = schemes(tmp_path, config(group(["Linear"], 4), group(["re:.*mlp"], 8), named))
    assert bits(found, "mlp.down_proj") == {4}
    assert bits(found, "mlp.up_proj", "mlp.gate_proj") == {8}
    assert bits(found, "self_attn.q_proj") == {4}
    found = schemes(tmp_path, config(group(["re:model.layers.0"], 8), group(["re:.*v_proj"], 4)))
    assert bits(found, "mlp.up_proj") == {8, None}


@pytest.mark.parametrize("actorder", [None, "static", "weight"])
def test_an_order_that_leaves_the_columns_in_place(tmp_path: Path, actorder: str | None) -> None:
    assert schemes(tmp_path, config(group(["Linear"], actorder=actorder)))


def test_keys_without_effect_may_be_missing(tmp_path: Path) -> None:
    small = {"num_bits": 4, "group_size": 64}
    least = {"targets": ["Linear"], "weights": small}
    found = schemes(
        tmp_path,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"a": least},
        },
    )
    assert found[HEAD].name == "int4-g64"


def edit(*path: str, value: object) -> Callable[[Json], None]:
    def change(found: Json) -> None:
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return change


WEIGHTS = ("config_groups", "group_0", "weights")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (edit("quant_method", value="gptq"), "quant_method is 'gptq'"),
        (edit("format", value="marlin-24"), "format is 'marlin-24'"),
        (edit("format", value="float-quantized"), "format is 'float-quantized'"),
        (edit("quantization_status", value="frozen"), "quantization_status is 'frozen'"),
        (edit("kv_cache_scheme", value={"num_bits": 8}), "kv_cache_scheme is"),
        (edit("transform_config", value={"config_groups": {"R1": {}}}), "transform_config is"),
        (edit("sparsity_config", value={"format": "sparse-24-bitmask"}), "format is 'sparse-24-bitmask'"),
        (edit("config_groups", value=None), "not an object but None"),
        (edit("config_groups", "group_0", value=["W4A16"]), "not an object but"),
        (edit("config_groups", "group_0", "format", value="int-quantized"), "format is 'int-quantized'"),
        (edit("config_groups", "group_0", "targets", value="Linear"), "targets is 'Linear'"),
        (edit("config_groups", "group_0", "targets", value=[3]), "targets is"),
        (edit("config_groups", "group_0", "targets", value=["re:("]), "no regular expression"),
        (edit("config_groups", "group_0", "input_activations", value={"num_bits": 8}), "input_activations is"),
        (edit("config_groups", "group_0", "output_activations", value={"num_bits": 8}), "output_activations is"),
        (edit(*WEIGHTS, value=None), "not an object"),
        (edit(*WEIGHTS, "symmetric", value=False), "symmetric is False"),
        (edit(*WEIGHTS, "type", value="float"), "type is 'float'"),
        (edit(*WEIGHTS, "strategy", value="channel"), "strategy is 'channel'"),
        (edit(*WEIGHTS, "strategy", value="tensor"), "strategy is 'tensor'"),
        (edit(*WEIGHTS, "dynamic", value=True), "dynamic is True"),
        (edit(*WEIGHTS, "actorder", value="group"), "actorder is 'group'"),
        (edit(*WEIGHTS, "num_bits", value=3), "num_bits is 3"),
        (edit(*WEIGHTS, "num_bits", value=None), "num_bits is None"),
        (edit(*WEIGHTS, "num_bits", value=4.0), r"num_bits is 4\.0"),
        (edit(*WEIGHTS, "group_size", value=16), "group_size is 16"),
        (edit(*WEIGHTS, "group_size", value=-1), "group_size is -1"),
        (edit("ignore", value="lm_head"), "ignore is 'lm_head'"),
        (edit("ignore", value=["re:["]), "no regular expression"),
    ],
)
def test_what_would_change_the_numbers_is_refused(tmp_path: Path, change: Callable[[Json], None], match: str) -> None:
    found = copy.deepcopy(config())
    change(found)
    with pytest.raises(CheckpointError, match=match) as caught:
        schemes(tmp_path, found)
    assert "quantization_config" in str(caught.value.where)


@pytest.mark.parametrize("found", [[], "pack-quantized", 4, True])
def test_a_quantization_config_that_is_no_object(tmp_path: Path, found: object) -> None:
    with pytest.raises(CheckpointError, match="not an object"):
        schemes(tmp_path, found)


def test_groups_of_two_sizes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="groups of 32 and of 64"):
        schemes(tmp_path, config(group(["re:.*down_proj"], 8, 64), group(["Linear"], 4, 32)))
