"""Run one of a backend's programs; what it prints, line by line.

Compilers are slow to load, write to standard error, and can die of a segmentation fault, which no `except` catches.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
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


def run(module: str, arguments: Sequence[str], *, seconds: float = _SECONDS) -> None:
    """`python -m slmc.backends.<module>`, whatever it tells. Raises CompileError as `lines`."""
    for _ in lines(module, arguments, seconds=seconds):
        pass


def lines(module: str, arguments: Sequence[str], *, seconds: float = _SECONDS) -> Iterator[dict[str, Any]]:
    """The JSON lines of `python -m slmc.backends.<module>`.

    Raises CompileError with what it said last where it fails, and where it takes longer than `seconds`.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"slmc.backends.{module}", *arguments]
    with TemporaryFile("w+", errors="replace") as said:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process:
            assert process.stdout is not None
            late = Timer(seconds, process.kill)
            late.start()
            try:
                for line in process.stdout:
                    if line.startswith("{"):  # compilers print there too
                        yield json.loads(line)
            finally:
                if process.poll() is None and sys.exc_info()[0] is not None:
                    process.kill()
                process.wait()
                in_time = not late.finished.is_set()
                late.cancel()
        if process.returncode:
            said.seek(0)
            tail = "\n".join(said.read().strip().splitlines()[-_LAST_LINES:])
            cause = _cause(process.returncode) if in_time else f"took longer than {seconds:g} s"
            raise CompileError(f"{module} {cause}\n{tail}".rstrip())


def _cause(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
