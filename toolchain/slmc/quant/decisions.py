"""What becomes of each tensor: quantized with which scheme, or kept and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from slmc.architecture import MATRICES, Architecture, TensorSpec
from slmc.errors import QuantizationError, did_you_mean
from slmc.names import SCHEMES, Bits, Scheme


@dataclass(frozen=True)
class Decision:
    spec: TensorSpec
    scheme: Scheme | None
    """None for a tensor that is kept."""
    kept: str | None
    """Why; None for a quantized one."""
    gain: float | None = None
    """Nats a token that 8 bits rather than 4 are estimated to save, where that was measured."""


def decide(
    architecture: Architecture, scheme: Scheme, keep: Sequence[str], bits: Mapping[str, Bits] = MappingProxyType({})
) -> list[Decision]:
    """Linears, embedding and head are quantized, but for those that a pattern of `keep` names.

    `bits` names tensors whose codes have others than the scheme's. Raises QuantizationError for a
    pattern that matches nothing, and for a tensor whose columns the groups don't divide.
    """
    specs = list(architecture.tensors())
    for pattern in keep:
        if not any(fnmatch.fnmatchcase(spec.name, pattern) for spec in specs):
            raise QuantizationError(
                f"no tensor matches {pattern!r}",
                where="quantization.keep",
                expected="a tensor's name or a shell pattern for some",
                todo=did_you_mean(pattern, [spec.name for spec in specs if spec.role in MATRICES]),
            )
    decisions = [_decide(spec, scheme.with_bits(bits.get(spec.name, scheme.bits)), keep) for spec in specs]
    for decision in decisions:
        if decision.scheme is not None and decision.spec.shape[1] % scheme.group_size:
            raise _does_not_divide(decision.spec, scheme)
    return decisions


def _decide(spec: TensorSpec, scheme: Scheme, keep: Sequence[str]) -> Decision:
    if spec.role not in MATRICES:
        return Decision(spec, None, f"a {spec.role}")
    pattern = next((pattern for pattern in keep if fnmatch.fnmatchcase(spec.name, pattern)), None)
    return Decision(spec, scheme, None) if pattern is None else Decision(spec, None, f"the recipe keeps {pattern}")


def _does_not_divide(spec: TensorSpec, scheme: Scheme) -> QuantizationError:
    same_bits = (other for other in SCHEMES.values() if other.bits == scheme.bits)
    fitting = [other.name for other in same_bits if spec.shape[1] % other.group_size == 0]
    return QuantizationError(
        f"{spec.name} has {spec.shape[1]} columns, which groups of {scheme.group_size} do not divide",
        where="quantization.scheme",
        expected=f"a multiple of {scheme.group_size}",
        todo=f"use {fitting[-1]}" if fitting else f"add {spec.name!r} to quantization.keep",
    )
