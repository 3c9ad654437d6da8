"""Small task files with all of their sections, for tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from slmc.prompt import Codec, PromptFormat
from slmc.text.golden import Golden
from slmc.text.task import Task, write_task

from .tokenizer_kinds import KINDS

LABELS = ("transfer", "transfer money", "weather", "wait", "what", "7")


@cache
def codec(kind: str) -> Codec:
    """The same each time: training gives other ids in each run."""
    tokenizer = KINDS[kind]()
    end = tokenizer.id_to_token(1)
    form = PromptFormat(
        prefix="<|user|>\nAnswer: ",
        message="say {text} of {{it}} {more}",
        suffix=" \n",
        trim=True,
        answer_prefix="",
        special_tokens=kind != "bert",  # whose tokens stand behind the text too
        end_token=end,
        end_id=1,
    )
    return Codec(tokenizer, form)


def task_bytes(folder: Path, kind: str) -> bytes:
    own, path = codec(kind), folder / "task.slm"
    own.write_tokenizer(folder / "tokenizer.json")
    items = [{"text": text, "more": "money"} for text in ("a", "weather", "é 7")]
    golden = [Golden(str(i), fields, own.prompt(fields)[1], i, 0.5) for i, fields in enumerate(items)]
    write_task(Task(folder / "tokenizer.json", own, LABELS, items), path, golden)
    return path.read_bytes()
