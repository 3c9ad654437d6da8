"""A bundle's README: the prompt that it tells an app to write, and the packages that it names."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
from hypothesis import given
from hypothesis import strategies as st

from slmc.backends.executorch.tools import TESTED
from slmc.backends.mlc.conversation import message_of
from slmc.backends.mlc.package import write_package_config
from slmc.bundle.manifest import Manifest
from slmc.describe import make_golden
from slmc.guide import KOTLIN, PYTHON, SWIFT, make_guide, message_expression, prompt_expression
from slmc.models.exported import Delegation, write_exported
from slmc.models.mlc import CHAT_CONFIG, MlcDecoder, write_mlc
from slmc.models.packaged import PackagedDecoder, write_packaged
from slmc.names import DelegateName, TargetName
from slmc.plan import Options, resolve
from slmc.prompt import PromptFormat, compile_prompt
from slmc.recipe import load_recipe
from slmc.target import load_target

from .artifacts import exported
from .bundle.conftest import manifest as small_manifest

manifest = small_manifest
"""A fixture."""

texts = st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=20)


def form(prefix: str, message: str, suffix: str, *, trim: bool) -> PromptFormat:
    return PromptFormat(
        prefix=prefix,
        message=message,
        suffix=suffix,
        trim=trim,
        answer_prefix="",
        special_tokens=False,
        end_token="e",
        end_id=1,
    )


@given(texts, texts, texts, texts, st.booleans(), texts)
def test_the_expression_is_the_prompt(prefix: str, before: str, after: str, suffix: str, trim: bool, text: str) -> None:
    """Strings and sums are written alike in Python, but for what trims and for halves of surrogate pairs."""
    message = "{text}".join(part.replace("{", "{{").replace("}", "}}") for part in (before, after))
    asked = form(prefix, message, suffix, trim=trim)
    expression = prompt_expression(asked, KOTLIN).replace(".trim()", ".strip()")
    found = eval(expression, {"text": text}).encode("utf-16", "surrogatepass").decode("utf-16")
    assert found == asked.render({"text": text})


def test_what_a_language_escapes() -> None:
    asked = form('$5 "\\\x1b', "{text}", "\n\U000e0001", trim=False)
    assert prompt_expression(asked, KOTLIN) == r'"\$5 \"\\\u001b" + text + "\n\udb40\udc01"'
    assert prompt_expression(asked, SWIFT) == r'"$5 \"\\\u{1b}" + text + "\n\u{e0001}"'


@pytest.mark.parametrize(
    ("target", "delegate", "named"),
    [
        ("android", "xnnpack", [f"org.pytorch:executorch-android:{TESTED}", "LlmModule"]),
        ("android", "vulkan", [f"org.pytorch:executorch-android-vulkan:{TESTED}"]),
        ("ios", "xnnpack", [f'branch: "swiftpm-{TESTED}"', "`backend_xnnpack`", "TextRunner", "-all_load"]),
        ("ios", "coreml", ["`backend_coreml`", "iOS 18"]),
        ("metal", "mlx", ["`backend_mlx`"]),
    ],
)
def test_a_guide_names_its_packages(
    recipe_folder: Path,
    manifest: Manifest,
    tmp_path: Path,
    target: TargetName,
    delegate: DelegateName,
    named: list[str],
) -> None:
    plan = resolve(load_recipe(recipe_folder), load_target(target), Options("executorch", delegate=delegate))
    codec = compile_prompt(
        plan.recipe, recipe_folder / "base", plan.recipe.examples(plan.recipe.recipe.data.evaluation)
    )
    golden = make_golden(plan, codec, None)
    delegation = Delegation(delegate=delegate, graphs=1, outside={}, unexpected={})
    changed = {"target": target, "backend": "executorch", "delegation": delegation}
    write_exported(tmp_path, exported(delegation))
    found = make_guide(manifest.model_copy(update=changed), tmp_path, codec, golden)
    assert found is not None
    for text in [*named, golden[0].prompt, "Not run on a device"]:
        assert text in found
    read_by_parsers(found)


@pytest.mark.parametrize(("delegate", "unit"), [("gpu", ".cpuAndGPU"), ("ane", ".cpuAndNeuralEngine")])
def test_a_guide_to_core_ml_names_functions_and_units(
    recipe_folder: Path, manifest: Manifest, tmp_path: Path, delegate: DelegateName, unit: str
) -> None:
    plan = resolve(load_recipe(recipe_folder), load_target("ios"), Options("coreml", delegate=delegate))
    examples = plan.recipe.examples(plan.recipe.recipe.data.evaluation)
    codec = compile_prompt(plan.recipe, recipe_folder / "base", examples)
    golden = make_golden(plan, codec, None)
    changed = {"target": "ios", "backend": "coreml", "delegate": delegate}
    packaged = PackagedDecoder(package_sha256="0" * 64, delegate="gpu", vocab_size=1, context=64, chunk=48, versions={})
    write_packaged(tmp_path, packaged)
    found = make_guide(manifest.model_copy(update=changed), tmp_path, codec, golden)
    assert found is not None
    for text in (unit, '"prefill"', "count: 48 - ids.count", golden[0].prompt, f"token {codec.end_id}"):
        assert text in found
    read_by_parsers(found)


@given(texts, texts, st.booleans(), texts)
def test_the_message_is_what_mlc_is_handed(before: str, after: str, trim: bool, text: str) -> None:
    """For one field around which the recipe writes, for one that stands twice, and for two."""
    around = [part.replace("{", "{{").replace("}", "}}") for part in (before, after)]
    for middle in ("{text}", "{text} {text}", "{text}{other}"):
        asked, fields = form("p", middle.join(around), "s", trim=trim), {"text": f" {text} ", "other": "o "}
        assert eval(message_expression(asked, PYTHON), dict(fields)) == message_of(asked, fields)


def test_a_message_for_mlc_in_an_apps_language() -> None:
    bare, two = form("p", "{text}", "s", trim=True), form("p", "{first}: {text}", "s", trim=True)
    assert message_expression(bare, KOTLIN) == "text.trim()"
    assert message_expression(bare, SWIFT) == "text.trimmingCharacters(in: .whitespacesAndNewlines)"
    assert message_expression(form("p", "{text}", "s", trim=False), SWIFT) == "text"
    assert message_expression(two, KOTLIN) == '(first + ": " + text).trim()'
    assert message_expression(two, SWIFT) == '(first + ": " + text).trimmingCharacters(in: .whitespacesAndNewlines)'
    assert message_expression(form("p", "Sort: {text}", "s", trim=True), KOTLIN) == '("Sort: " + text).trim()'
    assert message_expression(form("p", "Sort: {text}", "s", trim=False), KOTLIN) == "text"


LINES: dict[TargetName, list[str]] = {
    "ios": [
        '"bundle/small-q4f16_1-MLC"',
        'modelLib: "slmc_small")',
        "let message = text.trimmingCharacters",
        "max_tokens: 4\n",
        "-lmodel_iphone",
        "--package-config mlc-package-config.json",
    ],
    "android": [
        '"small-q4f16_1-MLC")',
        '"slmc_small")',
        "val message = text.trim()",
        "max_tokens = 4\n",
        "libOpenCL.so",
        "--package-config mlc-package-config.json",
    ],
    "metal": [
        'folder / "small-q4f16_1-MLC"',
        'folder / "lib/slmc_small.dylib"',
        "message = text.strip()",
        "max_tokens=4,",
        'device="metal"',
    ],
}


@pytest.mark.parametrize("target", LINES)
def test_a_guide_to_mlc_names_its_files_and_lines(
    recipe_folder: Path, manifest: Manifest, tmp_path: Path, target: TargetName
) -> None:
    artifact = mlc_artifact(tmp_path / "artifact", target)
    found = mlc_guide(recipe_folder, manifest, artifact, target)
    table = re.findall(r"^\| `model/(.*?)` \|", found, re.MULTILINE)
    held = {path.relative_to(artifact).as_posix() for path in [*artifact.iterdir(), *artifact.glob("lib/*")]}
    assert sorted(table) == sorted(held - {"lib"})
    for text in [*LINES[target], "TVM 9.9 ", "`TVMFFIHandleInitOnce`", "a float16 scale", "Not run on a device"]:
        assert text in found
    read_by_parsers(found)


def test_a_guide_to_mlc_tells_who_compiled_the_library(recipe_folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    made = {"library_by": "mlc_llm", "versions": {"mlc_llm": "8.8"}, "quantization": "q4f32_1"}
    artifact = mlc_artifact(tmp_path / "artifact", "ios", made)
    found = mlc_guide(recipe_folder, manifest, artifact, "ios")
    assert "mlc_llm 8.8 compiled the library" in found
    assert "q4f32_1 (4 bits, a float32 scale" in found
    assert "TVMFFIHandleInitOnce" not in found


def mlc_artifact(folder: Path, target: TargetName, changed: Mapping[str, object] | None = None) -> Path:
    """Its files are empty, but for those that the guide or a packager reads."""
    name, library = "small-q4f16_1-MLC", f"lib/slmc_small{'.dylib' if target == 'metal' else '.tar'}"
    for path in (f"{name}/{CHAT_CONFIG}", library, "config.json"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    write_package_config(folder, target, name, "slmc_small", library, 1)
    made = MlcDecoder(
        model_id=name,
        model_lib="slmc_small",
        library=library,
        library_sha256="0" * 64,
        library_by="slmc",
        weights_sha256="0" * 64,
        quantization="q4f16_1",
        vocab_size=1,
        context=64,
        chunk=48,
        versions={"apache-tvm": "9.9"},
    )
    write_mlc(folder, made.model_copy(update=changed))
    return folder


def mlc_guide(recipe_folder: Path, manifest: Manifest, artifact: Path, target: TargetName) -> str:
    plan = resolve(load_recipe(recipe_folder), load_target(target), Options("mlc"))
    examples = plan.recipe.examples(plan.recipe.recipe.data.evaluation)
    codec = compile_prompt(plan.recipe, recipe_folder / "base", examples)
    golden = make_golden(plan, codec, None)
    found = make_guide(manifest.model_copy(update={"target": target, "backend": "mlc"}), artifact, codec, golden)
    assert found is not None
    assert golden[0].prompt in found
    return found


def read_by_parsers(guide: str) -> None:
    blocks = re.findall(r"```(kotlin|swift|python)\n(.*?)```", guide, re.DOTALL)
    assert blocks
    for kind, code in blocks:
        if kind == "python":
            ast.parse(code)
        else:
            assert not mistakes(code, {"kotlin": tree_sitter_kotlin, "swift": tree_sitter_swift}[kind])


def mistakes(code: str, language: ModuleType) -> list[bytes]:
    """What a real parser of the language can't read."""
    parser, found = tree_sitter.Parser(tree_sitter.Language(language.language())), []
    left = [parser.parse(code.encode()).root_node]
    while left:
        node = left.pop()
        if node.is_error or node.is_missing:
            found.append(code.encode()[node.start_byte : node.end_byte])
        left += node.children
    return found


def test_the_parsers_see_mistakes() -> None:
    assert mistakes("val a = ", tree_sitter_kotlin)
    assert mistakes("let a = (", tree_sitter_swift)
