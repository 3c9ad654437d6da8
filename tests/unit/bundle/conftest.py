"""A whole bundle around a file that stands for a compiled model."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmc.artifacts import CompiledModel, QuantizedCheckpoint
from slmc.bundle.golden import GoldenItem
from slmc.bundle.manifest import BuiltWith, Manifest, Memory, Origins, Quantized
from slmc.bundle.pack import Content, pack
from slmc.plan import resolve
from slmc.prompt import compile_prompt
from slmc.recipe import load_recipe
from slmc.target import load_target


@pytest.fixture
def content(recipe_folder: Path, tmp_path: Path) -> Content:
    recipe = load_recipe(recipe_folder)
    examples = recipe.examples("eval.jsonl")
    codec = compile_prompt(recipe, recipe_folder / "base", examples)
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    (compiled / "weights.bin").write_bytes(bytes(range(256)))
    (compiled / ".stage.json").write_text("the store's own")
    golden = []
    for example in examples:
        text, ids = codec.prompt(example.fields)
        golden.append(
            GoldenItem(
                id=example.id,
                fields=example.fields,
                prompt=text,
                input_ids=tuple(ids),
                expected=example.answer,
                reference=None,
            )
        )
    architecture = resolve(recipe, load_target("host")).architecture
    return Content(
        compiled=CompiledModel(compiled, "tvm", "host", "d"),
        quantized=QuantizedCheckpoint(recipe_folder / "base", architecture, "d"),
        codec=codec,
        golden=golden,
        task=None,
        guide=None,
    )


@pytest.fixture
def manifest(recipe_folder: Path) -> Manifest:
    return Manifest(
        name="small",
        version="1.0.0",
        target="host",
        backend="tvm",
        minimum_os="any",
        context=64,
        artifact="model",
        tokenizer="tokenizer",
        labels=("yes", "no"),
        files={},
        origins=Origins(recipe="r", target="t", data={}, stages={}),
        built_with=BuiltWith(slmc="0", code="c", tools={}),
        quantization=Quantized(scheme="int4-g32", method="rtn", bits=4.5, tensors=()),
        memory=Memory(weights=1, kv_cache=1, activations=1, fits=()),
        recipe=load_recipe(recipe_folder).recipe,
    )


@pytest.fixture
def bundle(content: Content, manifest: Manifest, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    pack(content, manifest, folder)
    return folder
