"""Running a runner in a process of its own, because what it runs may crash, hang or be killed."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from slmc import console
from slmc.errors import RunnerError
from slmc.runners.contract import Failure
from slmc.runners.files import partial_path

POLL_S = 0.1
STALL_S = 120.0
"""A runner that has neither written a line nor used the processor for so long hangs."""
TAIL = 2000
"""Characters kept of what a failed runner wrote."""
MEMORY_SIGNS = ("MemoryError", "out of memory", "bad_alloc", "DefaultCPUAllocator: can't allocate")


class RunnerFailed(RunnerError):
    """A runner that brought no result; `failure` goes into the report in a result's place."""

    def __init__(self, failure: Failure, command: Sequence[str]) -> None:
        tail = f"\n{failure.stderr}" if failure.stderr else ""
        super().__init__(f"the runner {failure.what}{tail}", where=" ".join(command))
        self.failure = failure


def run(command: Sequence[str], workload: Path, result: Path, *, timeout_s: float, stall_s: float = STALL_S) -> None:
    """Run a runner to its end; the contract's options are added to its command line.

    Raises RunnerFailed for one that dies, is killed, takes longer than `timeout_s`, hangs for `stall_s`,
    or ends without a result. The process and its children are gone when this returns, however it does.
    """
    full = [*command, "--workload", str(workload), "--result", str(result)]
    partial = partial_path(result)
    result.unlink(missing_ok=True)
    partial.unlink(missing_ok=True)
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages)
        except OSError as error:
            raise RunnerFailed(Failure(cause="exit code", what=f"can't be started: {error}"), full) from None
        try:
            failure = _watch(process, workload, partial, timeout_s, stall_s) or _ending(process, result)
        finally:
            _kill(process)
            partial.unlink(missing_ok=True)
        if failure is not None:
            raise RunnerFailed(_explained(failure, _tail(messages)), full)


def _watch(
    process: subprocess.Popen[bytes], workload: Path, partial: Path, timeout_s: float, stall_s: float
) -> Failure | None:
    """Wait for the process to end, showing how far it is; a failure where it has to be stopped."""
    total = _count_lines(workload) - 1
    lines, start = _Lines(partial), time.monotonic()
    used, last_sign = 0.0, start
    with console.progress("answering", total) as advance:
        while process.poll() is None:
            time.sleep(POLL_S)
            new, spent, now = lines.new(), _cpu_seconds(process.pid), time.monotonic()
            advance(new)
            if new or spent > used:
                used, last_sign = spent, now
            answered = f"after {max(0, lines.count - 1)} of {total} answers"
            if now - start > timeout_s:
                return Failure(cause="timeout", what=f"took longer than {timeout_s:g} s: stopped {answered}")
            if now - last_sign > stall_s:
                return Failure(cause="hang", what=f"did nothing for {stall_s:g} s: stopped {answered}")
    return None


def _ending(process: subprocess.Popen[bytes], result: Path) -> Failure | None:
    """What was wrong with how a process ended by itself."""
    code = process.returncode
    return ending(max(code, 0), -code if code < 0 else None, result.is_file())


def ending(code: int, signal_number: int | None, finished: bool) -> Failure | None:
    """What was wrong with how a runner ended: its exit code, the signal that ended it, whether it left a result."""
    if signal_number is not None:
        name = _signal_name(signal_number)
        if name == "SIGKILL":
            what = "was killed by SIGKILL, as the system does when memory runs out"
            return Failure(cause="out of memory", what=what)
        return Failure(cause="signal", what=f"was killed by {name}")
    if code > 0:
        return Failure(cause="exit code", what=f"ended with exit code {code}")
    if not finished:
        return Failure(cause="no result", what="ended well but left no finished result")
    return None


def _explained(failure: Failure, tail: str) -> Failure:
    """With what the runner wrote, which may tell that memory ran out."""
    starved = failure.cause in ("exit code", "signal") and any(sign in tail for sign in MEMORY_SIGNS)
    cause = "out of memory" if starved else failure.cause
    return Failure(cause=cause, what=failure.what, stderr=tail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(messages: IO[bytes]) -> str:
    size = messages.seek(0, 2)
    messages.seek(max(0, size - 4 * TAIL))
    return messages.read().decode("utf-8", errors="replace").strip()[-TAIL:]


class _Lines:
    """Counts the lines of a file that another process is writing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.count = 0

    def new(self) -> int:
        """Lines since the last time; none while there is no file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return 0
        self._offset += len(added)
        self.count += added.count(b"\n")
        return added.count(b"\n")


def _count_lines(path: Path) -> int:
    lines = _Lines(path)
    return lines.new()


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_seconds(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += sum(times[:4])  # user and system, its own and that of children that have ended
    return total


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with its children, if it is still there."""
    if process.poll() is not None:
        return
    for member in _family(process.pid):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
