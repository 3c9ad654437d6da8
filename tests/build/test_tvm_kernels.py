"""Single kernels against numpy's integers: exact, whatever the codes and activations."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from slmc.backends.tvm import layout
from slmc.models.compiled import ALIGNMENT, Kernels
from slmc.names import Bits

from .test_tvm import variant

tvm = pytest.importorskip("tvm")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

Array = npt.NDArray[np.generic]
Codes = npt.NDArray[np.int8]
ROWS, COLUMNS, GROUP = 64, 128, 64
TOKENS = 7
"""Not whole tiles."""


@pytest.fixture(params=["portable", "avx2", "vnni"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    variant(request.param)
    found: Kernels = request.param
    return found


def shape(bits: Bits) -> layout.Shape:
    return layout.Shape(ROWS, COLUMNS, GROUP, bits)


def codes(bits: Bits, seed: int = 0) -> Codes:
    """int8 [64, 128]: a row each of the lowest and the highest code, rows of both, and rows of any."""
    lowest, highest = -(1 << bits - 1), (1 << bits - 1) - 1
    random = np.random.default_rng(seed)
    found = random.integers(lowest, highest, (ROWS, COLUMNS), np.int8, endpoint=True)
    found[::3] = random.choice(np.array([lowest, highest], np.int8), found[::3].shape)
    found[1], found[2] = lowest, highest
    return found


def compiled(function: object, kernels: str) -> Callable[..., None]:
    """A kernel named `kernel` as a function of numpy arrays, the last of which it writes."""
    import tvm_ffi

    way = variant(kernels)
    target = tvm.target.Target({"kind": "llvm", "mtriple": way.triple, "mcpu": way.cpu})
    call = tvm.compile(tvm.IRModule({"kernel": function}), target=target)["kernel"]
    return lambda *arrays: call(*map(tvm_ffi.from_dlpack, arrays))


def aligned(values: Array) -> Array:
    """A copy that begins where the kernels take tensors to begin."""
    memory = np.zeros(values.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def packed(codes: Codes, bits: Bits) -> tuple[Array, Array]:
    """Codes as the kernels take them, with scales of 1."""
    scales = np.ones(shape(bits).scales, ml_dtypes.bfloat16).view(np.uint16)
    return aligned(layout.pack_codes(codes, bits)), aligned(scales)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("many", [True, False])
def test_a_matmul_adds_integers_exactly(kernels: Kernels, bits: Bits, many: bool) -> None:
    from slmc.backends.tvm.kernels.activations import copied
    from slmc.backends.tvm.kernels.formats import FORMATS, TILE_ROWS
    from slmc.backends.tvm.kernels.matmul import matmul

    tokens = TOKENS if many else 1
    random = np.random.default_rng(1)
    activations = random.integers(-127, 127, (tokens, COLUMNS), endpoint=True)
    activations[:, ::32] = 127  # so that a block's scale is 1
    activations[:1] = 127
    activations[1:2] = -127
    activations[2:3] = random.choice([-127, 127], COLUMNS)
    rows = -(-tokens // TILE_ROWS) * TILE_ROWS if many else 1
    form = FORMATS[kernels]
    held = [aligned(np.zeros((rows, *part.shape), part.dtype)) for part in form.parts(COLUMNS)]
    values, result = aligned(activations.astype(np.float32)), aligned(np.zeros((tokens, ROWS), np.float32))

    compiled(copied("kernel", COLUMNS, form, many), kernels)(values, *held)
    found = codes(bits)
    function = matmul("kernel", shape(bits), kernels, "none", many)
    compiled(function, kernels)(*packed(found, bits), *held, result)
    # Every sum is an integer below 2^24, which float32 holds.
    np.testing.assert_array_equal(result, activations @ found.T.astype(np.int64))


@pytest.mark.parametrize("bits", [4, 8])
def test_an_embedding_gives_its_rows(kernels: Kernels, bits: Bits) -> None:
    from slmc.backends.tvm.kernels.embedding import embedding

    ids = np.array([1, 2, 63, 0, 17, 17], np.int32)
    result = aligned(np.zeros((len(ids), COLUMNS), np.float32))
    found = codes(bits)
    compiled(embedding("kernel", shape(bits), many=True), kernels)(aligned(ids), *packed(found, bits), result)
    np.testing.assert_array_equal(result, found[ids])
