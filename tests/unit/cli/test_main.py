from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from slmc import errors
from slmc.cli import doctor
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


def test_a_build_on_one_machine_imports_nothing_of_others() -> None:
    code = "import sys; import slmc.cli.build; assert not {'fsspec', 'ray', 'boto3', 'torch'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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


def test_doctor_names_a_pair_of_tvm_s_packages_that_was_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """By every target that needs them."""
    found = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.15.post2", "ziglang": "0.15.2"}
    monkeypatch.setattr(doctor, "tool_versions", lambda packages: {name: found.get(name, "1") for name in packages})
    bad = {finding.what: finding for finding in doctor.examine() if finding.state == "missing"}
    assert {"host with tvm", "ios with mlc", "android with mlc", "metal with mlc"} <= bad.keys()
    for finding in bad.values():
        assert "a pair that was not tested together" in finding.detail
        assert finding.todo == "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post0"


def test_inspecting_something_else_is_told(tmp_path: Path) -> None:
    done = slmc("inspect", str(tmp_path))
    assert done.returncode == errors.InputError.exit_code
    assert "neither a bundle nor a quantized checkpoint" in done.stderr
