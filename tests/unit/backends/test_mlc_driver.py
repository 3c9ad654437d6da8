"""`mlc_llm compile`, in whose place there are scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmc.backends.mlc.driver import compile_library
from slmc.errors import CompileError
from slmc.mlc_llm import MlcLlm
from slmc.names import TargetName

OUTPUT = 'for last; do :; done\necho library > "$last"\n'
"""What the last argument names."""


def run(folder: Path, script: str, target: TargetName = "ios", seconds: float = 60) -> Path:
    """The library that the script leaves."""
    program, library = folder / "mlc_llm", folder / "slmc_small.tar"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    compile_library(MlcLlm(program, "0.20"), folder / "model", target, "slmc_small", library, seconds)
    return library


@pytest.mark.parametrize(
    ("target", "device"),
    [
        ("ios", "--device iphone --system-lib-prefix slmc_small_"),
        ("android", "--device android --system-lib-prefix slmc_small_"),
        ("metal", "--device metal"),
    ],
)
def test_the_command_names_device_prefix_and_library(tmp_path: Path, target: TargetName, device: str) -> None:
    library = run(tmp_path, f'echo "$@" > {tmp_path}/command\n{OUTPUT}', target)
    assert library.read_text() == "library\n"
    command = (tmp_path / "command").read_text().strip()
    assert command == f"compile {tmp_path}/model/mlc-chat-config.json {device} --output {library}"


@pytest.mark.parametrize("line", ["no error", "ERRORS: 0", "0 errors", "Errors: none", "Skipped: Error"])
def test_a_word_that_tells_of_no_error_is_none(tmp_path: Path, line: str) -> None:
    assert run(tmp_path, f"{OUTPUT}echo '{line}'\n").is_file()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo why >&2\nexit 1\n", "ended with exit code 1, and no library\nwhy"),
        ("echo done\n", "ended with exit code 0, and no library\ndone"),
        (f"{OUTPUT}echo '[2026-01-01] ERROR no kernel'\n", "[2026-01-01] ERROR no kernel"),
        (f"{OUTPUT}echo 'FATAL: no kernel' >&2\n", "FATAL: no kernel"),
        (f"{OUTPUT}echo 'ValueError: no kernel' >&2\n", "ValueError: no kernel"),
        (f"{OUTPUT}exit 3\n", "ended with exit code 3"),
        ("kill -SEGV $$\n", "exit code -11"),
        ("printf 'ERROR \\377\\n'\n", "ERROR \ufffd"),
    ],
)
def test_whatever_goes_wrong_is_told(tmp_path: Path, script: str, told: str) -> None:
    with pytest.raises(CompileError) as caught:
        run(tmp_path, script)
    assert told in caught.value.what
    assert "mlc_llm: none" in str(caught.value.todo)


def test_the_last_lines_are_told(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        run(tmp_path, "for i in $(seq 30); do echo line $i; done\nexit 1\n")
    assert caught.value.what.splitlines()[1:] == [f"line {i}" for i in range(11, 31)]


def test_a_compiler_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"took longer than 0\.2 s"):
        run(tmp_path, "exec sleep 60\n", seconds=0.2)


def test_a_compiler_that_can_t_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="can't be started"):
        compile_library(MlcLlm(tmp_path / "none", "0.20"), tmp_path, "ios", "small", tmp_path / "small.tar", 1)
