"""A model library's GPU code: the OpenCL source that Android gets, run here, and its functions under MLC's contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slmc.backends.mlc.library.limits import shared_memory
from slmc.errors import CompileError
from slmc.models.mlc import read_mlc
from slmc.runners.mlc_engine import load_weights

from . import opencl
from .family_case import Case, ids, quantized
from .in_process import programs
from .mlc_library import Cache, Library, check, settings
from .mlc_model import compiled, order
from .variants import VARIANTS, VOCABULARY

tvm = pytest.importorskip("tvm")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # of the libraries, and of OpenCL's compiler
SOME = [
    "llama: older keys, linear rope",
    "qwen2: seven heads share keys",
    "qwen3: heads wider than hidden",
    "gemma3_text: window beyond the context",
    "phi3: part of a head turned",
]
"""Of each family whose kernels differ from another's."""
some = pytest.mark.parametrize("case", SOME, indirect=True, scope="module")
one = pytest.mark.parametrize("case", SOME[2:3], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with programs():
        yield


def on_opencl(folder: Path, half: bool = False) -> Library:
    """An Android library's kernels, called by this machine's host code."""
    from slmc.backends.mlc.library.export import compiled as in_memory

    platform = opencl.platform(half)
    target = tvm.target.Target({"kind": "opencl", "device": "adreno"}, host={"kind": "llvm", "mcpu": "x86-64-v3"})
    executable, archive = in_memory(folder, settings(folder), target), folder / "opencl.tar"
    executable.export_library(str(archive))
    opencl.Machine(executable, archive, platform)
    machine = tvm.relax.VirtualMachine(executable, tvm.device("opencl", 0))
    weights = load_weights(tvm, machine, folder / read_mlc(folder).model_id, "opencl")
    return Library(folder, machine, weights, "opencl")


@pytest.fixture(scope="module")
def library(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("opencl")
    compiled(case.model, folder, order("android"))
    return on_opencl(folder)


@some
def test_kernels_give_transformers_logits(case: Case, library: Library) -> None:
    """Chunks of several pages and tiles, and steps behind them."""
    cache = Cache(library)
    found = [cache.every(case.tokens[:100]), *(cache.step(token)[None] for token in case.tokens[100:120])]
    check(np.concatenate(found), case.logits[:120])


@one
def test_the_source_is_androids(library: Library) -> None:
    """What was run is what an app gets, to the letter, but for the names."""
    shipped = library.folder / read_mlc(library.folder).library
    prefix, run = f"{read_mlc(library.folder).model_lib}_", library.folder / "opencl.tar"
    assert opencl.definitions(shipped, prefix) == opencl.definitions(run)
    assert {name.removeprefix(prefix): one for name, one in opencl.kernels(shipped).items()} == opencl.kernels(run)


@one
def test_sequences_side_by_side(case: Case, library: Library) -> None:
    cache, tokens = Cache(library, 2), case.tokens
    other = ids(40, seed=5)
    prompts = np.concatenate([library.embedded(tokens[:18]), library.embedded(other[:12])])[None]
    last = np.array([17, 29], np.int32)
    found = cache.forward("batch_prefill", [0, 1], [18, 12], prompts, last)[0]
    steps = library.embedded([tokens[18], other[12]])[:, None]
    stepped = cache.forward("batch_decode", [0, 1], [1, 1], steps)[:, 0]
    with torch.inference_mode():
        wanted = case.network(torch.tensor([other])).logits[0].numpy()
    check(found, np.stack([case.logits[17], wanted[11]]))
    check(stepped, np.stack([case.logits[18], wanted[12]]))


@one
def test_prefill_gives_the_last_tokens_logits(case: Case, library: Library) -> None:
    found = Cache(library).forward("prefill", [0], [27], library.embedded(case.tokens[:27])[None])
    assert found.shape == (1, 1, VOCABULARY)
    check(found[0, 0], case.logits[26])


@one
def test_embeddings_have_room(library: Library) -> None:
    room, made = library.call("alloc_embedding_tensor"), read_mlc(library.folder)
    assert tuple(room.shape) == (made.chunk, library.embedded([1]).shape[1])
    assert str(room.dtype) == "float32"


@one
def test_softmax_at_any_temperature(library: Library) -> None:
    logits = np.random.default_rng(3).normal(0, 5, (3, 1, VOCABULARY)).astype(np.float32)
    logits[2, 0, 7] = logits[2, 0, 90] = logits[2].max() + 1
    temperature = np.array([1.0, 0.3, 0.0], np.float32)
    found = library.call("softmax_with_temperature", logits, temperature).numpy()
    for row in range(2):
        scaled = np.exp((logits[row, 0].astype(np.float64) - logits[row].max()) / temperature[row])
        np.testing.assert_allclose(found[row, 0], scaled / scaled.sum(), rtol=1e-4, atol=1e-9)
    assert np.flatnonzero(found[2]).tolist() == [7, 90]
    np.testing.assert_allclose(found[2, 0, [7, 90]], 0.5)


@one
def test_logits_are_changed_in_place(library: Library) -> None:
    random = np.random.default_rng(4)
    logits = random.normal(0, 3, (3, VOCABULARY)).astype(np.float32)
    place, tokens = np.array([0, 2, 2], np.int32), np.array([5, 130, 0], np.int32)
    bias = np.array([1.5, -2.0, 0.25], np.float32)
    changed = library.tensor(logits)
    library.call("apply_logit_bias_inplace", changed, place, tokens, bias)
    wanted = logits.copy()
    wanted[place, tokens] += bias
    np.testing.assert_array_equal(changed.numpy(), wanted)


@one
def test_penalties(library: Library) -> None:
    """`of` is a place among the sequences, not a row of the logits."""
    logits = np.random.default_rng(5).normal(0, 3, (4, VOCABULARY)).astype(np.float32)
    sequences, of = np.array([3, 1], np.int32), np.array([0, 0, 1], np.int32)
    tokens, counts = np.array([5, 6, 7], np.int32), np.array([1, 4, 2], np.int32)
    penalties = np.array([[0.5, 0.25, 1.3], [0.0, 1.0, 0.8]], np.float32)
    changed = library.tensor(logits)
    library.call("apply_penalty_inplace", changed, sequences, of, tokens, counts, penalties)
    wanted = logits.copy()
    for which, token, count in zip(of, tokens, counts, strict=True):
        presence, frequency, repetition = penalties[which]
        lowered = wanted[sequences[which], token] - (presence + count * frequency)
        wanted[sequences[which], token] = lowered * repetition if lowered < 0 else lowered / repetition
    np.testing.assert_allclose(changed.numpy(), wanted, rtol=1e-6)
    assert (changed.numpy() != logits).sum() == 3


@one
def test_a_mask_of_bits(library: Library) -> None:
    random = np.random.default_rng(6)
    logits = random.normal(0, 3, (3, VOCABULARY)).astype(np.float32)
    allowed = random.integers(0, 2, (3, VOCABULARY)).astype(bool)
    padded = np.zeros((3, -(-VOCABULARY // 32) * 32), bool)
    padded[:, :VOCABULARY] = allowed
    mask = np.packbits(padded, axis=1, bitorder="little").view("<i4")
    changed = library.tensor(logits)
    library.call("apply_bitmask_inplace", changed, np.array([2, 0], np.int32), mask)
    found = changed.numpy()
    np.testing.assert_array_equal(found[1], logits[1])
    for row in (0, 2):
        np.testing.assert_array_equal(found[row][allowed[row]], logits[row][allowed[row]])
        assert (found[row][~allowed[row]] < -3.4e38).all()


@one
def test_half_precision(case: Case, tmp_path: Path) -> None:
    """Where this machine's OpenCL has it; PoCL of PyPI does not."""
    compiled(case.model, tmp_path, order("android", "float16"))
    cache = Cache(on_opencl(tmp_path, half=True))
    found = np.concatenate([cache.every(case.tokens[:50]), *(cache.step(t)[None] for t in case.tokens[50:60])])
    check(found, case.logits[:60], 2e-3)


def test_a_kernel_that_no_phone_starts_is_refused(tmp_path: Path) -> None:
    """Attention with heads of 256 in float32; in half precision it fits."""
    model = quantized(VARIANTS["gemma3_text: window beyond the context"], tmp_path)
    wide = quantized(replace(VARIANTS["gemma3_text: window beyond the context"], sizes=(4, 1, 256)), tmp_path / "wide")
    compiled(model, tmp_path / "narrow", order("android"))
    compiled(wide, tmp_path / "half", order("android", "float16"))
    with pytest.raises(CompileError, match=r"kernel \w+prefill\w+ takes \d+ bytes of memory for a group") as caught:
        compiled(wide, tmp_path / "full", order("android"))
    assert caught.value.expected == "at most 32768, which phones have"
    sizes = shared_memory(opencl.source(tmp_path / "half" / read_mlc(tmp_path / "half").library))
    assert 16384 < max(sizes.values()) <= 32768
