"""A bundle's README: the prompt that it tells an app to write, and the packages that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.backends.executorch.tools import TESTED
from slmc.bundle.manifest import Manifest
from slmc.describe import make_golden
from slmc.guide import _expression, make_guide
from slmc.models.exported import Delegation, write_exported
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


@given(texts, texts, texts, texts, st.booleans(), texts)
def test_the_expression_is_the_prompt(prefix: str, before: str, after: str, suffix: str, trim: bool, text: str) -> None:
    """Strings and sums are written alike in Python."""
    message = "{text}".join(part.replace("{", "{{").replace("}", "}}") for part in (before, after))
    form = PromptFormat(
        prefix=prefix,
        message=message,
        suffix=suffix,
        trim=trim,
        answer_prefix="",
        special_tokens=False,
        end_token="e",
        end_id=1,
    )
    assert eval(_expression(form, ".strip()", {}), {"text": text}) == form.render({"text": text})


def test_kotlin_s_templates_are_escaped() -> None:
    form = PromptFormat(
        prefix="$5 ",
        message="{text}",
        suffix="",
        trim=False,
        answer_prefix="",
        special_tokens=False,
        end_token="e",
        end_id=1,
    )
    assert _expression(form, "", {"$": "\\$"}) == '"\\$5 " + text'


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
