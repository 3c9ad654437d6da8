"""States: what a function keeps between calls, and where a program may write into it without copying it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from slmc.errors import RunnerError
from slmc.mil.node import Slot
from slmc.mil.step import Step


@dataclass
class State:
    """Buffers by name, in their held types. Undefined after a run that failed."""

    buffers: dict[str, torch.Tensor]

    @classmethod
    def zeros(cls, slots: Mapping[str, Slot]) -> State:
        """As the runtime makes it."""
        sizes = {name: [size or 0 for size in slot.shape] for name, slot in slots.items()}
        return cls({name: torch.zeros(sizes[name], dtype=slot.held) for name, slot in slots.items()})

    def copy(self) -> State:
        """One that goes on by itself."""
        return State({name: buffer.clone() for name, buffer in self.buffers.items()})

    def check(self, slots: Mapping[str, Slot], where: str) -> None:
        """Raise RunnerError where it doesn't have the states of a function, or others than its own by that name."""
        for name, slot in slots.items():
            found = self.buffers.get(name)
            if found is None or found.shape != slot.shape or found.dtype != slot.held:
                text = "is missing" if found is None else f"is {found.dtype} {list(found.shape)}"
                expected = f"{slot.dtype.name} {list(slot.shape)}"
                raise RunnerError(f"the state {name!r} {text}", where=where, expected=expected)


def check_written(steps: Sequence[Step], slots: Mapping[str, Slot], where: str) -> None:
    """Raise RunnerError for a state that is never written: what it was meant to keep is lost."""
    written = {step.outputs[0].index for step in steps if step.type == "write_state"}
    for name, slot in slots.items():
        if slot.index not in written:
            todo = "write it with slice_update and coreml_update_state"
            raise RunnerError(f"the state {name!r} is never written", where=where, todo=todo)


def last_uses(steps: Sequence[Step], outputs: Sequence[Slot]) -> dict[int, int]:
    """By slot, the last step that uses it; beyond all steps for the function's outputs."""
    last = {slot.index: place for place, step in enumerate(steps) for slot in (*step.outputs, *step.inputs)}
    return last | {slot.index: len(steps) for slot in outputs}


def in_place(steps: Sequence[Step], last: Mapping[int, int]) -> set[int]:
    """Places of those updates, and of the writes of their results, that may change a state's buffer itself.

    Of an update `x` must be the buffer as last read, nothing that may share its memory is used afterwards, and what
    next happens to the state is that the result is written to it.
    """
    found: set[int] = set()
    shares: dict[int, frozenset[int]] = {}  # of which states a value may share the memory
    whole: dict[int, int] = {}  # values that are the present buffer of a state
    for place, step in enumerate(steps):
        inputs, outputs = [slot.index for slot in step.inputs], [slot.index for slot in step.outputs]
        if step.type == "read_state":
            shares[outputs[0]], whole[outputs[0]] = frozenset(inputs), inputs[0]
        elif step.type == "write_state":
            whole = {slot: state for slot, state in whole.items() if state != outputs[0]}
        elif step.type == "slice_update":
            state, write = whole.get(inputs[0]), None
            if state is not None and state not in shares.get(inputs[1], ()):
                alive = any(last[slot] > place for slot, states in shares.items() if state in states)
                write = None if alive else _written_next(steps, place, state)
            if state is not None and write is not None:
                found |= {place, write}
                shares[outputs[0]] = frozenset([state])
        elif not step.computes or step.type == "cast":
            shares |= dict.fromkeys(outputs, frozenset(state for slot in inputs for state in shares.get(slot, ())))
    return found


def _written_next(steps: Sequence[Step], place: int, state: int) -> int | None:
    """The place of the next step that touches a state, where it writes the output of the step at a place."""
    for after in range(place + 1, len(steps)):
        step = steps[after]
        if any(slot.index == state for slot in (*step.inputs, *step.outputs)):
            ours = step.type == "write_state" and step.inputs[0].index == steps[place].outputs[0].index
            return after if ours else None
    return None
