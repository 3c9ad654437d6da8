"""A backend's program, in whose place there are scripts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmc.backends import child
from slmc.errors import CompileError

Lines = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What a shell script tells that runs as module `work`."""

    def run(script: str, *arguments: str, seconds: float = 60) -> list[dict[str, Any]]:
        program(tmp_path, monkeypatch, script)
        return list(child.lines("work", arguments, seconds=seconds))

    return run


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_lines_of_json_are_told_and_others_are_not(lines: Lines) -> None:
    assert lines("""echo linking; echo '{"name": "a"}'; echo "" ; echo '{"name": "b", "same": true}'\n""") == [
        {"name": "a"},
        {"name": "b", "same": True},
    ]


def test_a_module_of_ours_is_run_with_its_arguments(lines: Lines, tmp_path: Path) -> None:
    lines(f'echo "$@" > {tmp_path}/command\n', "one", "two three")
    assert (tmp_path / "command").read_text() == "-W ignore -m slmc.backends.work one two three\n"


def test_what_a_program_tells_is_read_by_who_started_it(capsys: pytest.CaptureFixture[str], lines: Lines) -> None:
    child.tell(name="é\n", same=True)
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert lines(f"cat <<'END'\n{told}END\n") == [{"name": "é\n", "same": True}]


def test_a_program_that_fails_keeps_its_last_lines(lines: Lines) -> None:
    with pytest.raises(CompileError) as caught:
        lines("for i in $(seq 30); do echo line $i >&2; done\nexit 3\n")
    first, *last = caught.value.what.splitlines()
    assert first == "work failed with exit code 3"
    assert last == [f"line {i}" for i in range(11, 31)]


@pytest.mark.parametrize("name", ["SEGV", "KILL", "ABRT"])
def test_the_signal_that_kills_a_program_is_named(lines: Lines, name: str) -> None:
    with pytest.raises(CompileError, match=f"^work was killed by SIG{name}$"):
        lines(f"kill -{name} $$\n")


@pytest.mark.parametrize("silent", ["", "exec >&-\n"])
def test_a_program_that_takes_too_long_is_stopped(lines: Lines, silent: str) -> None:
    with pytest.raises(CompileError, match=r"^work took longer than 0\.2 s\nwarming up$"):
        lines(f"echo warming up >&2\n{silent}exec sleep 60\n", seconds=0.2)


def test_one_that_fails_in_time_is_not_late(lines: Lines) -> None:
    with pytest.raises(CompileError, match="failed with exit code 1"):
        lines("exit 1\n", seconds=30)


def test_who_stops_listening_stops_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, """echo "{\\"pid\\": $$}"\nexec sleep 60\n""")
    told = child.lines("work", [])
    pid = next(told)["pid"]
    os.kill(pid, 0)  # it is there
    told.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_program_s_own_children_do_not_make_it_longer(lines: Lines) -> None:
    began = time.monotonic()
    with pytest.raises(CompileError, match="took longer"):
        lines("sleep 2\n", seconds=0.2)
    assert time.monotonic() - began < 1.5


def test_a_compiler_s_line_that_begins_as_json_is_passed_over(lines: Lines) -> None:
    assert lines("""echo '{ braces }'; echo '{"name": "a"}'\n""") == [{"name": "a"}]
