"""A function bound to slots: constants decoded, what depends on constants alone computed, kernels made."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch

from slmc.errors import RunnerError, did_you_mean
from slmc.mil.dtypes import STRING
from slmc.mil.held import held
from slmc.mil.node import Kernel, Node, Slot, Values
from slmc.mil.operations import OPERATIONS
from slmc.mil.package import Feature, Function, Operation, Package
from slmc.mil.slicing import update
from slmc.mil.states import check_written, in_place, last_uses
from slmc.mil.step import FAILURES, Step
from slmc.mil.values import Constant
from slmc.mil.weights import UNPACKS, Weights, tensor

_OPSETS = ("CoreML7", "CoreML8")


@dataclass
class Program:
    where: str
    inputs: dict[str, Slot] = field(default_factory=dict)
    states: dict[str, Slot] = field(default_factory=dict)
    outputs: dict[str, Slot] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    values: Values = field(default_factory=list)
    """By slot: constants, and placeholders for all else."""


def bind(package: Package, name: str) -> Program:
    """A function of a package, ready to run. Raises RunnerError naming the operation, or the state, that can't be."""
    function = package.function(name)
    where = f"{package.folder}, function {name!r}"
    if function.opset not in _OPSETS:
        raise RunnerError(f"operations of {function.opset}", where=where, expected=" or ".join(_OPSETS))
    return _Binder(package, function, where).bind()


class _Binder:
    def __init__(self, package: Package, function: Function, where: str) -> None:
        self._weights, self._function, self._program = Weights.of(package), function, Program(where)
        self._slots: dict[str, Slot] = {}
        self._keys: dict[str, Hashable] = {}
        self._nodes: dict[int, Node] = {}

    def bind(self) -> Program:
        program, function = self._program, self._function
        for one in function.states:
            if None in one.shape:
                raise RunnerError(f"the state {one.name!r} has no fixed shape", where=program.where)
        program.inputs = {one.name: self._new(one) for one in function.inputs}
        program.states = {one.name: self._new(one) for one in function.states}
        for operation in function.operations:
            try:
                self._operation(operation)
            except FAILURES as error:
                raise RunnerError(f"{operation.label}: {error}", where=program.where) from None
        program.outputs = {one.name: self._slots[one.name] for one in function.outputs}
        check_written(program.steps, program.states, program.where)
        self._finish()
        return program

    def _operation(self, operation: Operation) -> None:
        if operation.type == "const":
            self._const(operation)
        elif operation.type in UNPACKS:
            self._unpacked(operation)
        elif operation.type in ("read_state", "write_state"):
            self._state(operation)
        else:
            self._computed(operation)

    def _const(self, operation: Operation) -> None:
        [output], value = operation.outputs, operation.attributes.get("val")
        if value is None or (value.dtype, value.shape) != (output.dtype, output.shape):
            raise ValueError("a value of another type or shape than its own")
        if value.dtype is STRING:
            self._new(output).text = value.text() if not value.shape else None
        else:
            self._keys[output.name] = value.key
            self._hold(self._new(output), value.key, lambda: tensor(value))

    def _unpacked(self, operation: Operation) -> None:
        """Weights unpacked, once for all functions that unpack the same."""
        unpack, codes, values = UNPACKS[operation.type]
        given = {name: one for name, (one,) in operation.inputs.items()} | dict(operation.attributes)
        missing = {codes, values} - given.keys()
        computed = [one for one in given.values() if isinstance(one, str) and one not in self._keys]
        if missing or computed:
            raise ValueError(f"no {', '.join(missing)}" if missing else f"{computed[0]!r} is not a constant")
        [output], source = operation.outputs, given[values]
        dtype = source.dtype if isinstance(source, Constant) else self._slots[source].dtype
        if dtype != output.dtype:
            raise ValueError(f"makes {output.dtype.name} of {dtype.name}")

        def decode() -> torch.Tensor:
            tensors = {name: self._constant(one) for name, one in given.items()}
            return unpack(tensors, output.dtype.name == "fp16").to(held(output.dtype))

        keys = {name: one.key if isinstance(one, Constant) else self._keys[one] for name, one in given.items()}
        key = self._keys[output.name] = (operation.type, frozenset(keys.items()))
        found = self._hold(self._new(output), key, decode)
        if tuple(found.shape) != output.shape:
            raise ValueError(f"makes {list(found.shape)}, which is to be {list(output.shape)}")

    def _constant(self, given: str | Constant) -> torch.Tensor:
        found = tensor(given) if isinstance(given, Constant) else self._slots[given].constant
        assert found is not None
        return found

    def _state(self, operation: Operation) -> None:
        node = self._node(operation)
        state = node.one("input")
        if state not in self._program.states.values():
            raise ValueError("'input' is not a state")
        data = state if operation.type == "read_state" else node.one("data")
        outputs = tuple(self._new(one) for one in operation.outputs) or (state,)
        if any((one.dtype, one.shape) != (state.dtype, state.shape) for one in (data, *outputs)):
            raise ValueError("another type or shape than the state's")
        self._add(operation, node, _copy(data) if data is not state else _same(data), (data,), outputs, False)

    def _computed(self, operation: Operation) -> None:
        kind = OPERATIONS.get(operation.type)
        if kind is None:
            raise ValueError(f"an operation that is not done; {did_you_mean(operation.type, OPERATIONS)}")
        if not operation.outputs:
            raise ValueError("makes nothing")
        node = self._node(operation)
        inputs = tuple(slot for name in operation.inputs for slot in node.all(name) if slot.dtype is not STRING)
        if operation.type == "slice_update":  # `states.in_place` looks at these
            inputs = (node.one("x"), node.one("update"), *inputs)
        if any(slot in self._program.states.values() for slot in inputs):
            raise ValueError("takes a state that is not read")
        if kind.computes and any(slot.nan for slot in inputs):
            raise ValueError("computes with a constant that holds values that are no numbers")
        dtype = kind.result(node)
        for one in operation.outputs:
            if one.dtype != dtype:
                raise ValueError(f"makes {dtype.name} and is to make {one.dtype.name}")
        outputs = tuple(self._new(one) for one in operation.outputs)
        self._add(operation, node, kind.bind(node), inputs, outputs, kind.computes)

    def _node(self, operation: Operation) -> Node:
        return Node(operation, {name: tuple(map(self._slot, given)) for name, given in operation.inputs.items()})

    def _slot(self, given: str | Constant) -> Slot:
        if isinstance(given, str):
            return self._slots[given]
        slot = self._new(Feature("", given.dtype, given.shape))
        if given.dtype is STRING:
            slot.text = given.text()
        else:
            self._hold(slot, given.key, lambda: tensor(given))
        return slot

    def _new(self, feature: Feature) -> Slot:
        slot = Slot(len(self._program.values), feature.dtype, feature.shape)
        self._program.values.append(torch.empty(0))
        if feature.name:
            self._slots[feature.name] = slot
        return slot

    def _hold(self, slot: Slot, key: Hashable, decode: Callable[[], torch.Tensor]) -> torch.Tensor:
        slot.constant = self._program.values[slot.index] = self._weights.get(key, decode)
        slot.nan = self._weights.has_nan(key)
        return slot.constant

    def _add(
        self,
        operation: Operation,
        node: Node,
        kernel: Kernel,
        inputs: tuple[Slot, ...],
        outputs: tuple[Slot, ...],
        computes: bool,
    ) -> None:
        """A step; where all that it gets is constant and it writes no state, it is run now."""
        step = Step(operation.type, operation.label, self._program.where, kernel, inputs, outputs, computes)
        if operation.type != "write_state" and all(slot.constant is not None for slot in inputs):
            with torch.inference_mode():
                step.run(self._program.values)
            for slot in outputs:
                slot.constant, slot.nan = self._program.values[slot.index], any(one.nan for one in inputs)
        else:
            self._nodes[len(self._program.steps)] = node
            self._program.steps.append(step)

    def _finish(self) -> None:
        """States written in place where that is the same; values freed after their last use."""
        steps, outputs = self._program.steps, list(self._program.outputs.values())
        last = last_uses(steps, outputs)
        for place in in_place(steps, last):
            step, node = steps[place], self._nodes[place]
            step.kernel = _same(step.inputs[0]) if step.type == "write_state" else update(node, in_place=True)
        kept = {slot.index for slot in (*self._program.states.values(), *outputs)}
        kept |= {slot.index for step in steps for slot in step.inputs if slot.constant is not None}
        for place, step in enumerate(steps):
            ends = {slot.index for slot in (*step.inputs, *step.outputs) if last[slot.index] == place}
            step.frees = tuple(sorted(ends - kept))


def _same(slot: Slot) -> Kernel:
    index = slot.index
    return lambda values: values[index]


def _copy(slot: Slot) -> Kernel:
    index = slot.index
    return lambda values: values[index].clone()
