"""A bundle's README: the prompt that it tells an app to write, and the packages that it names."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
from hypothesis import given
from hypothesis import strategies as st

from slmc.backends.executorch.tools import TESTED
from slmc.bundle.manifest import Manifest
from slmc.describe import make_golden
from slmc.guide import KOTLIN, SWIFT, make_guide, prompt_expression
from slmc.models.exported import Delegation, write_exported
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


def read_by_parsers(guide: str) -> None:
    blocks = re.findall(r"```(kotlin|swift)\n(.*?)```", guide, re.DOTALL)
    assert blocks
    for kind, code in blocks:
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
