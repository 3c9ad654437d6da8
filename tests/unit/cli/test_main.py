from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from slmc import errors
from slmc.cli.main import VERBS, cli


def slmc(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "slmc", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    shown = CliRunner().invoke(cli, [verb, "--help"])
    assert shown.exit_code == 0
    assert shown.output.startswith(f"Usage: cli {verb}")


def test_help_imports_no_verb() -> None:
    code = (
        "import sys; from slmc.cli.main import cli; cli.main(['--help'], standalone_mode=False); "
        "assert not {'pydantic', 'numpy', 'rich', 'torch', 'tvm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


def test_a_named_failure_is_told_once_with_its_own_exit_code(recipe_folder: Path) -> None:
    (recipe_folder / "recipe.yaml").write_text("name: [")
    done = slmc("plan", str(recipe_folder))
    assert done.returncode == errors.RecipeError.exit_code
    assert done.stderr.startswith("RecipeError: recipe.yaml can't be read")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_option_is_clicks_own_error() -> None:
    done = slmc("plan", "--no-such-option", ".")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_exit_codes_are_those_of_the_tree_at_the_top_of_its_file() -> None:
    drawn = errors.__doc__ or ""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SlmcError)]
    for kind in kinds:
        line = next(line for line in drawn.splitlines() if kind.__name__ in line.split())
        if "exit_code" in vars(kind):
            assert str(kind.exit_code) in line.split()
    own = [kind.exit_code for kind in kinds if "exit_code" in vars(kind)]
    assert len(own) == len(set(own))


def test_targets_doctor_and_schema_speak_json() -> None:
    names = [target["name"] for target in json.loads(slmc("targets", "--json").stdout)]
    assert names == ["android", "host", "ios", "metal"]
    findings = json.loads(slmc("doctor", "--json").stdout)["findings"]
    assert {finding["state"] for finding in findings} <= {"ready", "missing"}
    assert json.loads(slmc("schema", "recipe").stdout)["title"] == "Recipe"


def test_inspecting_something_else_is_told(tmp_path: Path) -> None:
    done = slmc("inspect", str(tmp_path))
    assert done.returncode == errors.InputError.exit_code
    assert "neither a bundle nor a quantized checkpoint" in done.stderr
