"""MLC's weight files held against a quantized checkpoint, as a program of its own. Prints a JSON line for each tensor.

What the files say is read by the runtime that phones have, and unpacked by MLC's formula, not by what wrote them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import tvm
from numpy.typing import NDArray

from slmc.architecture import TensorSpec
from slmc.backends.child import tell
from slmc.backends.mlc.tensors import GROUP, Format, Tensor, plain, quantized_weights, tensors
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import row_blocks
from slmc.quant.fp16 import narrow_scales
from slmc.quant.reader import QuantizedReader


def check(reader: QuantizedReader, folder: Path, form: Format) -> Iterator[tuple[str, bool]]:
    """Each tensor that MLC's engine looks for, with whether it is what the checkpoint says."""
    stored = _Stored(folder)
    for parts in tensors(reader.architecture, quantized_weights(reader), form).values():
        for tensor in parts:
            yield tensor.name, _same(reader, tensor, stored.array(tensor.name))


class _Stored:
    """TVM's cache of weights, filled from a folder."""

    def __init__(self, folder: Path) -> None:
        self._get = tvm.get_global_func("vm.builtin.tensor_cache.get")
        tvm.get_global_func("vm.builtin.tensor_cache.clear")()
        tvm.get_global_func("vm.builtin.tensor_cache.load")(str(folder), tvm.cpu().dlpack_device_type(), 0)

    def array(self, name: str) -> NDArray[Any] | None:
        found = self._get(name)
        return None if found is None else np.asarray(found.numpy())


def _same(reader: QuantizedReader, tensor: Tensor, found: NDArray[Any] | None) -> bool:
    if found is None or found.shape != tensor.shape or found.dtype != tensor.dtype:
        return False
    first = 0
    for source in tensor.weight.sources:
        part = found[first : first + source.shape[0]]
        first += source.shape[0]
        if not all(_same_rows(reader, tensor, source, part, *block) for block in row_blocks(source.shape)):
            return False
    return True


def _same_rows(
    reader: QuantizedReader, tensor: Tensor, source: TensorSpec, found: NDArray[Any], start: int, stop: int
) -> bool:
    part = found[start:stop]
    if tensor.kind == "codes":
        return np.array_equal(_codes(part), reader.codes(source.name, start, stop))
    if tensor.kind == "scales":
        return _same_scales(part, reader.scales(source.name, start, stop), reader.group_size)
    return np.array_equal(part, plain(reader, source)[start:stop].astype(tensor.dtype))


def _codes(words: NDArray[np.uint32]) -> NDArray[np.int8]:
    """Ours, of MLC's: a weight is (code - 7) * scale with our scale negated."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    codes = (words[:, :, None] >> shifts) & np.uint32(15)
    return (7 - codes.astype(np.int8)).reshape(len(words), -1)


def _same_scales(found: NDArray[Any], scales: Float32, group_size: int) -> bool:
    wanted = narrow_scales(scales) if found.dtype == np.float16 else scales
    each = -found.reshape(len(found), -1, group_size // GROUP)
    return bool((each == wanted[:, :, None]).all())


def main() -> None:
    model, folder, form = sys.argv[1:]
    with QuantizedReader(Path(model)) as reader:
        for name, same in check(reader, Path(folder), cast(Format, form)):
            tell(name=name, same=same)


if __name__ == "__main__":
    main()
