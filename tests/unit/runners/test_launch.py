"""Runners that fail, each in its way: every one is reported with its cause, and none is left running."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from slmc.errors import MissingToolError
from slmc.runners import program
from slmc.runners.contract import Workload
from slmc.runners.files import partial_path, write_workload
from slmc.runners.launch import RunnerFailed, run

START = """\
import os, signal, subprocess, sys, time
result = sys.argv[sys.argv.index("--result") + 1]
partial = open(result + ".partial", "w")
"""
ONE_ANSWER = 'partial.write("environment\\nanswer\\n"); partial.flush()\n'


def launch(code: str, workload: Workload, tmp_path: Path, timeout_s: float = 60, stall_s: float = 60) -> Path:
    write_workload(workload, tmp_path / "workload.jsonl")
    result = tmp_path / "result.jsonl"
    command = [sys.executable, "-c", START + code]
    run(command, tmp_path / "workload.jsonl", result, timeout_s=timeout_s, stall_s=stall_s)
    return result


def failure(code: str, workload: Workload, tmp_path: Path, timeout_s: float = 60, stall_s: float = 60) -> RunnerFailed:
    with pytest.raises(RunnerFailed) as caught:
        launch(code, workload, tmp_path, timeout_s, stall_s)
    result = tmp_path / "result.jsonl"
    assert not result.exists()
    assert not partial_path(result).exists()
    return caught.value


def test_a_runner_that_finishes_leaves_its_result(workload: Workload, tmp_path: Path) -> None:
    result = launch('partial.write("done"); partial.close(); os.replace(partial.name, result)', workload, tmp_path)
    assert result.read_text() == "done"


@pytest.mark.parametrize(
    ("code", "cause", "what"),
    [
        ("sys.exit('no such layer')", "exit code", "exit code 1"),
        ("sys.exit(0)", "no result", "no finished result"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "out of memory", "SIGKILL"),
        ("raise MemoryError", "out of memory", "exit code 1"),
        ("sys.exit('torch.OutOfMemoryError: CUDA out of memory.')", "out of memory", "exit code 1"),
    ],
)
def test_a_runner_that_ends_badly_is_told_with_its_cause(
    code: str, cause: str, what: str, workload: Workload, tmp_path: Path
) -> None:
    failed = failure(code, workload, tmp_path)
    assert failed.failure.cause == cause
    assert what in str(failed)


def test_what_a_failed_runner_wrote_is_told(workload: Workload, tmp_path: Path) -> None:
    code = "print('out'); sys.stderr.write('x' * 9000 + ' bad layer\\xff'); sys.exit(3)"
    failed = failure(code, workload, tmp_path)
    assert "bad layer" in str(failed)
    assert len(failed.failure.stderr) <= 2000


def test_a_runner_that_takes_too_long_is_stopped(workload: Workload, tmp_path: Path) -> None:
    failed = failure(ONE_ANSWER + "\nwhile True: pass", workload, tmp_path, timeout_s=1)
    assert failed.failure.cause == "timeout"
    assert "after 1 of 3 answers" in failed.failure.what


def test_a_runner_that_does_nothing_hangs(workload: Workload, tmp_path: Path) -> None:
    failed = failure(ONE_ANSWER + "time.sleep(600)", workload, tmp_path, stall_s=1.5)
    assert failed.failure.cause == "hang"


def test_a_runner_that_computes_without_a_line_does_not_hang(workload: Workload, tmp_path: Path) -> None:
    code = "end = time.time() + 2.5\nwhile time.time() < end: pass\npartial.close(); os.replace(partial.name, result)\n"
    assert launch(code, workload, tmp_path, stall_s=1).exists()


def test_children_of_a_runner_do_not_outlive_it(workload: Workload, tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    failure(code, workload, tmp_path, stall_s=2)
    assert gone(int(child.read_text()))


def test_an_interrupt_ends_the_runner(workload: Workload, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); os.kill(os.getppid(), signal.SIGINT)\n"
    with pytest.raises(KeyboardInterrupt):
        launch(code + "time.sleep(600)", workload, tmp_path)
    assert gone(int((tmp_path / "pid").read_text()))
    assert not partial_path(tmp_path / "result.jsonl").exists()


def test_a_result_of_before_does_not_pass_for_a_new_one(workload: Workload, tmp_path: Path) -> None:
    (tmp_path / "result.jsonl").write_text("old")
    assert failure("pass", workload, tmp_path).failure.cause == "no result"


def test_a_runner_that_is_not_there_is_told(workload: Workload, tmp_path: Path) -> None:
    write_workload(workload, tmp_path / "w")
    with pytest.raises(RunnerFailed, match="can't be started"):
        run([str(tmp_path / "none")], tmp_path / "w", tmp_path / "r", timeout_s=1)


def test_a_named_failure_becomes_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise MissingToolError("no torch", todo="pip install it")

    with pytest.raises(SystemExit) as ended:
        program.end(main)
    assert ended.value.code == MissingToolError.exit_code
    assert "next: pip install it" in capsys.readouterr().err


def gone(pid: int) -> bool:
    """Dead, or a zombie that only its new parent has yet to take away."""
    for _ in range(50):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return False
