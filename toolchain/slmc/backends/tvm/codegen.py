"""Compile all kernels for a triple, as a program of its own: `python -m slmc.backends.tvm.codegen TRIPLE FOLDER`.

LLVM and TVM can die of a segmentation fault, which no `except` catches; `library` starts this and sees how it
ended. Leaves an assembly file for each CPU level, its functions hidden from other libraries, and `slm_levels.h`,
by which the C side knows the levels.
"""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path

from slmc.backends.tvm.kernels.levels import Level, levels

HEADER = "slm_levels.h"
_CONVERSIONS = re.compile(r"\t\.globl\t___(?:truncsfhf2|extendhfsf2)\n.*?\t\.cfi_endproc\n", re.DOTALL)
"""TVM's functions that convert float16, for Apple's systems, where they don't have a section of their own.

Nothing here calls them. In an app they would stand for the compiler's own of these names, which take their
argument in another register.
"""


def generate(triple: str, folder: Path) -> None:
    from slmc.backends.tvm.kernels.lower import assembly

    found = levels(triple.partition("-")[0])
    for level in found:
        names = [str(kernel.attrs["global_symbol"]) for kernel in level.kernels()]
        # The assembler is told of the extensions that LLVM's own object writer would know of.
        allowed = "".join(f"\t.arch_extension {feature.removeprefix('+')}\n" for feature in level.features)
        kernels = _CONVERSIONS.sub("", assembly(level, triple))
        text = allowed + kernels + "".join(f"\t{_hidden(triple, name)}\n" for name in names)
        (folder / f"{level.name}.s").write_text(text, encoding="ascii")
    (folder / HEADER).write_text("".join(map(_entry, found)), encoding="ascii")


def _hidden(triple: str, name: str) -> str:
    """Assembly's word for a symbol that stays within the library."""
    return f".private_extern _{name}" if "-apple-" in triple else f".hidden {name}"


def _entry(level: Level) -> str:
    one, many = level.dots[0].one_row, level.dots_of_many[0].many_rows
    exact = int(level.format.activations == "float32")
    attention = (level.attention.positions, level.attention.few, level.attention.many)
    facts = (level.name, exact, *attention, many.blocks * 8, one.blocks * 8)
    return f"LEVEL({', '.join(map(str, facts))})\n"


def main() -> None:
    triple, folder = sys.argv[1:]
    try:
        generate(triple, Path(folder))
    except Exception as error:
        traceback.print_exc()
        # TVM prints the whole module after its message; the end of what we print is what `library` shows.
        sys.exit("\n".join([f"{type(error).__name__}:", *str(error).splitlines()[:10]]))


if __name__ == "__main__":
    main()
