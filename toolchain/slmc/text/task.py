"""Write a task file: a tokenizer, the prompt, what may be answered, and what to check itself by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from slmc.prompt import Codec
from slmc.text.choices import choices_bytes
from slmc.text.golden import Golden, golden_bytes
from slmc.text.grammar import grammar_bytes
from slmc.text.prompts import known_ids, prompt_bytes
from slmc.text.schema import Schema
from slmc.text.sections import Section, write_sections
from slmc.text.tokenizer import compile_tokenizer

TASK_FILE, PREFIX_FILE = "task.slm", "prefix.slm"


@dataclass(frozen=True)
class Task:
    """What a task file is made from."""

    tokenizer: Path
    """The tokenizer.json that `codec` reads by."""
    codec: Codec
    labels: Sequence[str]
    """Empty where the task is not to choose."""
    examples: Sequence[Mapping[str, str]]
    """Fields of prompts to learn from how prompts begin."""
    schema: Schema | None = None
    """What an answer in text must fit."""

    @cached_property
    def known(self) -> list[int]:
        """The ids that prompts begin with."""
        return known_ids(self.codec, self.examples)

    @cached_property
    def sections(self) -> Mapping[Section, bytes]:
        """Raises CompileError naming what of the tokenizer or the schema has no compiled form."""
        made = compile_tokenizer(self.tokenizer)
        made[Section.PROMPT] = prompt_bytes(self.codec, self.known)
        if self.labels:
            choices = [tuple(self.codec.answer(label)) for label in self.labels]
            made[Section.CHOICES] = choices_bytes(choices, self.labels)
        if self.schema is not None:
            form = self.codec.format
            made[Section.GRAMMAR] = grammar_bytes(self.schema, form.answer_prefix, form.end_id, made)
        return made


def write_task(task: Task, path: Path, golden: Sequence[Golden] = ()) -> None:
    items = {Section.GOLDEN: golden_bytes(golden, task.codec.format.fields)} if golden else {}
    write_sections({**task.sections, **items}, path)
