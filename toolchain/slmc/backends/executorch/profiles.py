"""What the delegates are, without loading any of them."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slmc.architecture import MATRICES, Architecture
from slmc.errors import CompileError, MissingToolError
from slmc.names import DelegateName

_QNN_SDK = "Qualcomm AI Engine Direct SDK (QNN)"


@dataclass(frozen=True)
class Profile:
    title: str
    systems: frozenset[str]
    """As `platform.system()` says, where ExecuTorch's Python package runs it."""
    outside: frozenset[str] = frozenset()
    """Operators that stand outside the delegate on purpose: none of them multiplies by a weight."""
    one_token: bool = False
    """It takes one token a call."""
    windows: bool = True
    """It takes a sliding window that is shorter than the context."""
    rows: int = 1
    """It takes matrices whose rows are a multiple of so many."""
    check: Callable[[], None] = field(default=lambda: None)
    """Raises MissingToolError or CompileError where it can't be built for here."""

    @property
    def runs_here(self) -> bool:
        return platform.system() in self.systems


def check_delegate(name: DelegateName, architecture: Architecture, context: int) -> None:
    """Raises CompileError or MissingToolError where a program can't be built for a delegate."""
    profile = PROFILES[name]
    profile.check()
    windows = [kind.window for kind in architecture.layer_kinds if kind.window is not None]
    if not profile.windows and any(window < context for window in windows):
        raise CompileError(
            f"delegate {name} has no sliding windows, and the model's is of {min(windows)} tokens",
            expected=f"a context of at most {min(windows)} tokens",
            todo="set targets.<target>.context in the recipe, or take --delegate xnnpack",
        )
    for spec in architecture.tensors():
        if spec.role in MATRICES and spec.shape[0] % profile.rows:
            raise CompileError(
                f"{spec.name} has {spec.shape[0]} rows, which delegate {name} can't hold",
                expected=f"a multiple of {profile.rows}",
                todo="take --delegate xnnpack",
            )


def _check_coreml() -> None:
    if importlib.util.find_spec("coremltools") is None:
        raise MissingToolError("delegate coreml needs coremltools", todo="pip install 'slmc[executorch,coreml]'")


def _check_qnn() -> None:
    root = os.environ.get("QNN_SDK_ROOT")
    if root is None or not Path(root).is_dir():
        raise MissingToolError(
            f"delegate qnn needs the {_QNN_SDK}, which ExecuTorch's package does not carry",
            expected="QNN_SDK_ROOT naming its folder on x86-64 Linux, its lib/x86_64-linux-clang in LD_LIBRARY_PATH",
            todo="get it from Qualcomm's software center (ExecuTorch 1.5.1 was made for 2.37.0), or take another "
            "delegate: vulkan or xnnpack",
        )
    raise CompileError(
        "delegate qnn is declared, but this version of slmc can't build for it",
        todo="take another delegate: vulkan or xnnpack",
    )


_XNNPACK_OUTSIDE = frozenset(
    {
        *("llama::update_cache", "llama::custom_sdpa", "quantized_decomposed::embedding_4bit"),
        *("aten::slice_copy", "aten::unsqueeze_copy", "aten::select_copy", "aten::sym_size"),
        *("aten::_local_scalar_dense", "executorch_prim::et_view", "executorch_prim::add"),
        # a sliding window's mask
        *("aten::arange", "aten::_to_copy", "aten::scalar_tensor", "aten::add", "aten::sub"),
        *("aten::le", "aten::gt", "aten::bitwise_and", "aten::where"),
    }
)

PROFILES: Mapping[DelegateName, Profile] = {
    "xnnpack": Profile("XNNPACK, on the CPU", frozenset({"Linux", "Darwin", "Windows"}), outside=_XNNPACK_OUTSIDE),
    "vulkan": Profile("Vulkan, on Android's GPUs", frozenset(), windows=False, rows=4),
    "coreml": Profile("Core ML", frozenset({"Darwin"}), one_token=True, check=_check_coreml),
    "mlx": Profile("MLX, on a Mac's GPU", frozenset({"Darwin"}), windows=False),
    "qnn": Profile("Qualcomm's Hexagon, through QNN", frozenset(), check=_check_qnn),
}
