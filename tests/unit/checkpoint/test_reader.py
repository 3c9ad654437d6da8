from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from slmc.checkpoint.reader import TensorReader, open_checkpoint, row_blocks
from slmc.checkpoint.stored import INDEX, SINGLE
from slmc.errors import CheckpointError

from .models import EMBEDDING, HEAD, Q_PROJ, tensors, write_checkpoint, write_index, write_sharded


def test_a_whole_checkpoint_opens(tmp_path: Path) -> None:
    found = open_checkpoint(write_checkpoint(tmp_path / "base"))
    assert found.architecture.family == "qwen3"
    assert found.architecture.tied


def test_the_digest_is_of_content_alone(tmp_path: Path) -> None:
    one, two = (write_checkpoint(tmp_path / name) for name in ("one", "two"))
    (two / "README.md").write_text("not part of the model")
    assert open_checkpoint(one).digest == open_checkpoint(two).digest
    (two / "tokenizer_config.json").write_text("{}")
    assert open_checkpoint(one).digest != open_checkpoint(two).digest
    three = write_checkpoint(tmp_path / "three", tensors(seed=1))
    assert open_checkpoint(one).digest != open_checkpoint(three).digest


@pytest.mark.parametrize("write", [write_checkpoint, write_sharded])
def test_every_row_reads_as_stored(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    wanted = tensors()
    with TensorReader(write(tmp_path / "base")) as reader:
        assert set(reader.names) == set(wanted)
        for name, values in wanted.items():
            assert reader.shape(name) == values.shape
            assert reader.dtype(name) == "BF16"
            assert np.array_equal(reader.array(name), values.astype(np.float32))
            assert reader.rows(name, 3, 17).tobytes() == values[3:17].astype(np.float32).tobytes()
            assert reader.stored_rows(name, 3, 17).tobytes() == values[3:17].tobytes()
        with pytest.raises(IndexError):
            reader.rows(EMBEDDING, 0, 301)
        with pytest.raises(CheckpointError, match="nothing is missing"):
            reader.rows("nothing", 0, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_upcasts_are_exact(tmp_path: Path, dtype: type[np.generic]) -> None:
    """Every finite 16-bit pattern, subnormals and negative zero among them."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    values = patterns.view(dtype) if np.dtype(dtype).itemsize == 2 else patterns.astype(dtype)
    with np.errstate(all="ignore"):
        values = values[np.isfinite(values.astype(np.float32))]
    save_file({"x": values}, tmp_path / "x.safetensors")
    with TensorReader(tmp_path / "x.safetensors") as reader:
        assert reader.array("x").tobytes() == values.astype(np.float32).tobytes()


def test_another_element_type_is_named(tmp_path: Path) -> None:
    save_file({"x": np.zeros(4), "y": np.zeros(4, np.int64)}, tmp_path / "x.safetensors")
    with TensorReader(tmp_path / "x.safetensors") as reader:
        with pytest.raises(CheckpointError, match="x is stored as F64"):
            reader.rows("x", 0, 1)
        with pytest.raises(CheckpointError, match="y is stored as I64"):
            reader.rows("y", 0, 1)
        assert reader.stored_rows("y", 0, 2).dtype == np.int64


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    weights = tensors()
    weights[EMBEDDING][299, 63] = value
    with TensorReader(write_checkpoint(tmp_path / "base", weights)) as reader:
        assert reader.rows(EMBEDDING, 0, 299).shape == (299, 64)
        for read in (reader.rows, reader.stored_rows):
            with pytest.raises(CheckpointError, match=f"{EMBEDDING} holds NaN or infinity"):
                read(EMBEDDING, 299, 300)


@given(rows=st.integers(0, 3000), columns=st.integers(1, 3_000_000))
def test_blocks_cover_all_rows_once(rows: int, columns: int) -> None:
    blocks = list(row_blocks((rows, columns)))
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(rows))
    assert all(stop - start == 1 or (stop - start) * columns <= 1 << 20 for start, stop in blocks)


def test_a_stored_tied_head_must_be_the_embedding(tmp_path: Path) -> None:
    weights = tensors()
    weights[HEAD] = weights[EMBEDDING].copy()
    open_checkpoint(write_checkpoint(tmp_path / "same", weights))
    weights[HEAD][5, 5] += 1
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is another tensor") as caught:
        open_checkpoint(write_checkpoint(tmp_path / "other", weights))
    assert "tie_word_embeddings" in str(caught.value)


def test_old_rope_buffers_are_harmless(tmp_path: Path) -> None:
    weights = tensors()
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(16, np.float32)
    open_checkpoint(write_checkpoint(tmp_path / "base", weights))


def drop_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def drop_weights(folder: Path) -> None:
    (folder / SINGLE).unlink()


def only_a_pickle(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "pytorch_model.bin")


def only_a_pth(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "consolidated.00.pth")


def cut_short(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:-1])


def cut_in_header(folder: Path) -> None:
    (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:20])


def longer(folder: Path) -> None:
    (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes() + b"x")


def empty(folder: Path) -> None:
    (folder / SINGLE).write_bytes(b"")


def huge_header(folder: Path) -> None:
    (folder / SINGLE).write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def not_safetensors(folder: Path) -> None:
    (folder / SINGLE).write_bytes(b"PK\x03\x04" * 100)


def offsets_that_overlap(folder: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    (folder / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


def rewrite(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        weights = tensors()
        change(weights)
        save_file(weights, folder / SINGLE)

    return edit


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (drop_tokenizer, r"no tokenizer\.json"),
        (drop_weights, "no weights"),
        (only_a_pickle, r"pytorch_model\.bin, a pickle"),
        (only_a_pth, r"consolidated\.00\.pth, a pickle"),
        (cut_short, "not a whole safetensors file"),
        (cut_in_header, "not a whole safetensors file"),
        (longer, "not a whole safetensors file"),
        (empty, "not a whole safetensors file"),
        (huge_header, "not a whole safetensors file"),
        (not_safetensors, "not a whole safetensors file"),
        (offsets_that_overlap, "not a whole safetensors file"),
        (rewrite(lambda w: w.pop(EMBEDDING)), f"{EMBEDDING} is missing"),
        (rewrite(lambda w: w.update({EMBEDDING: w[EMBEDDING][:-1].copy()})), r"has shape \[299, 64\]"),
        (rewrite(lambda w: w.update({EMBEDDING: np.zeros((300, 64), np.int8)})), "stored as I8"),
        (rewrite(lambda w: w.update(extra=np.zeros(3, np.float32))), "extra is no tensor of a qwen3 decoder"),
    ],
)
def test_damage_is_told(tmp_path: Path, damage: Callable[[Path], None], match: str) -> None:
    folder = write_checkpoint(tmp_path / "base")
    damage(folder)
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(folder)


@given(data=st.data())
def test_any_damage_to_the_header_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("header") / "x.safetensors"
    save_file({"x": np.arange(8, dtype=np.float32), "y": np.zeros((2, 3), np.float32)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        with TensorReader(path) as reader:
            for name in reader.names:
                reader.stored_rows(name, 0, reader.shape(name)[0])
    except CheckpointError:
        pass


@pytest.mark.parametrize(
    ("shard", "match"),
    [
        ("../outside.safetensors", "not a safetensors file of this folder"),
        ("/etc/passwd", "not a safetensors file of this folder"),
        ("..\\outside.safetensors", "not a safetensors file of this folder"),
        ("pytorch_model.bin", "not a safetensors file of this folder"),
        ("", "not a safetensors file of this folder"),
        ("model-00003-of-00002.safetensors", r"model-00003-of-00002\.safetensors is missing"),
        ("model-00002-of-00002.safetensors", f"{EMBEDDING} is not in model-00002"),
        (7, "no weight_map"),
    ],
)
def test_a_bad_entry_of_the_index(tmp_path: Path, shard: object, match: str) -> None:
    folder = write_sharded(tmp_path / "base")
    save_file({EMBEDDING: tensors()[EMBEDDING]}, tmp_path / "outside.safetensors")
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    assert weight_map[EMBEDDING] == "model-00001-of-00002.safetensors"
    write_index(folder, weight_map | {EMBEDDING: shard})
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(folder)


def test_an_index_that_leaves_a_tensor_out(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "base")
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    del weight_map[f"{Q_PROJ}.weight"]
    write_index(folder, weight_map)
    with pytest.raises(CheckpointError, match=rf"the index does not name {Q_PROJ}"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', "{", "\xff"])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    folder = write_sharded(tmp_path / "base")
    (folder / INDEX).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)
