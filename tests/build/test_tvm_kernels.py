"""Single kernels against numpy's integers: exact, whatever the codes and activations."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from slmc.backends.tvm import layout
from slmc.backends.tvm.kernels.levels import Level, levels
from slmc.names import Bits
from slmc.runners.native_engine import load_library, runnable_kernels
from slmc.target import load_target, native_triples

pytest.importorskip("tvm")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

Array = npt.NDArray[np.generic]
Codes = npt.NDArray[np.int8]
ROWS, COLUMNS, GROUP = 64, 128, 64
TOKENS = 7
"""Not whole tiles."""


@pytest.fixture(scope="module")
def symbols(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All kernels of this machine, seen from outside, as those of the library are not."""
    from slmc.backends.tvm.codegen import generate
    from slmc.backends.tvm.library import zig_tools
    from slmc.backends.tvm.link import clang_flags

    folder = tmp_path_factory.mktemp("kernels")
    [triple] = native_triples(load_target("host"))
    generate(triple, folder)
    for source in folder.glob("*.s"):
        kept = [line for line in source.read_text().splitlines() if ".hidden" not in line and ".private_" not in line]
        source.write_text("\n".join(kept) + "\n")
    library = folder / "kernels.so"
    with zig_tools() as zig:
        sources = map(str, sorted(folder.glob("*.s")))
        zig(["cc", *clang_flags(triple), "-shared", "-nostdlib", *sources, "-o", str(library)], triple)
    return ctypes.CDLL(str(library))


@pytest.fixture(params=levels(platform.machine()), ids=lambda level: level.name)
def level(request: pytest.FixtureRequest, host_library: Path) -> Level:
    found: Level = request.param
    if found.name not in runnable_kernels(load_library(host_library)):
        pytest.skip(f"not run: this CPU can't run the {found.name} kernels")
    return found


def call(symbols: ctypes.CDLL, name: str, *arguments: Array | int | float) -> None:
    """A kernel, with pointers, 64-bit integers and floats as C would pass them."""
    kinds = {int: ctypes.c_int64, float: ctypes.c_float}
    symbols[name](*(kinds[type(one)](one) if type(one) in kinds else pointer(one) for one in arguments))


def pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Rows:
    """Activations as a level's matmuls take them, with room for whole tiles."""

    def __init__(self, level: Level, tokens: int, columns: int = COLUMNS) -> None:
        from slmc.backends.tvm.kernels.formats import TILE_ROWS

        rows = -(-tokens // TILE_ROWS) * TILE_ROWS
        self.values = np.zeros((rows, columns), level.format.values)
        self.scales = np.zeros((rows, columns // layout.BLOCK), np.float32)
        self.offsets = np.zeros((rows, columns // layout.BLOCK), np.int32)
        self.arguments = (self.values, self.scales, self.offsets, columns // layout.BLOCK)

    def floats(self) -> npt.NDArray[np.float32]:
        """What they stand for."""
        if self.values.dtype == np.float32:
            return self.values
        return self.values.astype(np.float32) * np.repeat(self.scales, layout.BLOCK, axis=1)


def codes(bits: Bits, seed: int = 0) -> Codes:
    """int8 [64, 128]: a row each of the lowest and the highest code, rows of both, and rows of any."""
    lowest, highest = -(1 << bits - 1), (1 << bits - 1) - 1
    random = np.random.default_rng(seed)
    found = random.integers(lowest, highest, (ROWS, COLUMNS), np.int8, endpoint=True)
    found[::3] = random.choice(np.array([lowest, highest], np.int8), found[::3].shape)
    found[1], found[2] = lowest, highest
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tokens", [1, TOKENS])
@pytest.mark.parametrize("add", [0, 1])
def test_a_matmul_adds_integers_exactly(symbols: ctypes.CDLL, level: Level, bits: Bits, tokens: int, add: int) -> None:
    random = np.random.default_rng(1)
    activations = random.integers(-127, 127, (tokens, COLUMNS), endpoint=True)
    activations[:, ::32] = 127  # so that a block's scale is 1
    activations[:1] = 127
    activations[1:2] = -127
    activations[2:3] = random.choice([-127, 127], COLUMNS)
    rows, found = Rows(level, tokens), codes(bits)
    call(symbols, f"slm_{level.name}_copied", activations.astype(np.float32), *rows.arguments, 0, tokens)
    scales = np.ones((ROWS // 8, COLUMNS // GROUP, 8), ml_dtypes.bfloat16).view(np.uint16)
    result = np.full((tokens, ROWS), 5, np.float32)
    name = f"slm_{level.name}_matmul{bits}_{'one' if tokens == 1 else 'many'}"
    dot = level.dot(bits, many=tokens > 1)
    tile = dot.one_row if tokens == 1 else dot.many_rows
    packed = layout.pack_codes(found, bits)
    shift = GROUP // 32 - 1
    last = ROWS // 8 // tile.blocks
    call(symbols, name, packed, scales, *rows.arguments, shift, result, ROWS, add, tokens, 0, last)
    # Every sum is an integer below 2^24, which float32 holds.
    np.testing.assert_array_equal(result, activations @ found.T.astype(np.int64) + 5 * add)


def test_a_norm_and_a_gate_are_held(symbols: ctypes.CDLL, level: Level) -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal((TOKENS, 2 * COLUMNS)).astype(np.float32) * 3
    weights = random.standard_normal(COLUMNS).astype(np.float32)
    half, rows = np.ascontiguousarray(x[:, :COLUMNS]), Rows(level, TOKENS)
    call(symbols, f"slm_{level.name}_normalized", half, weights, *rows.arguments, 1e-5, 0, TOKENS)
    normed = half / np.sqrt(np.square(half).mean(1, keepdims=True) + 1e-5) * weights
    check(level, rows, normed)
    gate, up = half.astype(np.float64), x[:, COLUMNS:].astype(np.float64)
    gates = {
        "silu": gate / (1 + np.exp(-gate)),
        "gelu": 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))),
    }
    for name, wanted in gates.items():
        rows = Rows(level, TOKENS)
        call(symbols, f"slm_{level.name}_gated_{name}", x, 2 * COLUMNS, *rows.arguments, 0, TOKENS)
        check(level, rows, wanted * up)


def check(level: Level, rows: Rows, wanted: npt.NDArray[np.floating]) -> None:
    """Within half a step of the block's scale, or float32's own roundings."""
    steps = np.abs(wanted).reshape(TOKENS, -1, 32).max(-1).repeat(32, axis=1) / 127
    allowed = 1e-5 * np.abs(wanted).max() + (0 if level.cache == "float32" else 0.501 * steps)
    assert (np.abs(rows.floats()[:TOKENS] - wanted) <= allowed).all()


@pytest.mark.parametrize("name", ["few", "many"])
@pytest.mark.parametrize(("stop", "window"), [(1, 0), (8, 0), (13, 0), (40, 0), (40, 7), (33, 9)])
def test_attention_sees_what_it_may(symbols: ctypes.CDLL, level: Level, stop: int, window: int, name: str) -> None:
    dim, context = 48, 64
    count, positions = (level.attention.many if name == "many" else level.attention.few), level.attention.positions
    random = np.random.default_rng(3)
    keys, values = (
        np.zeros((context // positions, dim, positions), level.cache),
        np.full((context, dim), np.nan, level.cache),
    )
    plain = random.standard_normal((2, stop, dim)).astype(np.float32)
    for at in range(stop):
        call(symbols, f"slm_{level.name}_append", plain[0, at].copy(), plain[1, at].copy(), keys, values, dim, at)
    stored = keys.transpose(0, 2, 1).reshape(context, dim)[:stop].astype(np.float32)
    np.testing.assert_allclose(stored, plain[0], rtol=1e-3, atol=1e-3)
    queries = random.standard_normal((count, dim)).astype(np.float32)
    ends = np.maximum(1, stop - np.arange(count)).astype(np.int32)
    begins = np.maximum(0, ends - window).astype(np.int32) if window else np.zeros_like(ends)
    result, scores = np.zeros_like(queries), np.zeros((count, context), np.float32)
    start = int(begins.min()) // positions * positions
    limits = (begins, ends, scores, context, dim, start, int(ends.max()))
    call(symbols, f"slm_{level.name}_attend_{name}", queries, keys, values, *limits, result)
    for query, begin, end, found in zip(queries, begins, ends, result, strict=True):
        products = stored[begin:end] @ query
        weights = np.exp(products - products.max())
        wanted = weights / weights.sum() @ values[begin:end].astype(np.float32)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
