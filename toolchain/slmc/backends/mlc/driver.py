"""`mlc_llm compile`, run and watched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from slmc.errors import CompileError
from slmc.mlc_llm import MlcLlm
from slmc.names import TargetName

_DEVICES: dict[TargetName, str] = {"ios": "iphone", "android": "android", "metal": "metal"}
_PROBLEM = re.compile(r"^.*\b(?:ERROR|FATAL)\b.*$|^\w*(?:Error|Exception): .*$", re.MULTILINE)
_LAST_LINES = 20


def compile_library(tool: MlcLlm, model: Path, target: TargetName, name: str, library: Path, seconds: float) -> None:
    """Write `library` for the folder `model`, which has mlc-chat-config.json.

    Raises CompileError where the program fails, tells of an error, or takes longer.
    """
    command = [str(tool.program), "compile", str(model / "mlc-chat-config.json"), "--device", _DEVICES[target]]
    if target != "metal":
        command += ["--system-lib-prefix", f"{name}_"]
    command += ["--output", str(library)]
    code, said = _run(command, seconds, tool.program)
    problem = _PROBLEM.search(said)
    if code or problem or not library.is_file():
        told = problem.group().strip() if problem else f"ended with exit code {code}, and no library"
        tail = "\n".join(said.strip().splitlines()[-_LAST_LINES:])
        raise CompileError(
            f"mlc_llm compile: {told}\n{tail}".rstrip(),
            where=tool.program,
            todo="set mlc_llm: none in the recipe's target, for slmc's own compiler",
        )


def _run(command: list[str], seconds: float, program: Path) -> tuple[int, str]:
    """Exit code, and what was said. Where it takes too long, what it started is ended with it."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise CompileError(f"mlc_llm can't be started: {error}", where=program) from None
    with process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise CompileError(f"mlc_llm compile took longer than {seconds:g} s", where=program) from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said
