"""A quantized checkpoint into a folder for MLC-LLM's engines.

model.json                 what the folder holds, see `slmc.models.mlc`
config.json                the checkpoint's own, from which a library for another system can be compiled
<model_id>/                weights, mlc-chat-config.json and tokenizer: the folder that an engine is given
lib/<model_lib>.tar        objects for an app's linker; for a Mac lib/<model_lib>.dylib
mlc-package-config.json    for `mlc_llm package`, where the app is a phone's
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc import digest
from slmc.architecture import Architecture
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.backends.mlc.config import write_chat_config
from slmc.backends.mlc.conversation import check_conversation, conversation
from slmc.backends.mlc.described import check_library
from slmc.backends.mlc.driver import compile_library
from slmc.backends.mlc.library.settings import Settings
from slmc.backends.mlc.package import write_package_config
from slmc.backends.mlc.tensors import FORMATS
from slmc.backends.mlc.weights import Written, write_weights
from slmc.backends.tvm.tools import versions
from slmc.config_json import read_config
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.imported import CONFIG_KEY
from slmc.mlc_llm import MlcLlm
from slmc.models.mlc import MlcDecoder, weights_digest, write_mlc
from slmc.names import Activations, TargetName
from slmc.prompt import TOKENIZER_FILE, Codec
from slmc.quant.reader import QuantizedReader
from slmc.recipe import Example

_SECONDS = 1800
"""That a compiler may take for a library; ours takes half a minute for 1B."""
_SUFFIXES: dict[TargetName, str] = {"metal": ".dylib", "host": ".so"}
"""Of libraries that are loaded; those of phones are linked into the app."""


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    target: TargetName
    name: str
    """Of the model, such as "intent-router-1.0.0"."""
    context: int
    chunk: int
    """Tokens that one call of prefill takes at most."""
    activations: Activations
    memory: int
    """Bytes, as foretold."""
    codec: Codec
    examples: Sequence[Example]
    """Whose prompts the engine must read as the recipe does."""
    mlc_llm: MlcLlm | None
    """What compiles the library; None for slmc's own compiler."""


def compile_model(model: QuantizedCheckpoint, out: Path, advance: Advance, order: Order) -> None:
    """Write everything into the empty folder `out`; `advance` counts weights.

    Raises CompileError for windows and scales that the format does not have, for prompts that the engine would read
    otherwise, and where a compiler fails.
    """
    _check_windows(model.architecture, order.context, model.folder)
    form = FORMATS[order.activations]
    model_id = f"{order.name}-{form}-MLC"
    model_lib = "slmc_" + re.sub(r"[^A-Za-z0-9]", "_", f"{order.name}_{form}")
    library = out / "lib" / f"{model_lib}{_SUFFIXES.get(order.target, '.tar')}"
    (out / model_id).mkdir()
    library.parent.mkdir()
    template = conversation(order.codec)
    check_conversation(order.codec, template, order.examples, model.folder)
    with QuantizedReader(model.folder) as reader:
        written = write_weights(reader, form, out / model_id, advance)
    chunk = min(order.chunk, order.context)
    _write_tokenizer(order.codec, model.folder, out / model_id)
    write_chat_config(model.architecture, form, order.context, chunk, template, out / model_id)
    _write_architecture(model.folder, out)
    settings = Settings(
        target=order.target, form=form, context=order.context, chunk=chunk, model_id=model_id, name=model_lib
    )
    tools = _library(out, order.mlc_llm, settings, library)
    check_library(library, written.tensors, model.architecture.vocab_size, chunk)
    where = library.relative_to(out).as_posix()
    write_package_config(out, order.target, model_id, model_lib, where, order.memory)
    write_mlc(out, _describe(model.architecture, written, settings, library, tools, order.mlc_llm))


def _library(out: Path, tool: MlcLlm | None, settings: Settings, library: Path) -> dict[str, str]:
    """Compile it; the versions of what did."""
    if tool is not None:
        compile_library(tool, out / settings.model_id, settings.target, settings.name, library, _SECONDS)
        return {"mlc_llm": tool.version}
    child.run("mlc.library.export", [str(out), str(library), settings.model_dump_json()], seconds=_SECONDS)
    return versions()


def _describe(
    a: Architecture,
    written: Written,
    settings: Settings,
    library: Path,
    tools: dict[str, str],
    tool: MlcLlm | None,
) -> MlcDecoder:
    return MlcDecoder(
        model_id=settings.model_id,
        model_lib=settings.name,
        library=f"lib/{library.name}",
        library_sha256=digest.of_file(library),
        library_by="slmc" if tool is None else "mlc_llm",
        weights_sha256=weights_digest(library.parent.parent / settings.model_id),
        quantization=settings.form,
        rounded_scales=written.rounded_scales,
        vocab_size=a.vocab_size,
        context=settings.context,
        chunk=settings.chunk,
        versions=tools,
    )


def _check_windows(a: Architecture, context: int, folder: Path) -> None:
    """MLC's cache knows one window for all layers, of 1024."""
    narrow = [kind.window for kind in a.layer_kinds if kind.window is not None and kind.window < context]
    if narrow:
        raise CompileError(
            f"layers attend to the last {narrow[0]} tokens, and the context has {context}",
            where=folder / "config.json",
            todo=f"set context: {narrow[0]} or less for the target, or take another backend",
        )


def _write_architecture(source: Path, out: Path) -> None:
    config = {key: value for key, value in read_config(source).items() if key != CONFIG_KEY}
    (out / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_tokenizer(codec: Codec, source: Path, folder: Path) -> None:
    """As the codec has it: what would truncate or pad is out."""
    codec.write_tokenizer(folder / TOKENIZER_FILE)
    config = source / "tokenizer_config.json"
    if config.is_file():
        shutil.copyfile(config, folder / config.name)
