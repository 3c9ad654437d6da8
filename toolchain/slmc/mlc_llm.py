"""MLC-LLM's own compiler, where this machine has it: which, and for which models it may be asked."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from slmc.architecture import Architecture, Llama3Scaling
from slmc.errors import MissingToolError

PROGRAM = "mlc_llm"
_ASK = "import mlc_llm; print(mlc_llm.__version__)"
_SECONDS = 120
_FAMILIES = ("llama", "qwen2", "qwen3", "phi3")


@dataclass(frozen=True)
class MlcLlm:
    program: Path
    version: str


def find_mlc_llm(named: str) -> MlcLlm:
    """By name on the PATH, or by its absolute path. Raises MissingToolError."""
    found = shutil.which(named)
    if found is None:
        raise MissingToolError(
            f"{named} is not there, or no program",
            expected="mlc_llm's command",
            todo="see llm.mlc.ai/docs/install, or set mlc_llm: none, for slmc's own compiler",
        )
    return MlcLlm(Path(found), _version(Path(found)))


def on_path() -> bool:
    return shutil.which(PROGRAM) is not None


def refusal(a: Architecture, *, keeps: bool) -> str | None:
    """Why MLC-LLM's library would answer otherwise than the checkpoint; None where it would not.

    `keeps` tells that some matrices are not quantized.

    From `python/mlc_llm/model/` of mlc-ai/mlc-llm: what a family's code there does not read.
    """
    if a.family not in _FAMILIES:
        return f"MLC-LLM has no {a.family}" if a.family == "smollm3" else "MLC-LLM turns local layers as global ones"
    if keeps:
        return "MLC-LLM quantizes every matrix"
    scaling = a.ropes[0].scaling
    if scaling is not None and not (a.family == "llama" and isinstance(scaling, Llama3Scaling)):
        return f"MLC-LLM's {a.family} does not scale its rope that way"
    if a.family != "qwen3" and a.head_dim * a.heads != a.hidden_size:
        return f"MLC-LLM's {a.family} has heads of hidden_size / num_attention_heads"
    return None


def _version(program: Path) -> str:
    """As the Python behind the command tells it; the command itself does not."""
    try:
        asked = [*_interpreter(program), "-c", _ASK]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_SECONDS, check=True)
        return done.stdout.split()[-1]
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        raise MissingToolError(
            f"can't tell the version: {error}",
            where=program,
            expected="the script that pip installs for mlc_llm",
            todo="set mlc_llm: none in the recipe's target, for slmc's own compiler",
        ) from None


def _interpreter(program: Path) -> list[str]:
    """What pip's script names in its first line, or behind `exec` in its second where the first is the shell's."""
    first, second = [*program.read_text(encoding="utf-8").splitlines(), "", ""][:2]
    words = shlex.split(first.removeprefix("#!")) if first.startswith("#!") else []
    if words and Path(words[0]).name == "sh":
        words = shlex.split(second)[1:2]
    if not words:
        raise ValueError("no line that names a Python")
    return words
