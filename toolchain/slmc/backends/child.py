"""Run one of a backend's programs; what it prints, line by line.

Compilers are slow to load, write to standard error, and can die of a segmentation fault, which no `except` catches.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from threading import Timer
from typing import Any

from slmc.errors import CompileError

_LAST_LINES = 20
_SECONDS = 6 * 3600.0


def tell(**facts: object) -> None:
    """In such a program: one line for whoever started it."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def tell_error(error: CompileError) -> None:
    """In such a program: why it made nothing."""
    tell(error=error.what, expected=error.expected, todo=error.todo)


def run(module: str, arguments: Sequence[str], *, seconds: float = _SECONDS) -> None:
    """`python -m slmc.backends.<module>`. Raises CompileError as `lines`, and for an error that it tells."""
    for told in lines(module, arguments, seconds=seconds):
        if "error" in told:
            raise CompileError(told["error"], expected=told["expected"], todo=told["todo"])


def lines(module: str, arguments: Sequence[str], *, seconds: float = _SECONDS) -> Iterator[dict[str, Any]]:
    """The JSON lines of `python -m slmc.backends.<module>`.

    Raises CompileError with what it said last where it fails, and where it takes longer than `seconds`.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"slmc.backends.{module}", *arguments]
    with TemporaryFile("w+", errors="replace") as said:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            clock = _Clock(process, seconds)
            try:
                for line in process.stdout:
                    told = _told(line)
                    if told is not None:
                        yield told
            finally:
                if sys.exc_info()[0] is not None:
                    clock.kill()
                process.wait()
                clock.stop()
        if process.returncode:
            said.seek(0)
            tail = "\n".join(said.read().strip().splitlines()[-_LAST_LINES:])
            cause = f"took longer than {seconds:g} s" if clock.is_over else _cause(process.returncode)
            raise CompileError(f"{module} {cause}\n{tail}".rstrip())


class _Clock:
    """Ends a program, and what it started, after some seconds."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self._process, self.is_over = process, False
        self._timer = Timer(seconds, self._end)
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _end(self) -> None:
        self.is_over = True
        self.kill()


def _told(line: str) -> dict[str, Any] | None:
    """None for what is no line of ours: compilers print there too."""
    try:
        found = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _cause(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
