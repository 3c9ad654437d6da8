"""A result held against the data's answers, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc.errors import InputError
from slmc.recipe import Classify, Example, LoadedRecipe
from slmc.runners.contract import Result, Workload
from slmc.runners.files import read_result
from slmc.validate.confidence import Choices, choices
from slmc.validate.metrics import is_right, texts
from slmc.validate.workload import TASK


@dataclass(frozen=True)
class Answered:
    """By example id, in the workload's order."""

    result: Result
    answers: dict[str, str]
    right: dict[str, bool]
    choices: Choices | None
    """Of a classify task."""


def read_answers(recipe: LoadedRecipe, workload: Workload, examples: Sequence[Example], path: Path) -> Answered:
    """Raises RunnerError for a result that can't be used."""
    result = read_result(path, workload)
    answers = texts(recipe, result)
    right = {example.id: is_right(recipe, example.answer, answers[example.id]) for example in examples}
    classified = isinstance(recipe.recipe.task, Classify)
    return Answered(result, answers, right, choices(result, right) if classified else None)


def asked_examples(recipe: LoadedRecipe, workload: Workload, file: str) -> list[Example]:
    """The data file's examples that the workload asks for, in its order."""
    known = {example.id: example for example in recipe.examples(file)}
    asked = [item.id.removeprefix(TASK) for item in workload.items if item.id.startswith(TASK)]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise InputError(
            f"the workload asks for item {unknown[0]!r}, which the recipe has not" if unknown else "no task items",
            where=recipe.folder,
            todo="make the workload anew from this recipe",
        )
    return [known[name] for name in asked]
