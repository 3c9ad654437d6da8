"""Runs a function of a saved ML program."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from slmc.errors import RunnerError
from slmc.mil.held import outside
from slmc.mil.node import Slot, Values
from slmc.mil.package import Function, Package
from slmc.mil.program import bind
from slmc.mil.states import State


class Interpreter:
    """One function of a package; those of one package share its weights, and a state may go from one to another.

    Raises RunnerError for an operation that is unknown or doesn't fit what the file declares, and for a state that is
    never written, when it is made. Small tensors are fastest on one thread (`torch.set_num_threads`).
    """

    def __init__(self, package: Package, function: str = "main") -> None:
        self.function: Function = package.function(function)
        self._program = bind(package, function)

    def new_state(self) -> State:
        """Zeros."""
        return State.zeros(self._program.states)

    def run(self, inputs: Mapping[str, Tensor], state: State | None = None) -> dict[str, Tensor]:
        """The outputs for inputs in their declared types; a state is changed, and needed where the function has any.

        Raises RunnerError for inputs that are not what the function declares, and naming the operation for one that
        fails, or makes values that are not finite of such that are.
        """
        program, state = self._program, state or State({})
        state.check(program.states, program.where)
        values = program.values.copy()
        for name, slot in program.states.items():
            values[slot.index] = state.buffers[name]
        self._take(inputs, values)
        with torch.inference_mode():
            for step in program.steps:
                step.run(values)
        state.buffers |= {name: values[slot.index] for name, slot in program.states.items()}
        return {name: _given_out(values[slot.index], slot) for name, slot in program.outputs.items()}

    def _take(self, inputs: Mapping[str, Tensor], values: Values) -> None:
        slots, where = self._program.inputs, self._program.where
        if inputs.keys() != slots.keys():
            raise RunnerError(f"inputs {sorted(inputs)}", where=where, expected=sorted(slots))
        for name, slot in slots.items():
            found = inputs[name]
            fits = found.dim() == len(slot.shape) and all(
                wanted in (None, size) for size, wanted in zip(found.shape, slot.shape, strict=True)
            )
            if not fits or found.dtype != outside(slot.dtype):
                what = f"the input {name!r} is {found.dtype} {list(found.shape)}"
                raise RunnerError(what, where=where, expected=f"{outside(slot.dtype)} {list(slot.shape)}")
            values[slot.index] = found.to(slot.held)


def _given_out(found: Tensor, slot: Slot) -> Tensor:
    """A copy, as what is held may be a state's."""
    return found.detach().to(outside(slot.dtype), copy=True)
