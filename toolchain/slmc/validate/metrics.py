"""What answers are worth for the task: right or wrong, by label, by field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from slmc.errors import RunnerError
from slmc.recipe import Example, Extract, LoadedRecipe
from slmc.runners.contract import Chosen, Generated, Result
from slmc.strict import Strict
from slmc.validate.workload import TASK


class LabelScore(Strict):
    """One label of a classify task."""

    label: str
    total: int
    """Items that have it."""
    right: int
    answered: int
    """Items that it was the answer to."""


class FieldScore(Strict):
    """One field of an extract task, over all items."""

    field: str
    right: int
    """Given with the expected value."""
    wrong: int
    """Given, but with another value or where there is none."""
    missed: int
    """Expected, but not given with that value."""

    @property
    def f1(self) -> float:
        given = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / given if given else 1.0


def texts(recipe: LoadedRecipe, result: Result) -> dict[str, str]:
    """Each task item's answer by the example's id. Raises RunnerError where a text is missing."""
    labels = recipe.labels()
    found: dict[str, str] = {}
    for name, answer in result.answers.items():
        if not name.startswith(TASK):
            continue
        if isinstance(answer, Chosen):
            found[name.removeprefix(TASK)] = labels[answer.choice]
        elif isinstance(answer, Generated):
            if answer.text is None:
                raise RunnerError(f"the answer to {name!r} has no text", todo="run the runner with --codec")
            found[name.removeprefix(TASK)] = answer.text
    return found


def is_right(recipe: LoadedRecipe, expected: str, answer: str) -> bool:
    """Extract: the same JSON object. Otherwise the same text but for white space around it."""
    if isinstance(recipe.recipe.task, Extract):
        return _fields(answer) == _fields(expected)
    return answer.strip() == expected.strip()


def label_scores(
    examples: Sequence[Example], answers: Mapping[str, str], labels: Sequence[str]
) -> tuple[LabelScore, ...]:
    total = Counter(example.answer for example in examples)
    right = Counter(example.answer for example in examples if answers[example.id] == example.answer)
    answered = Counter(answers.values())
    return tuple(
        LabelScore(label=label, total=total[label], right=right[label], answered=answered[label]) for label in labels
    )


def field_scores(examples: Sequence[Example], answers: Mapping[str, str]) -> tuple[FieldScore, ...]:
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for example in examples:
        expected, given = _fields(example.answer) or {}, _fields(answers[example.id]) or {}
        same = {field for field in expected if given.get(field) == expected[field]}
        right.update(same)
        wrong.update(given.keys() - same)
        missed.update(expected.keys() - same)
    names = sorted({*right, *wrong, *missed})
    return tuple(FieldScore(field=name, right=right[name], wrong=wrong[name], missed=missed[name]) for name in names)


def micro_f1(scores: Sequence[FieldScore]) -> float:
    return FieldScore(
        field="all",
        right=sum(score.right for score in scores),
        wrong=sum(score.wrong for score in scores),
        missed=sum(score.missed for score in scores),
    ).f1


def _fields(answer: str) -> dict[str, str] | None:
    """The fields of a JSON object, each value as canonical JSON, so that 1 is not true; None if it is no object."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {name: json.dumps(value, sort_keys=True) for name, value in found.items()}
