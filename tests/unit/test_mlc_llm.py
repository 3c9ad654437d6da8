"""MLC-LLM's command, in whose place there are scripts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slmc.architecture import FAMILIES, Family
from slmc.config_json import parse_architecture
from slmc.errors import MissingToolError
from slmc.mlc_llm import find_mlc_llm, on_path, refusal

from .configs import changed

PHI = {"original_max_position_embeddings": None, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def program(path: Path, content: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command as pip makes it, on the PATH, and its module."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "mlc_llm.py").write_text("print('loading')\n__version__ = '0.20.dev7'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return program(tmp_path / "bin" / "mlc_llm", f"#!{sys.executable}\nraise SystemExit('not to be run')\n")


def test_the_version_is_the_module_s(installed: Path) -> None:
    assert on_path()
    for named in ("mlc_llm", str(installed)):
        found = find_mlc_llm(named)
        assert (found.program, found.version) == (installed, "0.20.dev7")


def test_a_command_by_another_name_is_found(installed: Path) -> None:
    other = installed.rename(installed.with_name("mlc-llm-nightly"))
    assert not on_path()
    assert find_mlc_llm("mlc-llm-nightly").program == other


def test_a_command_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not on_path()
    for named in ("mlc_llm", "/nowhere/mlc_llm"):
        with pytest.raises(MissingToolError, match=f"{named} is not there") as caught:
            find_mlc_llm(named)
        assert "mlc_llm: none" in str(caught.value.todo)


def test_a_file_that_can_t_be_run_is_not_there(installed: Path) -> None:
    installed.chmod(0o644)
    assert not on_path()
    with pytest.raises(MissingToolError, match="no program"):
        find_mlc_llm(str(installed))


@pytest.mark.parametrize(
    "content",
    [
        "\x7fELF\x02\x01\x01",
        "",
        "#!\n",
        "#!/nowhere/python\n",
        "#!/bin/false\n",
        f"#!{sys.executable} -I\n",  # finds no module
    ],
)
def test_what_tells_no_version_is_no_mlc_llm(installed: Path, content: str) -> None:
    program(installed, content)
    with pytest.raises(MissingToolError, match="can't tell the version") as caught:
        find_mlc_llm("mlc_llm")
    assert caught.value.where == str(installed)


def refused(family: Family, **change: object) -> str | None:
    return refusal(parse_architecture(changed(family, change), Path("config.json")), keeps=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_compiled_or_refused(family: Family) -> None:
    """As tests/unit/configs.py has it: Phi's rope is scaled."""
    able: dict[Family, str | None] = {
        "llama": None,
        "qwen2": None,
        "qwen3": None,
        "gemma3_text": "MLC-LLM turns local layers as global ones",
        "phi3": "MLC-LLM's phi3 does not scale its rope that way",
        "smollm3": "MLC-LLM has no smollm3",
    }
    assert refused(family) == able[family]


def test_a_rope_is_scaled_by_llama_s_way_alone() -> None:
    assert refused("phi3", **PHI) is None
    llama3 = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}}
    linear = {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}
    assert refused("llama", **llama3) is None
    for family in ("llama", "qwen2", "qwen3"):
        assert "does not scale its rope" in str(refused(family, **linear))


def test_heads_of_another_size_are_qwen3_s_alone() -> None:
    for family in ("llama", "qwen2", "phi3"):
        change = PHI if family == "phi3" else {}
        assert refused(family, head_dim=16, **change) is None
        assert "heads of hidden_size" in str(refused(family, head_dim=32, **change))
    assert refused("qwen3", head_dim=32) is None


def test_a_model_that_keeps_matrices_is_not_for_it() -> None:
    architecture = parse_architecture(changed("llama", {}), Path("config.json"))
    assert refusal(architecture, keeps=False) is None
    assert refusal(architecture, keeps=True) == "MLC-LLM quantizes every matrix"
