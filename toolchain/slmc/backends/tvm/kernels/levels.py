"""The CPU levels that a library has kernels for, the best first, and all kernels of one.

At load the C side takes the first level of its architecture that the CPU has and that is no less exact than the
weight file asks for, or the level that its caller names.
"""

from __future__ import annotations

from dataclasses import dataclass

from slmc.backends.tvm.kernels.activations import copied, gated, gelu_tanh, normalized, silu
from slmc.backends.tvm.kernels.attention import Tiling, append, attend
from slmc.backends.tvm.kernels.dots import Dot, Float, Neon, NeonMatrix, PairsInt4, PairsInt8, Tile, Vnni, WideVnni
from slmc.backends.tvm.kernels.formats import TILE_ROWS, Format
from slmc.backends.tvm.kernels.matmul import matmul
from slmc.backends.tvm.kernels.tir import PrimFunc
from slmc.names import Bits


@dataclass(frozen=True)
class Level:
    name: str
    """Also the prefix of its kernels' symbols."""
    machine: str
    """Of the triple: x86_64 or aarch64."""
    cpu: str
    """LLVM's name, the oldest CPU that has all of it."""
    features: tuple[str, ...]
    """LLVM's, beyond the CPU's."""
    dots: tuple[Dot, Dot]
    """For weights of 4 and of 8 bits; they take activations alike."""
    dots_of_many: tuple[Dot, Dot]
    """The same for many rows of activations."""
    attention: Tiling
    cache: str
    """dtype of keys and values: float32 beside float32 activations, which are there to be exact."""

    @property
    def format(self) -> Format:
        return self.dots[0].activations

    def dot(self, bits: Bits, many: bool) -> Dot:
        return next(dot for dot in (self.dots_of_many if many else self.dots) if dot.bits == bits)

    def kernels(self) -> list[PrimFunc]:
        def named(kernel: str) -> str:
            return f"slm_{self.name}_{kernel}"

        held = self.format
        found = [
            normalized(named("normalized"), held),
            gated(named("gated_silu"), held, silu),
            gated(named("gated_gelu"), held, gelu_tanh),
            copied(named("copied"), held),
            append(named("append"), self.cache, self.attention),
            attend(named("attend_few"), self.cache, self.attention, self.attention.few),
            attend(named("attend_many"), self.cache, self.attention, self.attention.many),
        ]
        found += [matmul(named(f"matmul{dot.bits}_one"), dot, many=False) for dot in self.dots]
        found += [matmul(named(f"matmul{dot.bits}_many"), dot, many=True) for dot in self.dots_of_many]
        return found


def _level(
    name: str,
    machine: str,
    cpu: str,
    dots: tuple[Dot, Dot],
    attention: Tiling,
    features: tuple[str, ...] = (),
    dots_of_many: tuple[Dot, Dot] | None = None,
) -> Level:
    cache = "float32" if dots[0].activations.activations == "float32" else "float16"
    return Level(name, machine, cpu, features, dots, dots_of_many or dots, attention, cache)


_SIXTEEN_REGISTERS, _THIRTY_TWO_REGISTERS = Tile(TILE_ROWS, blocks=1, ahead=8), Tile(TILE_ROWS, blocks=4, ahead=8)
_FLOAT, _NEON = (Float(4), Float(8)), (Neon(4), Neon(8))
_PAIRS = (PairsInt4(), PairsInt8())
_VNNI = (Vnni(4, _SIXTEEN_REGISTERS), Vnni(8, _SIXTEEN_REGISTERS))
_WIDE_VNNI = (WideVnni(4, _THIRTY_TWO_REGISTERS), WideVnni(8, _THIRTY_TWO_REGISTERS))
_MATRIX = (NeonMatrix(4), NeonMatrix(8))

_WIDE = Tiling(width=16, vectors=2, few=4, many=8)
_SIXTEEN = Tiling(width=8, vectors=2, few=2, many=4)
_THIRTY_TWO = Tiling(width=8, vectors=1, few=4, many=8)

LEVELS = (
    _level("avx512vnni", "x86_64", "cascadelake", _VNNI, _WIDE, dots_of_many=_WIDE_VNNI),
    _level("avxvnni", "x86_64", "alderlake", _VNNI, _SIXTEEN),
    _level("avx2", "x86_64", "x86-64-v3", _PAIRS, _SIXTEEN),
    _level("avx2_exact", "x86_64", "x86-64-v3", _FLOAT, _SIXTEEN),
    _level("sse2_exact", "x86_64", "x86-64", _FLOAT, _SIXTEEN),
    _level("i8mm", "aarch64", "generic", _NEON, _THIRTY_TWO, features=("+dotprod", "+i8mm"), dots_of_many=_MATRIX),
    _level("dotprod", "aarch64", "generic", _NEON, _THIRTY_TWO, features=("+dotprod",)),
    _level("neon_exact", "aarch64", "generic", _FLOAT, _THIRTY_TWO),
)


def levels(machine: str) -> list[Level]:
    """Of a triple's machine, `arm64` being Apple's word for aarch64."""
    wanted = "aarch64" if machine.startswith(("aarch64", "arm64")) else machine
    return [level for level in LEVELS if level.machine == wanted]
