"""Kernels to assembly, by TVM's own passes and LLVM.

TVM's default pipeline wraps each function in its calling convention and needs its runtime. The kernels are
finished schedules over plain pointers: what is left to do is to unroll, to simplify and to lower intrinsics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import tvm
from tvm.tirx import transform

from slmc.backends.tvm.kernels.levels import Level

_APPLES_DOT = re.compile(r"\b([su]dot|smmla)\.4s\tv(\d+), v(\d+), v(\d+)(\[\d\])?$")
"""LLVM writes these in Apple's way, which no assembler of its own reads; the usual way is read for Apple too."""


def assembly(level: Level, triple: str) -> str:
    """All kernels of a level for a triple, each a C function under its own name."""
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": level.cpu, "mattr": list(level.features)})
    passes: Iterable[tvm.transform.Pass] = [
        transform.BindTarget(target.with_host(target)),
        transform.FlattenBuffer(),
        transform.VectorizeLoop(True),
        transform.UnrollLoop(),
        transform.StmtSimplify(),
        transform.RemoveNoOp(),
        transform.LowerTVMBuiltin(),
        transform.LowerIntrin(),
    ]
    module = tvm.IRModule({kernel.attrs["global_symbol"]: kernel for kernel in level.kernels()})
    with target:
        lowered = tvm.transform.Sequential(passes)(module)
        text = tvm.get_global_func("target.build.llvm")(lowered, target).inspect_source("asm")
    return _plain(str(text))


def _plain(text: str) -> str:
    """Without what TVM tells a debugger, which names no line that was written by hand, and without its functions
    that convert float16, which no level needs: a CPU that holds float16 converts it.
    """
    kept, dropped = [], False
    for line in text.splitlines():
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if word in (".section", ".text"):
            dropped = any(name in line for name in (".debug_", "__DWARF", ".text.tvm.fp16.conv"))
        if not dropped and word not in (".loc", ".file", ".cfi_sections"):
            kept.append(_APPLES_DOT.sub(_usual_dot, line))
    return "\n".join(kept) + "\n"


def _usual_dot(found: re.Match[str]) -> str:
    name, result, left, right, lane = found.groups()
    width = f"4b{lane}" if lane else "16b"
    return f"{name}\tv{result}.4s, v{left}.16b, v{right}.{width}"
