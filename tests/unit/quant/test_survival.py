"""What is measured of an adapter's change, against numpy's own least squares on whole matrices."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint import reader as blocks
from slmc.checkpoint.lora import merge
from slmc.checkpoint.reader import TensorReader, open_checkpoint
from slmc.errors import StoreError
from slmc.names import SCHEMES, Bits
from slmc.quant.decisions import decide
from slmc.quant.quantizer import quantize, round_tensor
from slmc.quant.reader import open_quantized
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import dequantize
from slmc.quant.survival import FILE, AdapterSurvival, measure, read_survival, write_survival
from slmc.quant.writer import quantized_checkpoint

from ..checkpoint.models import EMBEDDING, HEAD, PREFIX, Q_PROJ, Tensors, pair, tensors, write_adapter, write_checkpoint

G32 = SCHEMES["int4-g32"]
Q = f"{Q_PROJ}.weight"
UP = "model.layers.1.mlp.up_proj"
Float64 = npt.NDArray[np.float64]


def as_merged(folder: Path) -> MergedCheckpoint:
    found = open_checkpoint(folder)
    return MergedCheckpoint(found.folder, found.architecture, found.digest)


def adapter(folder: Path, weights: Tensors, scale: float = 1.0) -> Path:
    """An adapter whose B halves, or whole tensors, are multiplied by `scale`."""
    scaled = {name: values if "lora_A" in name else values * np.float32(scale) for name, values in weights.items()}
    return write_adapter(folder, scaled, target_modules=["q_proj", "up_proj"])


def merged(base: Path, adapter: Path) -> MergedCheckpoint:
    out = base.parent / "merged"
    out.mkdir()
    merge(open_checkpoint(base), adapter, out, lambda _: None)
    return as_merged(out)


def rounded(
    checkpoint: MergedCheckpoint, out: Path, bits: dict[str, Bits] | None = None, keep: str = "*.norm.*"
) -> Path:
    out.mkdir()
    quantize(checkpoint, G32, (keep,), out, lambda _: None, bits=bits or {})
    return out


def measured(base: Path, after: MergedCheckpoint, quantized: Path) -> AdapterSurvival:
    return measure(open_checkpoint(base), after, open_quantized(quantized), lambda _: None)


def arrays(*folders: Path, name: str = Q) -> list[Float64]:
    found = []
    for folder in folders:
        with TensorReader(folder) as reader:
            found.append(reader.array(name).astype(np.float64))
    return found


def rtn(weights: Float64, bits: Bits = 4) -> Float64:
    return dequantize(*quantize_rows(weights.astype(np.float32), G32.with_bits(bits))).astype(np.float64)


@pytest.mark.parametrize("bits", [4, 8])
def test_it_is_numpys_own_regression(bits: Bits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1000)  # several blocks of rows
    base = write_checkpoint(tmp_path / "base")
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64) | pair(UP, 128, 64), 0.01))
    found = measured(base, after, rounded(after, tmp_path / "q", {Q: bits}))
    assert [(one.name, one.layer) for one in found.tensors] == [(Q, 0), (f"{UP}.weight", 1)]
    before, changed = arrays(base, after.folder)
    change, arrived = (changed - before).ravel(), (rtn(changed, bits) - rtn(before, bits)).ravel()
    (slope,), (residual,), _, _ = np.linalg.lstsq(change[:, np.newaxis], arrived)
    one = found.tensors[0]
    assert one.size == pytest.approx(np.linalg.norm(change) / np.linalg.norm(before), rel=1e-5)
    assert one.kept == pytest.approx(np.linalg.norm(arrived) / np.linalg.norm(change), rel=1e-5)
    assert one.coefficient == pytest.approx(slope, rel=1e-5)
    assert one.correlation == pytest.approx(slope * np.linalg.norm(change) / np.linalg.norm(arrived), rel=1e-5)
    assert one.error == pytest.approx(np.sqrt(residual / (change.size - 1)) / np.linalg.norm(change), rel=1e-5)


def test_the_whole_is_all_matrices_as_one(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64) | pair(UP, 128, 64), 0.01))
    found = measured(base, after, rounded(after, tmp_path / "q"))
    changes, arrivals = [], []
    for name in (Q, f"{UP}.weight"):
        before, changed = arrays(base, after.folder, name=name)
        changes.append((changed - before).ravel())
        arrivals.append((rtn(changed) - rtn(before)).ravel())
    change, arrived = np.concatenate(changes), np.concatenate(arrivals)
    assert found.whole is not None
    assert found.whole.coefficient == pytest.approx(change @ arrived / (change @ change), rel=1e-5)
    assert found.whole.correlation == pytest.approx(np.corrcoef(change, arrived)[0, 1], abs=1e-3)


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 1e-2, 1.0])
def test_a_change_of_any_size_arrives_on_average(scale: float, tmp_path: Path) -> None:
    """Even one far below a rounding step, which is drowned in noise."""
    base = write_checkpoint(tmp_path / "base", {k: v.astype(np.float32) for k, v in tensors().items()})
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64), scale))
    (one,) = measured(base, after, rounded(after, tmp_path / "q")).tensors
    assert abs(one.coefficient - 1) < 4 * one.error + 0.02  # least-squares scales shrink by the rounding's error
    assert (one.correlation > 0.9) == (scale >= 1e-2)
    assert (one.correlation < 0.2) == (scale <= 1e-4)


def test_nothing_arrives_of_an_adapter_that_was_left_out(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64)))
    (one,) = measured(base, after, rounded(as_merged(base), tmp_path / "q")).tensors
    assert (one.kept, one.correlation, one.coefficient, one.error) == (0, 0, 0, 0)


def test_what_the_adapter_leaves_alone_or_is_kept_is_not_listed(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64)))
    found = measured(base, after, rounded(after, tmp_path / "q", keep=Q))
    assert found == AdapterSurvival(whole=None, tensors=())


def test_a_base_of_zeros_has_no_relative_size(tmp_path: Path) -> None:
    weights = tensors()
    weights[Q] = np.zeros((128, 64), ml_dtypes.bfloat16)
    base = write_checkpoint(tmp_path / "base", weights)
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64)))
    (one,) = measured(base, after, rounded(after, tmp_path / "q")).tensors
    assert one.size is None
    assert one.correlation > 0.99


def test_a_head_of_its_own_is_held_against_the_embedding_it_was(tmp_path: Path) -> None:
    weights = tensors()
    base = write_checkpoint(tmp_path / "base", weights)
    head = weights[EMBEDDING].astype(np.float32) * 2
    after = merged(base, write_adapter(tmp_path / "adapter", {PREFIX + HEAD: head}))
    (one,) = measured(base, after, rounded(after, tmp_path / "q")).tensors
    assert (one.name, one.layer) == (HEAD, None)
    assert one.size == pytest.approx(1)


def test_folded_column_scales_are_taken_back(tmp_path: Path) -> None:
    """With powers of two, rounding is the same but for the scales: so is what arrives."""
    base = write_checkpoint(tmp_path / "base")
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64)))
    plain = measured(base, after, rounded(after, tmp_path / "plain"))
    norm, behind = "model.layers.0.input_layernorm.weight", [f"model.layers.0.self_attn.{k}_proj.weight" for k in "qkv"]
    columns = np.repeat(np.array([2.0, 0.5], np.float32), 32)
    decisions = decide(after.architecture, G32, ())
    folder = tmp_path / "folded"
    folder.mkdir()
    with quantized_checkpoint(after, G32, decisions, folder, lambda _: None, dict.fromkeys(behind, norm)) as writer:
        writer.replace(norm, writer.merged.array(norm) / columns)
        for decision in decisions:
            name = decision.spec.name
            if name in behind:
                writer.write(name, "tuned", *quantize_rows(writer.merged.array(name) * columns, G32))
            elif decision.scheme is not None:
                round_tensor(writer, name, decision.scheme)
    assert measured(base, after, folder) == plain


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    after = merged(base, adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64)))
    found = measured(base, after, rounded(after, tmp_path / "q"))
    write_survival(found, tmp_path)
    assert read_survival(tmp_path) == found
    raw = json.loads((tmp_path / FILE).read_text())
    raw["tensors"][0]["coefficient"] = "all of it"
    (tmp_path / FILE).write_text(json.dumps(raw))
    with pytest.raises(StoreError, match=r"tensors\.0\.coefficient"):
        read_survival(tmp_path)
