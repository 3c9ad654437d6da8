"""What a model library says of itself, found in files of any kind."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from slmc.architecture import TensorSpec
from slmc.backends.mlc.described import check_library, read_description
from slmc.backends.mlc.names import Weight
from slmc.backends.mlc.tensors import Tensor
from slmc.errors import CompileError

WEIGHT = Weight("embed", (TensorSpec("embed.weight", (300, 64), "embedding"),))
TENSORS = [
    Tensor("embed.q_weight", (300, 8), "uint32", WEIGHT, "codes"),
    Tensor("embed.q_scale", (300, 2), "float16", WEIGHT, "scales"),
]
PARAMS: list[dict[str, Any]] = [
    {"name": one.name, "shape": list(one.shape), "dtype": one.dtype, "preprocs": []} for one in TENSORS
]
DESCRIBED: dict[str, Any] = {
    "model_type": "llama",
    "prefill_chunk_size": 32,
    "params": PARAMS,
    "memory_usage": {"a": 1},
}
SEEN = {
    "prefill_chunk_size": 32,
    "params": [{key: one[key] for key in ("name", "shape", "dtype")} for one in PARAMS],
    "memory_usage": {"a": 1},
}
ANY_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def compiled(path: Path, described: object) -> Path:
    path.write_bytes(b"\x7fELF \xff{" + json.dumps(described).encode() + b"\x00rest{\x00")
    return path


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        folder = tarfile.TarInfo("objects")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name, octets in members.items():
            info = tarfile.TarInfo(f"objects/{name}")
            info.size = len(octets)
            file.addfile(info, io.BytesIO(octets))
    return path


def check(library: Path, chunk: int = 32) -> None:
    check_library(library, TENSORS, 300, chunk)


@ANY_FILE
@given(before=st.binary(), after=st.binary(), end=st.sampled_from([b"\x00", b"\xff", b"\n"]))
def test_a_description_is_found_among_any_bytes(tmp_path: Path, before: bytes, after: bytes, end: bytes) -> None:
    library = tmp_path / "model.dylib"
    library.write_bytes(before + json.dumps(DESCRIBED).encode() + end + after)
    assert read_description(library).model_dump(mode="json") == SEEN
    check(library)


def test_a_description_is_found_in_an_archive_s_member(tmp_path: Path) -> None:
    octets = compiled(tmp_path / "lib1.o", DESCRIBED).read_bytes()
    check(archive(tmp_path / "model.tar", {"lib0.o": b"\x7fELF" * 1000, "lib1.o": octets, "lib2.o": b""}))
    with pytest.raises(CompileError, match="does not describe itself"):
        check(archive(tmp_path / "model.tar", {"lib0.o": b"\x7fELF" * 1000}))


def test_what_else_is_json_is_passed_over(tmp_path: Path) -> None:
    library = tmp_path / "model.dylib"
    others = [{"model_type": "llama"}, {"params": {"name": "x"}}, {"params": "none"}]
    octets = b'{"params": [\x00' + b"\x00".join(json.dumps(one).encode() for one in [*others, DESCRIBED])
    library.write_bytes(octets)
    assert read_description(library).model_dump(mode="json") == SEEN


def test_a_vocabulary_by_name_is_the_model_s(tmp_path: Path) -> None:
    """MLC-LLM's llama, gemma3 and phi3 have it so."""
    named = [one | {"shape": ["vocab_size", one["shape"][1]]} for one in PARAMS]
    library = compiled(tmp_path / "model.dylib", DESCRIBED | {"params": named})
    check(library)
    with pytest.raises(CompileError, match=r"uint32 \[301, 8\]|float16 \[301, 2\]"):
        check_library(library, TENSORS, 301, 32)


@pytest.mark.parametrize(
    ("params", "told", "expected"),
    [
        (PARAMS[:1], "embed.q_scale as none", "float16 [300, 2]"),
        ([], "embed.q_scale as none", "float16 [300, 2]"),
        ([*PARAMS, PARAMS[0] | {"name": "more"}], "more as uint32 [300, 8]", "none"),
        ([PARAMS[0], PARAMS[1] | {"dtype": "float32"}], "embed.q_scale as float32 [300, 2]", "float16 [300, 2]"),
        ([PARAMS[0], PARAMS[1] | {"shape": [2, 300]}], "embed.q_scale as float16 [2, 300]", "float16 [300, 2]"),
        ([PARAMS[0] | {"shape": [300]}, PARAMS[1]], "embed.q_weight as uint32 [300]", "uint32 [300, 8]"),
    ],
)
def test_what_library_and_weights_have_otherwise_is_told(
    tmp_path: Path, params: list[object], told: str, expected: str
) -> None:
    library = compiled(tmp_path / "model.dylib", DESCRIBED | {"params": params})
    with pytest.raises(CompileError) as caught:
        check(library)
    assert caught.value.what == f"the library has {told}"
    assert str(caught.value.expected).startswith(expected)
    assert "mlc_llm: none" in str(caught.value.todo)


def test_a_library_that_reads_fewer_tokens_at_once_is_refused(tmp_path: Path) -> None:
    library = compiled(tmp_path / "model.dylib", DESCRIBED)
    check(library, chunk=31)
    with pytest.raises(CompileError, match="reads 32 tokens at once") as caught:
        check(library, chunk=33)
    assert caught.value.expected == "33"


pieces = st.sampled_from(
    [b'{"params": ', b'{"a": ', b"[", b"]", b"{", b"}", b'"', b", ", b": ", b"\x00", b"1e999", b"-"]
)


@ANY_FILE
@given(octets=st.binary() | st.lists(pieces | st.binary(max_size=4)).map(b"".join))
def test_bytes_that_are_no_library_are_told(tmp_path: Path, octets: bytes) -> None:
    library = tmp_path / "model.tar"
    library.write_bytes(octets)
    with pytest.raises(CompileError):
        check(library)


@ANY_FILE
@given(octets=st.binary(min_size=1), place=st.integers(0, 1023))
@example(octets=b"\x00", place=512)
def test_a_damaged_archive_is_told_or_read(tmp_path: Path, octets: bytes, place: int) -> None:
    whole = archive(tmp_path / "model.tar", {"lib0.o": json.dumps(DESCRIBED).encode()}).read_bytes()
    for damaged in (whole[:place] + octets + whole[place + len(octets) :], whole[:place], whole[: place + 512]):
        (tmp_path / "model.tar").write_bytes(damaged)
        with contextlib.suppress(CompileError):
            check(tmp_path / "model.tar")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def odd(**changes: object) -> dict[str, object]:
    return PARAMS[0] | changes


@ANY_FILE
@given(one=st.builds(odd, name=values, shape=values, dtype=values) | values, chunk=values)
@example(one={}, chunk=None)
@example(one=None, chunk=32)
@example(one=odd(name=[]), chunk=32)
@example(one=odd(shape=3), chunk=32)
@example(one=odd(shape=["rows"]), chunk=32)
@example(one=odd(shape=[float("inf")]), chunk=32)
def test_a_description_of_any_form_is_told(tmp_path: Path, one: object, chunk: object) -> None:
    for described in (DESCRIBED | {"params": [*PARAMS, one]}, DESCRIBED | {"prefill_chunk_size": chunk}):
        library = compiled(tmp_path / "model.dylib", described)
        with contextlib.suppress(CompileError):
            check(library)


def test_a_text_as_deep_as_a_pit_is_told(tmp_path: Path) -> None:
    library = tmp_path / "model.dylib"
    library.write_bytes(b'{"a": ' + b"[" * 1_000_000)
    with pytest.raises(CompileError, match="does not describe itself"):
        check(library)
