"""Compile the decoder's code, as a program of its own: `python -m slmc.backends.tvm.codegen --help`.

LLVM and TVM can die of a segmentation fault, which no `except` catches; `compile` starts this and
sees how it ended.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from slmc.backends.tvm.link import link
from slmc.backends.tvm.parameters import packed_shapes
from slmc.models.compiled import Kernels
from slmc.quant.reader import QuantizedReader


def generate(options: argparse.Namespace) -> None:
    import tvm

    from slmc.backends.tvm.decoder import Options, decoder_module

    with QuantizedReader(options.model) as reader:
        shapes = packed_shapes(reader)
        module = decoder_module(
            reader.architecture, Options(shapes, options.context, options.prefill_tokens, options.kernels)
        )
    target = tvm.target.Target({"kind": "llvm", "mtriple": options.triple, "mcpu": options.cpu})
    with target:
        executable = tvm.compile(module, target, relax_pipeline=_lowering())

    def link_objects(library: str, objects: list[str], **_: object) -> None:
        link([Path(name) for name in objects], options.triple, Path(library))

    with TemporaryDirectory() as workspace:
        executable.export_library(str(options.library), fcompile=link_objects, workspace_dir=workspace)


def _lowering() -> object:
    """From Relax to the virtual machine: the parts of TVM's default pipeline that apply to finished kernels."""
    import tvm
    from tvm.relax import transform

    return tvm.transform.Sequential(
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile a quantized decoder's code into a shared library.")
    parser.add_argument("--model", type=Path, required=True, help="the quantized checkpoint")
    parser.add_argument("--library", type=Path, required=True, help="what to write")
    parser.add_argument("--triple", required=True)
    parser.add_argument("--cpu", required=True, help="LLVM's name of the CPU level")
    parser.add_argument("--kernels", choices=get_args(Kernels), required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--prefill-tokens", type=int, required=True)
    options = parser.parse_args()
    try:
        generate(options)
    except Exception as error:
        traceback.print_exc()
        # TVM prints the whole module after its message; the end of what we print is what `compile` shows.
        sys.exit("\n".join([f"{type(error).__name__}:", *str(error).splitlines()[:10]]))


if __name__ == "__main__":
    main()
