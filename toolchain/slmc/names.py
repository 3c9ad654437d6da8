"""The closed sets of names that recipes, targets and manifests share, and what a scheme's name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TargetName = Literal["host", "ios", "android", "metal"]
BackendName = Literal["executorch", "coreml", "tvm", "mlc"]
DelegateName = Literal["xnnpack", "vulkan", "coreml", "mlx", "qnn", "gpu", "ane"]
"""What runs a program's matrix products: a delegate of backend executorch, a unit of backend coreml."""
SchemeName = Literal["int4-g32", "int4-g64", "int4-g128", "int8-g32", "int8-g64", "int8-g128"]
MethodName = Literal["rtn", "gptq", "tuned", "imported"]
"""Whose codes a tensor has; those of a checkpoint that was quantized before are imported."""
Bits = Literal[4, 8]
Activations = Literal["int8", "float16", "float32"]
"""What compiled matmuls multiply weights by: 8-bit integers with scales found as the model runs, or what is there."""
ACTIVATIONS: Mapping[BackendName, tuple[Activations, ...]] = {"tvm": ("int8", "float32"), "mlc": ("float16", "float32")}
"""That a backend lets one choose from, the default first."""


@dataclass(frozen=True)
class Scheme:
    """Signed integers of some bits along the input axis, one positive bf16 scale for each group of them."""

    name: SchemeName
    bits: Bits
    group_size: int

    @property
    def lowest(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def bits_per_weight(self) -> float:
        """With the group's 16-bit scale."""
        return self.bits + 16 / self.group_size

    def with_bits(self, bits: Bits) -> Scheme:
        """The same groups with codes of other bits."""
        return next(s for s in SCHEMES.values() if (s.bits, s.group_size) == (bits, self.group_size))

    @property
    def wide(self) -> Scheme:
        return self.with_bits(8)


SCHEMES: Mapping[SchemeName, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("int4-g32", 4, 32),
        Scheme("int4-g64", 4, 64),
        Scheme("int4-g128", 4, 128),
        Scheme("int8-g32", 8, 32),
        Scheme("int8-g64", 8, 64),
        Scheme("int8-g128", 8, 128),
    )
}

BITS: Mapping[BackendName, frozenset[Bits]] = {
    "tvm": frozenset({4, 8}),
    "executorch": frozenset({4}),
    "coreml": frozenset({4, 8}),
    "mlc": frozenset({4}),
}
"""Widths of codes that a backend holds, side by side in one model."""
