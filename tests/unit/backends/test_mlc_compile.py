"""A whole folder for MLC's engines, its library made by a script in place of MLC-LLM's compiler."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.mlc.compile import Order, compile_model
from slmc.errors import CompileError
from slmc.mlc_llm import MlcLlm
from slmc.models.mlc import read_mlc, weights_digest
from slmc.names import TargetName
from slmc.prompt import Codec
from slmc.quant.reader import open_quantized
from slmc.recipe import Example

from .test_mlc_conversation import CHAT, codec
from .test_mlc_weights import ignore, quantized

COMPILER = """\
import json, pathlib, sys
config, library = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[-1])
shards = json.loads((config.parent / "tensor-cache.json").read_text())["records"]
params = [{key: one[key] for key in ("name", "shape", "dtype")} for shard in shards for one in shard["records"]]
chunk = json.loads(config.read_text())["prefill_chunk_size"]
library.write_text(json.dumps({"prefill_chunk_size": chunk, "params": params}))
"""
EXAMPLES = [Example("first", {"text": "hi"}, "yes")]
Compile = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path) -> QuantizedCheckpoint:
    with quantized(tmp_path) as reader:
        return open_quantized(reader.folder)


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """The folder that is made of a model."""

    def run(
        model: QuantizedCheckpoint,
        target: TargetName = "ios",
        context: int = 96,
        codec: Codec = CHAT,
        compiler: str = COMPILER,
    ) -> Path:
        program, out = tmp_path / "mlc_llm", tmp_path / "out"
        program.write_text(f"#!{sys.executable}\n{compiler}")
        program.chmod(0o755)
        out.mkdir()
        order = Order(
            target=target,
            name="small-1.0.0",
            context=context,
            chunk=128,
            activations="float16",
            memory=1000,
            codec=codec,
            examples=EXAMPLES,
            mlc_llm=MlcLlm(program, "0.20"),
        )
        compile_model(model, out, ignore, order)
        return out

    return run


def test_the_folder_holds_what_it_says(model: QuantizedCheckpoint, compiled: Compile) -> None:
    out = compiled(model)
    made = read_mlc(out)
    assert (made.model_id, made.model_lib) == ("small-1.0.0-q4f16_1-MLC", "slmc_small_1_0_0_q4f16_1")
    assert (made.library, made.library_by) == ("lib/slmc_small_1_0_0_q4f16_1.tar", "mlc_llm")
    assert (made.context, made.chunk, made.versions) == (96, 96, {"mlc_llm": "0.20"})
    assert made.weights_sha256 == weights_digest(out / made.model_id)
    package = json.loads((out / "mlc-package-config.json").read_text())
    [entry] = package["model_list"]
    assert (out / entry["model"] / "mlc-chat-config.json").is_file()
    assert (out / entry["model"] / "tokenizer.json").is_file()
    assert (out / package["model_lib_path_for_prepare_libs"][entry["model_lib"]]).is_file()
    assert "quantization_config" not in json.loads((out / "config.json").read_text())


def test_a_mac_has_a_library_to_load_and_no_package(model: QuantizedCheckpoint, compiled: Compile) -> None:
    out = compiled(model, "metal")
    assert (out / read_mlc(out).library).suffix == ".dylib"
    assert not (out / "mlc-package-config.json").exists()


def test_a_library_for_other_weights_is_refused(model: QuantizedCheckpoint, compiled: Compile) -> None:
    with pytest.raises(CompileError, match="has lm_head as float32"):
        compiled(
            model, compiler=COMPILER.replace("params}", 'params + [dict(name="lm_head", shape=[1], dtype="float32")]}')
        )


def test_a_prompt_that_the_engine_would_read_otherwise_is_refused(
    model: QuantizedCheckpoint, compiled: Compile
) -> None:
    with pytest.raises(CompileError, match="item 'first'"):
        compiled(model, codec=codec("{text}", special_tokens=True, template="$A <|end|>"))


def test_a_context_beyond_a_window_is_refused(tmp_path: Path, compiled: Compile) -> None:
    with quantized(tmp_path, "gemma3_text") as reader:
        gemma = open_quantized(reader.folder)
    with pytest.raises(CompileError, match="attend to the last 16 tokens, and the context has 17") as caught:
        compiled(gemma, context=17)
    assert "context: 16 or less" in str(caught.value.todo)


def test_a_context_within_the_window_is_compiled(tmp_path: Path, compiled: Compile) -> None:
    with quantized(tmp_path, "gemma3_text") as reader:
        gemma = open_quantized(reader.folder)
    assert read_mlc(compiled(gemma, context=16)).context == 16
