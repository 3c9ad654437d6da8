"""The same workload through every rung: what each is worth, where items flipped, and which rung is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from slmc.errors import InputError, RunnerError
from slmc.recipe import Example, Extract, LoadedRecipe
from slmc.runners.contract import Failure, Result, Workload
from slmc.runners.files import read_result
from slmc.validate.divergence import agreement, divergence
from slmc.validate.gate import blame, check_rung, overall
from slmc.validate.metrics import field_scores, is_right, label_scores, micro_f1, texts
from slmc.validate.report import Answers, Comparison, Flip, PromptMismatch, ReadBack, Report, RungName, RungReport
from slmc.validate.speed import task_speed
from slmc.validate.statistics import paired, proportion
from slmc.validate.workload import SCORE, TASK


@dataclass(frozen=True)
class Rung:
    """What came of one rung: a result file, a failure, or None where it was not run."""

    name: RungName
    outcome: Path | Failure | None
    read_back: ReadBack | None = None


@dataclass(frozen=True)
class _Judged:
    """A rung that ran, its answers held against the data's."""

    name: RungName
    result: Result
    answers: dict[str, str]
    right: dict[str, bool]


def judge(recipe: LoadedRecipe, workload: Workload, rungs: Sequence[Rung]) -> Report:
    """Judge a ladder from its reference up.

    A result that can't be read counts as that rung's failure. Raises RunnerError where the
    reference has no result, since nothing can be judged without one.
    """
    if not rungs or rungs[0].name != "reference":
        raise InputError("a ladder starts at the reference", expected="the reference's result first")
    examples = _asked_examples(recipe, workload)
    reports: list[RungReport] = []
    ran: list[_Judged] = []
    for rung in rungs:
        judged = _judged(recipe, workload, examples, rung)
        if isinstance(judged, _Judged):
            answers = _answers(recipe, workload, examples, judged, ran)
            ran.append(judged)
            reports.append(RungReport(name=rung.name, answers=answers, failure=None, read_back=rung.read_back))
        else:
            reports.append(RungReport(name=rung.name, answers=None, failure=judged, read_back=rung.read_back))
    if not ran or ran[0].name != "reference":
        raise RunnerError(f"the reference has no result: {reports[0].failure or 'it was not run'}")
    checks = [check for report in reports for check in check_rung(recipe.recipe.gates, report)]
    return Report(
        recipe=recipe.recipe.name,
        recipe_version=recipe.recipe.version,
        recipe_digest=recipe.digest(),
        task=recipe.recipe.task.kind,
        workload=workload.digest,
        items=len(examples),
        scored=sum(item.id.startswith(SCORE) for item in workload.items),
        verdict=overall(checks),
        blame=blame(checks),
        checks=tuple(checks),
        rungs=tuple(reports),
        not_run=tuple(report.name for report in reports if report.status == "not run"),
        flips=tuple(_flips(examples, ran)),
    )


def _asked_examples(recipe: LoadedRecipe, workload: Workload) -> list[Example]:
    """The evaluation examples that the workload asks for, in its order."""
    known = {example.id: example for example in recipe.examples(recipe.recipe.data.evaluation)}
    asked = [item.id.removeprefix(TASK) for item in workload.items if item.id.startswith(TASK)]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise InputError(
            f"the workload asks for item {unknown[0]!r}, which the recipe has not" if unknown else "no task items",
            where=recipe.folder,
            todo="make the workload anew from this recipe",
        )
    return [known[name] for name in asked]


def _judged(
    recipe: LoadedRecipe, workload: Workload, examples: Sequence[Example], rung: Rung
) -> _Judged | Failure | None:
    if not isinstance(rung.outcome, Path):
        return rung.outcome
    try:
        result = read_result(rung.outcome, workload)
        answers = texts(recipe, result)
    except RunnerError as error:
        return Failure(cause="nonsense", what=f"answered what can't be used: {error}")
    right = {example.id: is_right(recipe, example.answer, answers[example.id]) for example in examples}
    return _Judged(rung.name, result, answers, right)


def _answers(
    recipe: LoadedRecipe, workload: Workload, examples: Sequence[Example], judged: _Judged, before: Sequence[_Judged]
) -> Answers:
    mismatches = _mismatches(workload, judged.result)
    extract = isinstance(recipe.recipe.task, Extract)
    fields = field_scores(examples, judged.answers) if extract else ()
    return Answers(
        environment=judged.result.environment,
        accuracy=proportion(sum(judged.right.values()), len(judged.right)),
        labels=label_scores(examples, judged.answers, recipe.labels()),
        fields=fields,
        micro_f1=micro_f1(fields) if extract else None,
        prompt_mismatches=len(mismatches),
        first_mismatch=mismatches[0] if mismatches else None,
        speed=task_speed(judged.result),
        against_reference=_compare(before[0], before[0], judged) if before else None,
        against_previous=_compare(before[0], before[-1], judged) if before else None,
    )


def _mismatches(workload: Workload, result: Result) -> list[PromptMismatch]:
    found = []
    for item in workload.items:
        read = result.answers[item.id].input_ids
        if read is not None and read != item.input_ids:
            name = item.id.partition("/")[2]
            found.append(PromptMismatch(id=name, prompt=item.prompt or "", wanted=item.input_ids, read=read))
    return found


def _compare(reference: _Judged, other: _Judged, rung: _Judged) -> Comparison:
    names = rung.right.keys()
    lost = sum(other.right[name] and not rung.right[name] for name in names)
    won = sum(rung.right[name] and not other.right[name] for name in names)
    differing = sum(other.answers[name] != rung.answers[name] for name in names)
    return Comparison(
        against=other.name,
        paired=paired(lost, won, differing - lost - won, len(names)),
        divergence=divergence(reference.result, other.result, rung.result),
        agreement=agreement(other.result, rung.result),
    )


def _flips(examples: Sequence[Example], ran: Sequence[_Judged]) -> Iterator[Flip]:
    """Items whose answer changes on the way up, in the workload's order."""
    for example in examples:
        name = example.id
        for before, after in pairwise(ran):
            if before.answers[name] != after.answers[name]:
                yield Flip(
                    id=name,
                    rung=after.name,
                    kind=_kind(before.right[name], after.right[name]),
                    text="\n".join(example.fields.values()),
                    expected=example.answer,
                    answers={rung.name: rung.answers[name] for rung in ran},
                )
                break


def _kind(before: bool, after: bool) -> Literal["lost", "won", "other"]:
    if before == after:
        return "other"
    return "lost" if before else "won"
