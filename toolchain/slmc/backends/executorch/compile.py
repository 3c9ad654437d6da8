"""Export a quantized checkpoint into a folder: model.pte, and model.json, which says what it holds.

The same program runs on Android, iOS and here: XNNPACK has kernels for each.
"""

from __future__ import annotations

import json
from pathlib import Path

from slmc import digest
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.backends.executorch.profiles import PROFILES, check_delegate
from slmc.backends.executorch.tools import versions
from slmc.config_json import read_config
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.models.exported import FOUNDATION, PROGRAM, Delegation, ExportedDecoder, write_exported
from slmc.names import DelegateName
from slmc.quant.reader import QuantizedReader

_GROUP_MULTIPLE = 32


def compile_model(
    model: QuantizedCheckpoint,
    out: Path,
    advance: Advance,
    *,
    context: int,
    end_id: int,
    delegate: DelegateName = "xnnpack",
) -> None:
    """Write program and model.json into the empty folder `out`; `advance` counts weights.

    `end_id` is the token that ends an answer. Raises CompileError for a tensor or a model that the delegate can't
    hold and where ExecuTorch fails, MissingToolError for what a delegate lacks.
    """
    _check(model)
    check_delegate(delegate, model.architecture, context)
    profile, facts = PROFILES[delegate], _facts(model, context, end_id, delegate)
    path = out / PROGRAM
    wanted = [str(model.folder), str(context), json.dumps(facts), str(path), delegate]
    for told in child.lines("executorch.export", wanted):
        if "weights" in told:
            advance(told["weights"])
        else:
            described = told
    outside, foundation = described["outside"], out / FOUNDATION
    exported = ExportedDecoder(
        program_sha256=digest.of_file(path),
        foundation_sha256=digest.of_file(foundation) if foundation.is_file() else None,
        delegation=Delegation(
            delegate=delegate,
            graphs=described["graphs"],
            outside=outside,
            unexpected={name: count for name, count in outside.items() if name not in profile.outside},
        ),
        one_token=profile.one_token,
        vocab_size=model.architecture.vocab_size,
        context=context,
        versions=versions(),
    )
    write_exported(out, exported)


def _check(model: QuantizedCheckpoint) -> None:
    with QuantizedReader(model.folder) as reader:
        for spec in model.architecture.tensors():
            if len(spec.shape) < 2:
                continue
            if not reader.is_quantized(spec.name) or reader.scheme(spec.name).bits != 4:
                raise CompileError(
                    f"{spec.name} is not in 4 bits, which is all that XNNPACK's grouped kernels take",
                    where=model.folder,
                    expected="every embedding, head and linear in 4 bits",
                    todo="take it out of quantization.keep, and leave budget, max_size_mb, embedding and head out",
                )
        assert reader.group_size % _GROUP_MULTIPLE == 0


def _facts(model: QuantizedCheckpoint, context: int, end_id: int, delegate: DelegateName) -> dict[str, object]:
    """What ExecuTorch's own runners ask a program for (extension/llm/runner/constants.h)."""
    config = read_config(model.folder)
    ends = config.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    begin = config.get("bos_token_id")
    return {
        "get_max_seq_len": context,
        "get_max_context_len": context,
        "get_vocab_size": model.architecture.vocab_size,
        "get_n_layers": model.architecture.layers,
        "get_bos_id": begin if isinstance(begin, int) else end_id,
        "get_eos_ids": sorted({end_id, *(one for one in listed if isinstance(one, int))}),
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": delegate in ("xnnpack", "vulkan"),
        "enable_dynamic_shape": not PROFILES[delegate].one_token,
    }
