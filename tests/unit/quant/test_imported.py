"""A checkpoint that others quantized, made with numpy: its codes enter as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from slmc.architecture import EMBEDDING, HEAD
from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.reader import open_checkpoint
from slmc.config_json import parse_architecture
from slmc.errors import CheckpointError
from slmc.quant.imported import merged_reader
from slmc.quant.packing import pack
from slmc.quant.quantizer import quantize
from slmc.quant.readback import read_back
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import SCHEMES, dequantize
from slmc.quant.table import TensorRow, read_table

from ..checkpoint.models import Q_PROJ, Tensors, tensors, write_checkpoint
from ..conftest import CONFIG
from ..test_imported import config, group

G32 = SCHEMES["int4-g32"]
Q, DOWN = f"{Q_PROJ}.weight", "model.layers.1.mlp.down_proj.weight"
MIXED = config(group(["re:.*down_proj"], 8), group(["Linear"], 4))
Packed = dict[str, tuple[np.ndarray, np.ndarray]]


def write_imported(folder: Path, dtype: type = ml_dtypes.bfloat16) -> tuple[Path, Packed]:
    """Linears with random codes and scales of a type; down_proj in 8 bits. The folder, and codes and scales by name."""
    random = np.random.default_rng(0)
    packed: Packed = {}
    stored: Tensors = {}
    for name, values in tensors().items():
        if not name.endswith("_proj.weight"):
            stored[name] = values
            continue
        bits = 8 if "down" in name else 4
        half = 1 << (bits - 1)
        rows, columns = values.shape
        codes = random.integers(-half, half, values.shape, dtype=np.int8)
        scales = random.uniform(1e-3, 2e-3, (rows, columns // 32)).astype(dtype)
        packed[name] = codes, scales.astype(np.float32)
        stored |= {
            f"{name}_packed": pack(codes, bits),
            f"{name}_scale": scales,
            f"{name}_shape": np.array(values.shape),
        }
    return write_checkpoint(folder, stored, quantization_config=MIXED), packed


def merged_checkpoint(folder: Path) -> MergedCheckpoint:
    found = open_checkpoint(folder)
    return MergedCheckpoint(found.folder, found.architecture, found.digest)


def import_into(out: Path, merged: MergedCheckpoint) -> dict[str, TensorRow]:
    out.mkdir()
    quantize(merged, G32, (), out, lambda weights: None)
    return {row.name: row for row in read_table(out).tensors}


def test_codes_and_scales_enter_as_they_are(tmp_path: Path) -> None:
    base, packed = write_imported(tmp_path / "base")
    merged = merged_checkpoint(base)
    rows = import_into(tmp_path / "out", merged)
    with QuantizedReader(tmp_path / "out") as reader:
        for name, (codes, scales) in packed.items():
            assert np.array_equal(reader.codes(name, 0, len(codes)), codes)
            assert np.array_equal(reader.scales(name, 0, len(codes)), scales)
            assert (rows[name].method, rows[name].relative_error) == ("imported", 0)
            assert rows[name].scheme == ("int8-g32" if "down" in name else "int4-g32")
        wanted = quantize_rows(tensors()[EMBEDDING].astype(np.float32), G32)
        assert np.array_equal(reader.codes(EMBEDDING, 0, 300), wanted[0])
        assert rows[EMBEDDING].method == "rtn"
    assert all(same for _, same in read_back(merged, open_quantized(tmp_path / "out")))


def test_scales_that_bf16_cannot_hold_are_rounded_and_told(tmp_path: Path) -> None:
    base, packed = write_imported(tmp_path / "base", np.float16)
    merged = merged_checkpoint(base)
    rows = import_into(tmp_path / "out", merged)
    codes, scales = packed[Q]
    rounded = scales.astype(ml_dtypes.bfloat16).astype(np.float32)
    before, after = dequantize(codes, scales), dequantize(codes, rounded)
    assert rows[Q].relative_error == pytest.approx(np.square(before - after).sum() / np.square(before).sum(), rel=1e-3)
    assert 0 < rows[Q].relative_error < 2e-5
    with QuantizedReader(tmp_path / "out") as reader:
        assert np.array_equal(reader.codes(Q, 0, len(codes)), codes)
        assert np.array_equal(reader.scales(Q, 0, len(codes)), rounded)
    assert all(same for _, same in read_back(merged, open_quantized(tmp_path / "out")))


def test_packed_weights_read_as_if_they_were_stored(tmp_path: Path) -> None:
    base, packed = write_imported(tmp_path / "base")
    with merged_reader(merged_checkpoint(base)) as reader:
        for name, (codes, scales) in packed.items():
            assert reader.shape(name) == codes.shape
            assert np.array_equal(reader.array(name), dequantize(codes, scales))
            assert np.array_equal(reader.rows(name, 3, 5), dequantize(codes, scales)[3:5])
        assert reader.shape(EMBEDDING) == (300, 64)
        assert np.array_equal(reader.array(EMBEDDING), tensors()[EMBEDDING].astype(np.float32))


def test_what_we_made_ourselves_is_taken_back(tmp_path: Path) -> None:
    """Our own checkpoint as a base: the same codes and scales again."""
    base = write_checkpoint(tmp_path / "base")
    import_into(tmp_path / "once", merged_checkpoint(base))
    rows = import_into(tmp_path / "twice", merged_checkpoint(tmp_path / "once"))
    assert {row.method for row in rows.values() if row.scheme} == {"imported"}
    once, twice = (load_file(tmp_path / name / "model.safetensors") for name in ("once", "twice"))
    assert all(np.array_equal(once[name], twice[name]) for name in once.keys() | twice.keys())


SCALE, PACKED, SHAPE = (f"{Q}_{part}" for part in ("scale", "packed", "shape"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.pop(PACKED), f"{PACKED} is missing"),
        (lambda w: w.pop(SCALE), f"{SCALE} is missing"),
        (lambda w: w.pop(SHAPE), f"{SHAPE} is missing"),
        (lambda w: w.update({PACKED: w[PACKED][:, :4].copy()}), rf"{PACKED} is I32 \[128, 4\]"),
        (lambda w: w.update({PACKED: w[PACKED].astype(np.int64)}), f"{PACKED} is I64"),
        (lambda w: w.update({SCALE: w[SCALE][:, :1].copy()}), rf"{SCALE} is BF16 \[128, 1\]"),
        (lambda w: w.update({SCALE: w[SCALE].astype(np.int32)}), f"{SCALE} is I32"),
        (lambda w: w.update({SHAPE: np.array([64, 128])}), rf"{SHAPE} is not \[128, 64\]"),
        (lambda w: w.update({f"{Q}_zero_point": np.zeros((16, 2), np.int32)}), "zero_point is no tensor of a qwen3"),
        (lambda w: w.update({f"{Q}_g_idx": np.zeros(64, np.int32)}), "g_idx is no tensor of a qwen3"),
        (lambda w: w.update({Q: np.zeros((128, 64), np.float32)}), f"{Q} is no tensor of a qwen3"),
        (lambda w: w.pop(EMBEDDING), f"{EMBEDDING} is missing"),
        (lambda w: w.update({HEAD: w[EMBEDDING][::-1].copy()}), "ties the head to the embedding"),
    ],
)
def test_damage_is_told(tmp_path: Path, change: Callable[[Tensors], object], match: str) -> None:
    base, _ = write_imported(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    change(weights)
    save_file(weights, base / "model.safetensors")
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(base)


@pytest.mark.parametrize(
    ("value", "match"), [(0, "not positive"), (-1, "not positive"), (np.nan, "NaN"), (np.inf, "infinity")]
)
def test_a_scale_that_is_none(tmp_path: Path, value: float, match: str) -> None:
    base, _ = write_imported(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights[SCALE][5, 1] = value
    save_file(weights, base / "model.safetensors")
    with pytest.raises(CheckpointError, match=match):
        import_into(tmp_path / "out", merged_checkpoint(base))


def test_an_unpacked_linear_is_missed(tmp_path: Path) -> None:
    """The config says that it is packed, and the weights that it is not."""
    base = write_checkpoint(tmp_path / "base", quantization_config=MIXED)
    with pytest.raises(CheckpointError, match="_scale is missing"):
        open_checkpoint(base)
    assert parse_architecture(CONFIG, base).tied
