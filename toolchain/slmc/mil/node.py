"""An operation with its parameters bound to slots: what the table of operations sees of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from slmc.mil.dtypes import DType, named
from slmc.mil.held import held
from slmc.mil.package import Operation

Values = list[torch.Tensor]
"""While a function runs: a tensor for each slot that holds one at the time."""
Kernel = Callable[[Values], torch.Tensor | Sequence[torch.Tensor]]
"""An operation, ready to run; several tensors where it has several outputs, or other than one."""
Integers = Callable[[Values], list[int]]


@dataclass(eq=False)
class Slot:
    """A value of the program."""

    index: int
    dtype: DType
    shape: tuple[int | None, ...]
    constant: torch.Tensor | None = None
    text: str | None = None
    """A string constant."""
    nan: bool = False
    """A constant with a NaN in it, which a program may choose and not compute with."""

    def __post_init__(self) -> None:
        self.held = held(self.dtype)


class Node:
    """All methods raise ValueError where a parameter is missing, or not of the kind that is wanted."""

    def __init__(self, operation: Operation, parameters: Mapping[str, tuple[Slot, ...]]) -> None:
        self.operation = operation
        self._parameters = parameters

    def has(self, name: str) -> bool:
        return name in self._parameters

    def all(self, name: str) -> tuple[Slot, ...]:
        """The values of a parameter that takes several."""
        if not self._parameters.get(name):
            raise ValueError(f"no parameter {name!r}")
        return self._parameters[name]

    def one(self, name: str) -> Slot:
        found = self.all(name)
        if len(found) != 1:
            raise ValueError(f"{len(found)} values for {name!r}, which takes one")
        return found[0]

    def slot(self, name: str) -> int:
        """The place of a parameter's value."""
        return self.one(name).index

    def optional(self, name: str) -> int | None:
        return self.slot(name) if self.has(name) else None

    def shape(self, name: str) -> tuple[int, ...]:
        """A parameter's shape, where all sizes are known."""
        found = self.one(name).shape
        if None in found:
            raise ValueError(f"{name!r} has sizes that are known only when it runs")
        return cast(tuple[int, ...], found)

    def constant(self, name: str) -> torch.Tensor:
        found = self.one(name).constant
        if found is None:
            raise ValueError(f"{name!r} is not a constant")
        return found

    def text(self, name: str, default: str | None = None) -> str:
        if default is not None and not self.has(name):
            return default
        found = self.one(name).text
        if found is None:
            raise ValueError(f"{name!r} is not a constant string")
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self.constant(name)) if default is None or self.has(name) else default

    def flag(self, name: str) -> bool:
        """A constant boolean, false by default."""
        return self.has(name) and bool(self.constant(name))

    def epsilon(self, default: float) -> float:
        """What is added to `x`: a constant, by default in the type of `x`."""
        if self.has("epsilon"):
            return float(self.constant("epsilon"))
        return float(np.dtype(self.one("x").dtype.decoded).type(default))

    def constants(self, name: str) -> list[int] | None:
        """Constant integers, or booleans as integers; None where the parameter is left out."""
        return [int(one) for one in self.constant(name).reshape(-1)] if self.has(name) else None

    def integers(self, name: str) -> Integers:
        """Integers that may be known only when the program runs."""
        slot = self.one(name)
        if slot.constant is not None:
            found: list[int] = slot.constant.reshape(-1).tolist()
            return lambda values: found
        index = slot.index
        return lambda values: values[index].reshape(-1).tolist()


Result = Callable[[Node], DType]
"""The element type that an operation's outputs must have. Raises ValueError where operands don't fit each other."""


@dataclass(frozen=True)
class Kind:
    """What operations of one type do."""

    bind: Callable[[Node], Kernel]
    result: Result
    computes: bool = True
    """Its outputs are rounded to their type and must be finite; else elements are only moved, and outputs may share
    memory with inputs."""


def like(*names: str) -> Result:
    """All these operands, as far as they are given, have one type, and so has the result."""

    def result(node: Node) -> DType:
        found = [slot.dtype for name in names if node.has(name) for slot in node.all(name)]
        if not found or any(one != found[0] for one in found):
            raise ValueError(f"operands of types {', '.join(one.name for one in found) or 'none'}")
        return found[0]

    return result


def always(name: str, *alike: str) -> Result:
    """One type whatever the operands; those that are named have one type."""

    def result(node: Node) -> DType:
        if alike:
            like(*alike)(node)
        return named(name)

    return result


def told(parameter: str, default: str | None = None) -> Result:
    """The type that a constant string calls."""
    return lambda node: named(node.text(parameter, default))


def moves(bind: Callable[[Node], Kernel], *names: str) -> Kind:
    """Elements are moved, not computed; `x` or the operands named have the result's type."""
    return Kind(bind, like(*(names or ("x",))), computes=False)
