"""One operation as it is run: its kernel, and what its outputs are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from slmc.errors import RunnerError
from slmc.mil.node import Kernel, Slot, Values

FAILURES = (ValueError, IndexError, TypeError, RuntimeError, OverflowError, ZeroDivisionError)
"""What torch and Python raise for operands that don't fit."""


@dataclass(slots=True)
class Step:
    type: str
    label: str
    """For a message: type and output names."""
    where: str
    """For a message: the file and the function."""
    kernel: Kernel
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    computes: bool
    """Outputs are rounded to their type, and must be finite where inputs are."""
    frees: tuple[int, ...] = field(default=())
    """Slots that nothing uses afterwards."""

    def run(self, values: Values) -> None:
        """Put the outputs into their slots. Raises RunnerError naming the operation."""
        try:
            found = self.kernel(values)
        except FAILURES as error:
            raise self.fault(str(error)) from None
        if isinstance(found, Tensor):
            self._put(self.outputs[0], found, values)
        elif len(found) != len(self.outputs):
            raise self.fault(f"makes {len(found)} values", expected=len(self.outputs))
        else:
            for slot, one in zip(self.outputs, found, strict=True):
                self._put(slot, one, values)
        for index in self.frees:
            values[index] = _NOTHING

    def _put(self, slot: Slot, found: Tensor, values: Values) -> None:
        if self.computes and slot.dtype.floats and found.dtype == torch.float32:
            if slot.dtype.name == "fp16":
                found = found.half().float()
            if not math.isfinite(found.sum().item()):
                self._check_finite(found, values)
        if found.dtype is not slot.held or found.shape != slot.shape:
            self._check_kind(slot, found)
        values[slot.index] = found

    def _check_finite(self, found: Tensor, values: Values) -> None:
        """Infinities that come in may go out again, as those of masks do; others may not."""
        given = [values[slot.index] for slot in self.inputs if slot.dtype.floats]
        if bool(found.isnan().any()) and not any(bool(one.isnan().any()) for one in given):
            what = "values that are no numbers"
        elif bool(found.isinf().any()) and all(bool(one.isfinite().all()) for one in given):
            what = f"values beyond {self.outputs[0].dtype.name}"
        else:
            return
        largest = max((one[one.isfinite()].abs().max().item() for one in given if one.isfinite().any()), default=0.0)
        raise self.fault(f"makes {what}; the largest |input| is {largest:g}")

    def _check_kind(self, slot: Slot, found: Tensor) -> None:
        fits = len(found.shape) == len(slot.shape) and all(
            wanted in (None, size) for size, wanted in zip(found.shape, slot.shape, strict=True)
        )
        if not fits or found.dtype != slot.held:
            raise self.fault(
                f"makes {found.dtype} {list(found.shape)}", expected=f"{slot.dtype.name} {_text(slot.shape)}"
            )

    def fault(self, what: str, expected: object = None) -> RunnerError:
        return RunnerError(f"{self.label}: {what}", where=self.where, expected=expected)


_NOTHING = torch.empty(0)
"""In the place of a value that is freed."""


def _text(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
