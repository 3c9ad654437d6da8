from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from slmc.checkpoint.dtypes import NUMPY, DType
from slmc.checkpoint.reader import TensorReader
from slmc.checkpoint.writer import CheckpointWriter, SafetensorsWriter, TensorFormat

FORMATS = [
    TensorFormat("odd", "BF16", (3,)),
    TensorFormat("bytes", "U8", (5, 1)),
    TensorFormat("wide", "F32", (7, 2)),
    TensorFormat("half", "F16", (1, 3)),
    TensorFormat("packed", "I32", (2, 3, 2)),
    TensorFormat("shape", "I64", (2,)),
]


def contents(formats: list[TensorFormat]) -> dict[str, np.ndarray]:
    return {one.name: np.arange(np.prod(one.shape)).reshape(one.shape).astype(NUMPY[one.dtype]) for one in formats}


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    """Tensors take turns, and come by blocks of different sizes."""
    wanted = contents(FORMATS)
    with SafetensorsWriter(tmp_path / "x.safetensors", FORMATS) as writer:
        for name in wanted:
            writer.write(name, wanted[name][:1])
        for name in reversed(wanted):
            writer.write(name, wanted[name][1:])
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(NUMPY)), st.lists(st.integers(1, 9), min_size=1, max_size=3)), min_size=1)
)
def test_every_tensor_is_aligned_to_its_elements(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[DType, list[int]]]
) -> None:
    formats = [TensorFormat(f"t{number}", dtype, tuple(shape)) for number, (dtype, shape) in enumerate(drawn)]
    wanted = contents(formats)
    path = tmp_path_factory.mktemp("aligned") / "x.safetensors"
    with SafetensorsWriter(path, formats) as writer:
        for name, values in wanted.items():
            writer.write(name, values)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert (8 + length) % 64 == 0
    header = json.loads(raw[8 : 8 + length])
    assert all(header[one.name]["data_offsets"][0] % NUMPY[one.dtype].itemsize == 0 for one in formats)
    with TensorReader(path) as reader:
        assert all(np.array_equal(reader.stored_rows(n, 0, len(v)), v) for n, v in wanted.items())


@pytest.mark.parametrize(
    "block", [np.zeros(4, ml_dtypes.bfloat16), np.zeros(3, np.float32), np.zeros((3, 1), ml_dtypes.bfloat16)]
)
def test_a_block_that_does_not_fit(tmp_path: Path, block: np.ndarray) -> None:
    with (
        pytest.raises(ValueError, match=r"does not fit|too many rows"),
        SafetensorsWriter(tmp_path / "x.safetensors", FORMATS[:1]) as writer,
    ):
        writer.write("odd", block)
    assert list(tmp_path.iterdir()) == []


def test_nothing_incomplete_remains(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="is not complete"),
        CheckpointWriter(tmp_path, FORMATS, shard_bytes=20) as writer,
    ):
        writer.write("odd", contents(FORMATS)["odd"][:2])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), CheckpointWriter(tmp_path, FORMATS):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one name"):
        SafetensorsWriter(tmp_path / "x.safetensors", FORMATS[:1] * 2)


def test_shards_and_their_index(tmp_path: Path) -> None:
    wanted = contents(FORMATS)
    with CheckpointWriter(tmp_path, FORMATS, shard_bytes=60) as writer:
        for name, values in wanted.items():
            writer.write(name, values)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in wanted.values())
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == sorted(set(index["weight_map"].values()))
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert len(shards) > 2
    with TensorReader(tmp_path) as reader:
        assert all(np.array_equal(reader.stored_rows(n, 0, len(v)), v) for n, v in wanted.items())
