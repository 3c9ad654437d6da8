"""`mlc_llm compile`, run and watched."""

from __future__ import annotations

import re
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
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CompileError(f"mlc_llm compile took longer than {seconds:g} s", where=tool.program) from None
    except OSError as error:
        raise CompileError(f"mlc_llm can't be started: {error}", where=tool.program) from None
    problem = _PROBLEM.search(done.stdout)
    if done.returncode or problem or not library.is_file():
        told = problem.group().strip() if problem else f"ended with exit code {done.returncode}, and no library"
        tail = "\n".join(done.stdout.strip().splitlines()[-_LAST_LINES:])
        raise CompileError(
            f"mlc_llm compile: {told}\n{tail}".rstrip(),
            where=tool.program,
            todo="set mlc_llm: none in the recipe's target, for slmc's own compiler",
        )
