"""The writer as a method uses it: any order, folded norms, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.checkpoint.reader import TensorReader, open_checkpoint
from slmc.quant.decisions import decide
from slmc.quant.quantizer import round_tensor
from slmc.quant.readback import read_back
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import SCHEMES
from slmc.quant.table import read_table
from slmc.quant.writer import FOLDED, QuantizedWriter, quantized_checkpoint

from ..checkpoint.models import Q_PROJ, write_checkpoint

G32 = SCHEMES["int4-g32"]
Q = f"{Q_PROJ}.weight"
NORM = "model.layers.0.input_layernorm.weight"
BEHIND = {f"model.layers.0.self_attn.{part}_proj.weight": NORM for part in "qkv"}
CODES, SCALES = np.zeros((128, 64), np.int8), np.ones((128, 2), np.float32)


def merged_checkpoint(folder: Path) -> MergedCheckpoint:
    found = open_checkpoint(write_checkpoint(folder))
    return MergedCheckpoint(found.folder, found.architecture, found.digest)


def ignore(weights: int) -> None:
    pass


def write_all(merged: MergedCheckpoint, out: Path, column_scales: np.ndarray | None = None) -> QuantizedCheckpoint:
    """Everything rounded, last tensor first; with scales for the columns behind the first norm."""
    out.mkdir()
    decisions = decide(merged.architecture, G32, ())
    done: list[int] = []
    folds = {} if column_scales is None else BEHIND
    with quantized_checkpoint(merged, G32, decisions, out, done.append, folds) as writer:
        if column_scales is not None:
            writer.replace(NORM, writer.merged.array(NORM) / column_scales)
        for decision in reversed(decisions):
            name = decision.spec.name
            if name in folds:
                writer.write(name, "gptq", *quantize_rows(writer.merged.array(name) * column_scales, G32))
            elif decision.scheme is not None:
                round_tensor(writer, name, decision.scheme)
    assert sum(done) == sum(spec.size for spec in merged.architecture.tensors())
    return open_quantized(out)


def test_the_order_of_tensors_is_the_methods_own(tmp_path: Path) -> None:
    merged = merged_checkpoint(tmp_path / "base")
    quantized = write_all(merged, tmp_path / "out")
    assert all(same for _, same in read_back(merged, quantized))
    assert {row.method for row in read_table(quantized.folder).tensors if row.scheme} == {"rtn"}


def test_column_scales_folded_into_a_norm(tmp_path: Path) -> None:
    merged = merged_checkpoint(tmp_path / "base")
    scales = np.random.default_rng(0).uniform(0.7, 1.4, 64).astype(np.float32)
    quantized = write_all(merged, tmp_path / "out", scales)
    rows = {row.name: row for row in read_table(quantized.folder).tensors}
    assert (rows[NORM].kept, rows[NORM].bits_per_weight) == (FOLDED, 32)
    assert (rows[Q].folded, rows[Q].method) == (NORM, "gptq")
    compared = dict(read_back(merged, quantized))
    assert NORM not in compared
    assert all(compared.values())
    with TensorReader(merged.folder) as weights, QuantizedReader(quantized.folder) as reader:
        before = weights.array(Q)
        after = reader.dequantized(Q) * reader.plain(NORM) / weights.array(NORM)
    error = np.square(before - after).sum() / np.square(before).sum()
    assert rows[Q].relative_error == pytest.approx(error, rel=1e-3)
    assert rows[Q].relative_error < 0.02  # norm and matrix together do nearly what they did


def test_a_changed_norm_shows_in_the_matrices_behind_it(tmp_path: Path) -> None:
    merged = merged_checkpoint(tmp_path / "base")
    quantized = write_all(merged, tmp_path / "out", np.full(64, 2, np.float32))
    weights = load_file(quantized.folder / "model.safetensors")
    weights[NORM] = weights[NORM] * np.linspace(0.5, 1.5, 64, dtype=np.float32)
    save_file(weights, quantized.folder / "model.safetensors")
    wrong = {name for name, same in read_back(merged, quantized) if not same}
    assert wrong == set(BEHIND)


@pytest.mark.parametrize(
    ("bug", "match"),
    [
        (lambda w: w.write(Q, "gptq", CODES + np.int8(8), SCALES), "codes outside int4-g32"),
        (lambda w: w.write(Q, "gptq", CODES, SCALES * np.float32(0.1)), "not a positive bf16"),
        (lambda w: w.write(Q, "gptq", CODES, SCALES * np.float32(np.inf)), "not a positive bf16"),
        (lambda w: w.write(Q, "gptq", CODES, SCALES * np.float32(np.nan)), "not a positive bf16"),
        (lambda w: w.write(Q, "gptq", CODES, -SCALES), "not a positive bf16"),
        (lambda w: w.write(Q, "gptq", CODES, SCALES[:, :1]), "are no scales"),
        (lambda w: w.write(Q, "gptq", CODES, SCALES.astype(np.float64)), "are no scales"),
        (lambda w: w.replace(NORM, w.merged.array(NORM)), "is not complete"),
        (lambda w: w.write("model.norm.weight", "gptq", CODES, SCALES), "is not quantized"),
        (lambda w: w.replace(NORM, np.zeros(64, np.float32)), "zeros differ"),
        (lambda w: w.replace(NORM, -w.merged.array(NORM)), "not all positive"),
        (lambda w: w.replace(NORM, np.full(64, np.nan, np.float32)), "not all positive"),
    ],
)
def test_a_methods_bugs_leave_nothing(tmp_path: Path, bug: Callable[[QuantizedWriter], None], match: str) -> None:
    merged = merged_checkpoint(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    decisions = decide(merged.architecture, G32, ())
    with (
        pytest.raises(ValueError, match=match),
        quantized_checkpoint(
            merged, G32, decisions, out, ignore, {"model.layers.1.mlp.up_proj.weight": NORM}
        ) as writer,
    ):
        bug(writer)
    assert list(out.iterdir()) == []
