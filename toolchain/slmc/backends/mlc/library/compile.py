"""From a decoder's module to a library: fusion, schedules, memory, metadata, code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from slmc.backends.mlc.library.decoder import SEQUENCES, TOKENS
from slmc.backends.mlc.library.sampling import sampling_functions
from slmc.backends.mlc.library.schedule import schedule


def compile_module(
    module: tvm.IRModule, target: tvm.target.Target, metadata: Mapping[str, Any], prefix: str | None = None
) -> relax.VMExecutable:
    """With `prefix` it registers its functions under it where an app loads it.

    `metadata` is told to the engine by `_metadata`, with the memory that each function takes.
    """
    on_gpu = target.kind.name != "llvm"
    bounds = {TOKENS: metadata["prefill_chunk_size"], SEQUENCES: metadata["max_batch_size"]}
    if prefix is not None:
        module = module.with_attr("system_lib_prefix", prefix)
    with target:
        module = _fused(module)
        for name, function in sampling_functions(on_gpu).items():
            module[name] = function
        module = schedule(module, target)
        if target.kind.name in ("metal", "opencl"):  # where 64 bits take several instructions
            module = tvm.tirx.transform.ForceNarrowIndexToInt32()(module)
        module = _bounded(module, bounds)
        module = _planned(module)
        module = _with_metadata(module, dict(metadata) | {"memory_usage": _memory(module)})
        module = _finished(module)
    with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        return relax.build(module, target, relax_pipeline=None, system_lib=prefix is not None)


def _fused(module: tvm.IRModule) -> tvm.IRModule:
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.LegalizeOps(),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
        ]
    )(module)


def _bounded(module: tvm.IRModule, bounds: Mapping[str, int]) -> tvm.IRModule:
    """Each Relax function told how large its sizes become, so that its memory can be planned."""
    for name, function in module.functions.items():
        if isinstance(function, relax.Function):
            module[name] = function.with_attr("tir_var_upper_bound", dict(bounds))
    return module


def _planned(module: tvm.IRModule) -> tvm.IRModule:
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.RewriteDataflowReshape(),
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
        ]
    )(module)


def _finished(module: tvm.IRModule) -> tvm.IRModule:
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )(module)


def _memory(module: tvm.IRModule) -> dict[str, int]:
    """Bytes that each function's planned storage takes."""
    found: dict[str, int] = {}
    for name, function in module.functions.items():
        if isinstance(function, relax.Function):
            found[name.name_hint] = _storage(function)
    return found


def _storage(function: relax.Function) -> int:
    total = 0

    def visit(node: Any) -> None:
        nonlocal total
        if isinstance(node, relax.Call) and node.op == tvm.ir.Op.get("relax.memory.alloc_storage"):
            total += int(node.args[0].values[0])

    relax.analysis.post_order_visit(function.body, visit)
    return total


def _with_metadata(module: tvm.IRModule, metadata: Mapping[str, Any]) -> tvm.IRModule:
    builder = relax.BlockBuilder(module)
    with builder.function("_metadata", []):
        builder.emit_func_output(tvm.ir.StringImm(json.dumps(metadata)))
    return builder.finalize()
