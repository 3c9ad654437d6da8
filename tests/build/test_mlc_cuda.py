"""A model library's program compiled for CUDA: its source wherever there is TVM, and its logits where there is a GPU.

No app gets this: CUDA stands for GPUs that run their threads in earnest, which OpenCL on a CPU does not.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slmc.models.mlc import read_mlc
from slmc.names import Activations
from slmc.runners import mlc_engine

from .family_case import Case, quantized
from .in_process import programs
from .mlc_library import Cache, Library, check, settings
from .mlc_model import compiled, order
from .variants import VARIANTS

tvm = pytest.importorskip("tvm")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # of the libraries, and of CUDA's compiler
on_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and tvm.cuda(0).exist), reason="not run: needs a CUDA device"
)
some = pytest.mark.parametrize(
    "case", ["llama: older keys, linear rope", "qwen3: heads wider than hidden"], indirect=True, scope="module"
)
SHARES = {"float32": 1e-4, "float16": 2e-3}
"""Of the logits' range, that they may be off."""


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from pathlib import Path
import tvm
from slmc.backends.mlc.library.export import compiled
from slmc.backends.mlc.library.settings import Settings
folder, out, settings = sys.argv[1:]
target = tvm.target.Target({"kind": "cuda", "arch": "sm_90"}, host={"kind": "llvm"})
modules = list(compiled(Path(folder), Settings.model_validate_json(settings), target).mod.imports)
for module in modules:
    modules += module.imports
(found,) = (module for module in modules if module.kind == "cuda")
Path(out).write_text(found.inspect_source("cuda"))
"""
"""What TVM has for tensor cores takes two minutes to load among all of the tests' modules, and half a minute here."""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TVM asks NVRTC for machine code, by the package cuda-bindings; nvcc does as well."""
    bound = importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.bindings")
    if bound is None and shutil.which("nvcc"):
        monkeypatch.setenv("TVM_CUDA_COMPILE_MODE", "nvcc")
    with programs():
        yield


@pytest.mark.gpu
@on_gpu
@some
@pytest.mark.parametrize("activations", SHARES)
def test_kernels_give_transformers_logits(case: Case, activations: Activations, tmp_path: Path) -> None:
    """Chunks of several pages and tiles, and steps behind them. The logits they are held to are the CPU's."""
    from slmc.backends.mlc.library.export import compiled as in_memory

    made = compiled(case.model, tmp_path, order("host", activations))
    target = tvm.target.Target(tvm.target.Target.from_device("cuda"), host={"kind": "llvm"})
    machine = tvm.relax.VirtualMachine(in_memory(tmp_path, settings(tmp_path), target), tvm.cuda(0))
    weights = mlc_engine.load_weights(tvm, machine, tmp_path / read_mlc(tmp_path).model_id, "cuda")
    cache = Cache(Library(tmp_path, machine, weights, "cuda"))
    found = [cache.every(case.tokens[:100]), *(cache.step(token)[None] for token in case.tokens[100:120])]
    assert made.quantization == {"float32": "q4f32_1", "float16": "q4f16_1"}[activations]
    check(np.concatenate(found), case.logits[:120], SHARES[activations])


@pytest.mark.parametrize("activations", SHARES)
def test_compiles_without_a_device(activations: Activations, tmp_path: Path) -> None:
    """Sums are float32, those of tensor cores too, and nothing is TF32."""
    folder, out = tmp_path / "made", tmp_path / "source.cu"
    compiled(quantized(VARIANTS["llama: untied"], tmp_path), folder, order("host", activations))
    arguments = [str(folder), str(out), settings(folder).model_dump_json()]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    kernels = set(re.findall(r'^extern "C" __global__ void [^;{]*?(\w+)_kernel\([^;{]*\{', text, re.MULTILINE))
    assert {"norm", "batch_prefill_paged_kv", "attention_merge", "apply_bitmask_inplace"} <= kernels
    assert [name for name in kernels if name.startswith("q4_product")]
    assert [name for name in kernels if re.fullmatch(r"fused_q4_product\d*_add\d*", name)]
    sums = set(re.findall(r"wmma::accumulator, \d+, \d+, \d+, (\w+)>", text))
    assert sums == ({"float"} if activations == "float16" else set())
    assert "tf32" not in text.lower()
