"""The CPU levels that a library has kernels for, the best first, and all kernels of one.

At load the C side takes the first level of its architecture that the CPU has and whose activations the weight
file asks for; `int8` files may also run on a `float32` level, never the other way.
"""

from __future__ import annotations

from dataclasses import dataclass

from slmc.backends.tvm.kernels.activations import copied, gated, gelu_tanh, normalized, silu
from slmc.backends.tvm.kernels.attention import append, attend
from slmc.backends.tvm.kernels.dots import Dot, Float, Neon, PairsInt4, PairsInt8, Tile, Vnni
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
    queries: int
    """That one call of attention takes."""
    cache: str
    """dtype of keys and values: float32 beside float32 activations, which are there to be exact."""

    @property
    def format(self) -> Format:
        return self.dots[0].activations

    def dot(self, bits: Bits) -> Dot:
        return next(dot for dot in self.dots if dot.bits == bits)

    def kernels(self) -> list[PrimFunc]:
        def named(kernel: str) -> str:
            return f"slm_{self.name}_{kernel}"

        held = self.format
        found = [
            normalized(named("normalized"), held),
            gated(named("gated_silu"), held, silu),
            gated(named("gated_gelu"), held, gelu_tanh),
            copied(named("copied"), held),
            append(named("append"), self.cache),
            attend(named("attend"), self.cache, self.queries),
        ]
        for dot in self.dots:
            for many in (False, True):
                found.append(matmul(named(f"matmul{dot.bits}_{'many' if many else 'one'}"), dot, many))
        return found


_SIXTEEN_REGISTERS, _THIRTY_TWO_REGISTERS = Tile(TILE_ROWS, blocks=1, ahead=8), Tile(TILE_ROWS, blocks=4, ahead=8)
_FLOAT = (Float(4), Float(8))

LEVELS = (
    Level(
        name="avx512vnni",
        machine="x86_64",
        cpu="cascadelake",
        features=(),
        dots=(Vnni(4, _THIRTY_TWO_REGISTERS), Vnni(8, _THIRTY_TWO_REGISTERS)),
        queries=8,
        cache="float16",
    ),
    Level(
        name="avxvnni",
        machine="x86_64",
        cpu="alderlake",
        features=(),
        dots=(Vnni(4, _SIXTEEN_REGISTERS), Vnni(8, _SIXTEEN_REGISTERS)),
        queries=4,
        cache="float16",
    ),
    Level(
        name="avx2",
        machine="x86_64",
        cpu="x86-64-v3",
        features=(),
        dots=(PairsInt4(), PairsInt8()),
        queries=4,
        cache="float16",
    ),
    Level(name="avx2_exact", machine="x86_64", cpu="x86-64-v3", features=(), dots=_FLOAT, queries=4, cache="float32"),
    Level(name="sse2_exact", machine="x86_64", cpu="x86-64", features=(), dots=_FLOAT, queries=4, cache="float32"),
    Level(
        name="dotprod",
        machine="aarch64",
        cpu="generic",
        features=("+dotprod",),
        dots=(Neon(4), Neon(8)),
        queries=8,
        cache="float16",
    ),
    Level(name="neon_exact", machine="aarch64", cpu="generic", features=(), dots=_FLOAT, queries=8, cache="float32"),
)


def levels(machine: str) -> list[Level]:
    """Of a triple's machine, `arm64` being Apple's word for aarch64."""
    wanted = "aarch64" if machine.startswith(("aarch64", "arm64")) else machine
    return [level for level in LEVELS if level.machine == wanted]
