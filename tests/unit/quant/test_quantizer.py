"""The quantizer and the reader of what it writes, on a tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.reader import TensorReader, open_checkpoint
from slmc.errors import CheckpointError, QuantizationError
from slmc.names import Bits
from slmc.quant.packing import pack
from slmc.quant.quantizer import quantize
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import SCHEMES, Scheme, dequantize
from slmc.quant.table import TABLE_FILE, read_table

from ..checkpoint.models import EMBEDDING, HEAD, Q_PROJ, Tensors, tensors, write_checkpoint

G32 = SCHEMES["int4-g32"]
QUANTIZED_ROLES = ("linear", "embedding", "head")


def quantized(
    base: Path,
    out: Path,
    scheme: Scheme = G32,
    keep: tuple[str, ...] = (),
    bits: Mapping[str, Bits] = MappingProxyType({}),
) -> Path:
    checkpoint = open_checkpoint(base)
    out.mkdir()
    merged = MergedCheckpoint(checkpoint.folder, checkpoint.architecture, checkpoint.digest)
    quantize(merged, scheme, keep, out, lambda weights: None, bits)
    return out


def stored(folder: Path) -> Tensors:
    with TensorReader(folder) as reader:
        return {name: reader.stored_rows(name, 0, reader.shape(name)[0]) for name in reader.names}


@pytest.mark.parametrize("scheme", [G32, SCHEMES["int4-g64"], SCHEMES["int8-g32"]], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_is_what_rounding_makes_of_it(tmp_path: Path, scheme: Scheme, tied: bool) -> None:
    base = write_checkpoint(tmp_path / "base", tie_word_embeddings=tied)
    weights = stored(base)
    out = quantized(base, tmp_path / "out", scheme)
    open_quantized(out)
    with QuantizedReader(out) as reader:
        assert reader.architecture == open_checkpoint(base).architecture
        assert reader.group_size == scheme.group_size
        assert (HEAD in {spec.name for spec in reader.architecture.tensors()}) is not tied
        for spec in reader.architecture.tensors():
            values = weights[spec.name].astype(np.float32)
            assert reader.is_quantized(spec.name) == (spec.role in QUANTIZED_ROLES)
            if not reader.is_quantized(spec.name):
                assert np.array_equal(reader.plain(spec.name), values)
                assert np.array_equal(reader.dequantized(spec.name), values)
                continue
            codes, scales = quantize_rows(values, scheme)
            assert np.array_equal(reader.codes(spec.name, 0, spec.shape[0]), codes)
            assert np.array_equal(reader.scales(spec.name, 0, spec.shape[0]), scales)
            assert np.array_equal(reader.codes(spec.name, 5, 9), codes[5:9])
            assert np.array_equal(reader.scales(spec.name, 5, 9), scales[5:9])
            assert np.array_equal(reader.dequantized(spec.name), dequantize(codes, scales))


def test_the_folder_is_compressed_tensors_own(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    out = quantized(base, tmp_path / "out")
    found, weights = stored(out), stored(base)
    codes, scales = quantize_rows(weights[f"{Q_PROJ}.weight"].astype(np.float32), G32)
    assert np.array_equal(found[f"{Q_PROJ}.weight_packed"], pack(codes, 4))
    assert np.array_equal(found[f"{Q_PROJ}.weight_scale"], scales)
    assert found[f"{Q_PROJ}.weight_shape"].tolist() == [128, 64]
    assert f"{Q_PROJ}.weight" not in found
    assert found["model.norm.weight"].tobytes() == weights["model.norm.weight"].tobytes()
    config = json.loads((out / "config.json").read_text())
    assert config.pop("quantization_config")["format"] == "pack-quantized"
    assert config == json.loads((base / "config.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()


def test_codes_of_both_widths_in_one_checkpoint(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", tie_word_embeddings=False)
    out = quantized(base, tmp_path / "out", bits={HEAD: 8, f"{Q_PROJ}.weight": 8})
    open_quantized(out)
    weights, found = stored(base), stored(out)
    rows = {row.name: row for row in read_table(out).tensors}
    assert rows[HEAD].bits_per_weight == 8.5
    assert rows[EMBEDDING].bits_per_weight == 4.5
    with QuantizedReader(out) as reader:
        for name, scheme in ((HEAD, G32.wide), (f"{Q_PROJ}.weight", G32.wide), (EMBEDDING, G32)):
            codes, scales = quantize_rows(weights[name].astype(np.float32), scheme)
            assert reader.scheme(name) == scheme
            assert np.array_equal(found[f"{name}_packed"], pack(codes, 8))
            assert np.array_equal(reader.codes(name, 0, len(codes)), codes)
            assert np.array_equal(reader.scales(name, 0, len(codes)), scales)
        assert reader.table.scheme == "int4-g32"
        with pytest.raises(KeyError):
            reader.scheme("model.norm.weight")


def test_a_code_wider_than_its_scheme_is_told(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", tie_word_embeddings=False)
    out = quantized(base, tmp_path / "out", bits={HEAD: 8})
    edit_weights(lambda w: w[PACKED].__setitem__((3, 1), pack(np.array([[0, 0, 8, 0]], np.int8), 8)[0, 0]))(out)
    with pytest.raises(CheckpointError, match=f"{PACKED} holds codes outside int4-g32"):
        open_quantized(out)


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    one, two = (quantized(base, tmp_path / name) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()
    assert open_quantized(one).digest == open_quantized(two).digest


def test_the_table_tells_of_every_tensor(tmp_path: Path) -> None:
    weights = tensors()
    weights["model.norm.weight"] = weights["model.norm.weight"].astype(np.float32)
    base = write_checkpoint(tmp_path / "base", weights)
    out = quantized(base, tmp_path / "out", keep=("*.0.mlp.*",))
    table = read_table(out)
    rows = {row.name: row for row in table.tensors}
    assert list(rows) == [spec.name for spec in open_checkpoint(base).architecture.tensors()]
    assert table.tied
    assert rows["model.norm.weight"].kept == "a norm"
    assert rows["model.norm.weight"].bits_per_weight == 32
    assert rows["model.layers.0.mlp.up_proj.weight"].kept == "the recipe keeps *.0.mlp.*"
    assert rows["model.layers.0.mlp.up_proj.weight"].bits_per_weight == 16
    assert rows["model.layers.0.mlp.up_proj.weight"].relative_error is None
    row = rows[f"{Q_PROJ}.weight"]
    assert (row.scheme, row.kept, row.bits_per_weight, row.shape) == ("int4-g32", None, 4.5, (128, 64))
    values = weights[f"{Q_PROJ}.weight"].astype(np.float64)
    with QuantizedReader(out) as reader:
        error = np.square(values - reader.dequantized(f"{Q_PROJ}.weight")).sum() / np.square(values).sum()
    assert row.relative_error == pytest.approx(error, rel=1e-3)


def test_kept_tensors_keep_their_bytes(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    out = quantized(base, tmp_path / "out", keep=(EMBEDDING, "*.down_proj.weight"))
    found, weights = stored(out), stored(base)
    down = "model.layers.1.mlp.down_proj.weight"
    for name in (EMBEDDING, down):
        assert found[name].tobytes() == weights[name].tobytes()
        assert f"{name}_packed" not in found
    ignored = json.loads((out / "config.json").read_text())["quantization_config"]["ignore"]
    assert set(ignored) == {"model.embed_tokens", "lm_head"} | {f"model.layers.{i}.mlp.down_proj" for i in (0, 1)}
    open_quantized(out)


@pytest.mark.parametrize("pattern", ["lm_head.weight", "model.embed_token.weight", "*.q_proj", ""])
def test_a_pattern_that_keeps_nothing(tmp_path: Path, pattern: str) -> None:
    base = write_checkpoint(tmp_path / "base")
    with pytest.raises(QuantizationError, match=f"no tensor matches '{pattern}'".replace("*", r"\*")):
        quantized(base, tmp_path / "out", keep=(pattern,))
    assert list((tmp_path / "out").iterdir()) == []


def test_columns_that_the_group_does_not_divide(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", intermediate_size=96)
    with pytest.raises(QuantizationError, match=r"down_proj\.weight has 96 columns") as caught:
        quantized(base, tmp_path / "out", SCHEMES["int4-g64"])
    assert "use int4-g32" in str(caught.value)
    quantized(base, tmp_path / "kept", SCHEMES["int4-g64"], keep=("*.down_proj.weight",))
    base = write_checkpoint(tmp_path / "odd", intermediate_size=72)
    with pytest.raises(QuantizationError, match="72 columns") as caught:
        quantized(base, tmp_path / "out2")
    assert "to quantization.keep" in str(caught.value)


@pytest.mark.parametrize("name", [EMBEDDING, f"{Q_PROJ}.weight", "model.norm.weight"])
def test_weights_that_are_not_finite(tmp_path: Path, name: str) -> None:
    weights = tensors()
    weights[name].reshape(-1)[-1] = ml_dtypes.bfloat16(np.nan)
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        quantized(write_checkpoint(tmp_path / "base", weights), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_counts_every_weight(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "base"))
    done: list[int] = []
    merged = MergedCheckpoint(checkpoint.folder, checkpoint.architecture, checkpoint.digest)
    (tmp_path / "out").mkdir()
    quantize(merged, G32, (), tmp_path / "out", done.append)
    assert sum(done) == sum(spec.size for spec in checkpoint.architecture.tensors())


def edit_weights(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        weights = stored(folder)
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return edit


def edit_json(name: str, change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        change(found)
        (folder / name).write_text(json.dumps(found))

    return edit


def widen(name: str) -> Callable[[dict[str, object]], None]:
    def change(table: dict[str, object]) -> None:
        next(row for row in table["tensors"] if row["name"] == name)["scheme"] = "int8-g32"

    return change


PACKED, SCALE, SHAPE = (f"{Q_PROJ}.weight_{part}" for part in ("packed", "scale", "shape"))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (edit_weights(lambda w: w[SCALE].__setitem__((3, 1), 0)), f"{SCALE} holds a scale that is not a positive bf16"),
        (edit_weights(lambda w: w[SCALE].__setitem__((3, 1), -1)), "not a positive bf16"),
        (edit_weights(lambda w: w[SCALE].__setitem__((3, 1), 0.1)), "not a positive bf16"),
        (edit_weights(lambda w: w[SCALE].__setitem__((3, 1), np.nan)), f"{SCALE} holds NaN"),
        (edit_weights(lambda w: w.pop(PACKED)), f"{PACKED} is missing"),
        (edit_weights(lambda w: w.pop(SHAPE)), f"{SHAPE} is missing"),
        (edit_weights(lambda w: w.update({PACKED: w[PACKED][:64].copy()})), rf"{PACKED} is I32 \[64, 8\]"),
        (edit_weights(lambda w: w.update({PACKED: w[PACKED].astype(np.int64)})), f"{PACKED} is I64"),
        (edit_weights(lambda w: w.update({SHAPE: np.array([64, 128])})), f"{SHAPE} is not"),
        (edit_weights(lambda w: w.pop("model.norm.weight")), r"model\.norm\.weight is missing"),
        (edit_weights(lambda w: w.update(more=np.zeros(1, np.float32))), "more belongs to no tensor"),
        (edit_json("config.json", lambda c: c.pop("quantization_config")), "not a quantized checkpoint of ours"),
        (edit_json("config.json", lambda c: c.update(num_hidden_layers=1)), "does not list the architecture's tensors"),
        (edit_json("config.json", lambda c: c.update(hidden_size=32)), "does not list the architecture's tensors"),
        (edit_json(TABLE_FILE, lambda t: t["tensors"].pop()), "does not list the architecture's tensors"),
        (edit_json(TABLE_FILE, lambda t: t.update(group_size=64)), "scheme is not"),
        (edit_json(TABLE_FILE, lambda t: t.update(scheme="int3")), "scheme"),
        (edit_json(TABLE_FILE, lambda t: t.update(scheme="int4-g64", group_size=64)), "scheme is not"),
        (edit_json(TABLE_FILE, widen(EMBEDDING)), "the table tells of other schemes"),
        (edit_json("config.json", lambda c: c["quantization_config"].update(ignore=[HEAD])), "of other schemes"),
        (edit_json("config.json", lambda c: c["quantization_config"].update(dequantize=False)), "of other schemes"),
        (lambda folder: (folder / TABLE_FILE).unlink(), r"no quantization\.json"),
        (lambda folder: (folder / TABLE_FILE).write_text("{"), "can't be read"),
    ],
)
def test_damage_is_told(tmp_path: Path, damage: Callable[[Path], object], match: str) -> None:
    folder = quantized(write_checkpoint(tmp_path / "base"), tmp_path / "out")
    damage(folder)
    with pytest.raises(CheckpointError, match=match):
        open_quantized(folder)


def test_the_digest_is_of_weights_and_table(tmp_path: Path) -> None:
    one, two = (quantized(write_checkpoint(tmp_path / f"{name}-base"), tmp_path / name) for name in ("one", "two"))
    assert open_quantized(one).digest == open_quantized(two).digest
    edit_json(TABLE_FILE, lambda table: table["tensors"][0].update(relative_error=0.5))(two)
    assert open_quantized(one).digest != open_quantized(two).digest
