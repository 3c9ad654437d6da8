"""The weight file's Python writer and reader, against the bytes that docs/weight-file.md tells of."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmc.backends.tvm.weights import NO_ROPE, Config, Gate, Kind, Layer, Tensor, WeightsReader, WeightsWriter
from slmc.errors import RunnerError

CONFIG = Config(
    vocab_size=100,
    hidden_size=64,
    intermediate_size=96,
    heads=4,
    kv_heads=2,
    head_dim=16,
    rotary_dim=16,
    context=8,
    group=32,
    gate=Gate.GELU_TANH,
    activations=1,
    ropes=1,
    rms_eps=1e-6,
    embedding_scale=8.0,
    attention_scale=0.25,
)
TENSORS = [
    Tensor("norm", Kind.FLOAT32, 1, 64),
    Tensor("embedding", Kind.INT4, 32, 64),
    Tensor("layers.0.o", Kind.INT8, 64, 32),
]


def codes(tensor: Tensor, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    most = 1 << tensor.kind.bits - 1
    found = random.integers(-most, most, (tensor.rows, tensor.columns), np.int8)
    scales = (random.integers(1, 256, (tensor.rows, tensor.columns // CONFIG.group)) / 64).astype(np.float32)
    return found, scales


def written(path: Path, seed: int = 0, step: int = 8) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A file of TENSORS at `path`; its matrices."""
    random, matrices = np.random.default_rng(seed), {}
    with WeightsWriter(path, CONFIG, [Layer(0, 0), Layer(NO_ROPE, 5)], TENSORS) as writer:
        writer.floats("norm", np.arange(64, dtype=np.float32))
        for tensor in TENSORS[1:]:
            matrices[tensor.name] = found, scales = codes(tensor, random)
            for start in range(0, tensor.rows, step):
                writer.rows(tensor.name, found[start : start + step], scales[start : start + step])
    return matrices


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(seed=st.integers(0, 2**32), step=st.sampled_from([8, 16, 32]), start=st.sampled_from([0, 8, 24]))
def test_what_is_written_is_read(tmp_path: Path, seed: int, step: int, start: int) -> None:
    path = tmp_path / "model.slm"
    path.unlink(missing_ok=True)
    matrices = written(path, seed, step)
    reader = WeightsReader(path)
    reader.verify()
    assert (reader.config.vocab_size, reader.config.gate, reader.config.attention_scale) == (100, 1, 0.25)
    assert reader.layers == [Layer(0, 0), Layer(NO_ROPE, 5)]
    np.testing.assert_array_equal(reader.floats("norm")[0], np.arange(64))
    for name, (found, scales) in matrices.items():
        packed, factors = reader.rows(name, start, start + 5)
        np.testing.assert_array_equal(packed, found[start : start + 5])
        np.testing.assert_array_equal(factors, scales[start : start + 5])


def test_the_bytes_are_those_of_the_document(tmp_path: Path) -> None:
    """Read by offsets alone."""
    path = tmp_path / "model.slm"
    matrices = written(path)
    whole = path.read_bytes()
    assert whole[:8] == b"SLMW\r\n\x1a\n"
    assert struct.unpack_from("<IIQII", whole, 8) == (1, 3, len(whole), 2, 0)
    assert whole[32:64] == hashlib.sha256(whole[64:]).digest()
    assert struct.unpack_from("<12I", whole, 64) == (100, 64, 96, 4, 2, 16, 16, 8, 32, 1, 1, 1)
    assert struct.unpack_from("<3f", whole, 112) == (np.float32(1e-6), 8.0, 0.25)
    assert struct.unpack_from("<4I", whole, 128) == (0, 0, 0xFFFFFFFF, 5)
    name, kind, rows, columns, _, offset, size = struct.unpack_from("<48sIIIIQQ", whole, 192 + 80)
    assert (name.rstrip(b"\0"), kind, rows, columns, size) == (b"embedding", 1, 32, 64, 32 * 64 // 2 + 32 * 2 * 2)
    assert offset % 64 == 0
    found, scales = matrices["embedding"]
    row, column = 13, 45  # block row 1, channel 5; block column 1, k = 13: vector 3, byte 1, low nibble
    byte = whole[offset + (1 * 2 + 1) * 128 + 3 * 32 + 5 * 4 + 1]
    assert (byte & 15) - 8 == found[row, column]
    [bits] = struct.unpack_from("<H", whole, offset + 32 * 64 // 2 + ((1 * 2 + 1) * 8 + 5) * 2)
    assert np.uint32(bits << 16).view(np.float32) == scales[row, 1]


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.slm"
    written(path)
    whole = path.read_bytes()
    damaged = {
        "not a weight file": b"PK" + whole[2:],
        "version 9": whole[:8] + struct.pack("<I", 9) + whole[12:],
        "cut off or changed": whole[:-1],
        "does not lie within": whole[: 192 + 64] + struct.pack("<Q", len(whole)) + whole[192 + 72 :],
        "not what its shape takes": whole[: 192 + 52] + struct.pack("<I", 2) + whole[192 + 56 :],
    }
    for message, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(RunnerError, match=message):
            WeightsReader(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunnerError, match="SHA-256"):
        WeightsReader(path).verify()
    path.write_bytes(b"")
    with pytest.raises(RunnerError, match="can't be read"):
        WeightsReader(path)


def test_an_unfinished_file_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "model.slm"
    with (
        pytest.raises(ValueError, match="norm is not complete"),
        WeightsWriter(path, CONFIG, [Layer(0, 0)], TENSORS),
    ):
        pass
    assert not path.exists()
    with pytest.raises(KeyError), WeightsWriter(path, CONFIG, [Layer(0, 0)], TENSORS) as writer:
        writer.floats("nothing of the sort", np.zeros(3, np.float32))
    assert not path.exists()
    with (
        pytest.raises(ValueError, match="do not fit"),
        WeightsWriter(path, CONFIG, [Layer(0, 0)], TENSORS) as writer,
    ):
        writer.rows("embedding", np.zeros((40, 64), np.int8), np.ones((40, 2), np.float32))
    assert not path.exists()
