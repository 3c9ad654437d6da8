"""The same workload through every rung: what each is worth, where items flipped, and which rung is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from slmc.errors import InputError, RunnerError
from slmc.quant.survival import AdapterSurvival
from slmc.recipe import Example, Extract, LoadedRecipe
from slmc.runners.contract import Failure, Result, Workload
from slmc.validate.answered import Answered, asked_examples, read_answers
from slmc.validate.confidence import confidence
from slmc.validate.divergence import agreement, divergence
from slmc.validate.gate import blame, check_rung, overall
from slmc.validate.metrics import field_scores, label_scores, micro_f1
from slmc.validate.report import (
    Answers,
    Comparison,
    Flip,
    PromptMismatch,
    ReadBack,
    Report,
    RungName,
    RungReport,
    Step,
)
from slmc.validate.sides import Side, abstention, base_answers, fine_tune, read_base
from slmc.validate.speed import task_speed
from slmc.validate.statistics import paired, proportion
from slmc.validate.workload import SCORE


@dataclass(frozen=True)
class Rung:
    """What came of one rung: a result file, a failure, or None where it was not run."""

    name: RungName
    outcome: Path | Failure | None
    read_back: ReadBack | None = None
    adapter: AdapterSurvival | None = None


@dataclass(frozen=True)
class _Ladder:
    """What all rungs are held against, and those that ran, lowest first."""

    recipe: LoadedRecipe
    workload: Workload
    examples: Sequence[Example]
    base: Answered | None
    ran: dict[RungName, Answered]


def judge(
    recipe: LoadedRecipe,
    workload: Workload,
    rungs: Sequence[Rung],
    *,
    base: Side | None = None,
    calibration: Mapping[RungName, Side] | None = None,
    steps: Sequence[Step] = (),
) -> Report:
    """Judge a ladder from its reference up.

    `base` is what the base answers without the adapter, `calibration` what the reference and the
    quantized rung answer to the calibration items, and `steps` what led to the method. A rung's result
    that can't be read counts as its failure. Raises RunnerError where the reference has no result,
    since nothing can be judged without one, or where one of those beside the ladder can't be read.
    """
    if not rungs or rungs[0].name != "reference":
        raise InputError("a ladder starts at the reference", expected="the reference's result first")
    examples = asked_examples(recipe, workload, recipe.recipe.data.evaluation)
    ladder = _Ladder(recipe, workload, examples, None if base is None else read_base(recipe, base), {})
    ran = ladder.ran
    reports = []
    for rung in rungs:
        reports.append(_climb(ladder, rung))
        if "reference" not in ran:
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
        base=None if ladder.base is None else base_answers(ran["reference"], ladder.base),
        abstention=abstention(recipe, ran, calibration or {}),
        steps=tuple(steps),
    )


def _climb(ladder: _Ladder, rung: Rung) -> RungReport:
    """Judge one rung beside those that ran before it, and add it to them."""
    answers, failure = None, None
    if isinstance(rung.outcome, Path):
        try:
            answered = read_answers(ladder.recipe, ladder.workload, ladder.examples, rung.outcome)
            answers = _answers(ladder, answered)
            ladder.ran[rung.name] = answered
        except RunnerError as error:
            failure = Failure(cause="nonsense", what=f"answered what can't be used: {error}")
    else:
        failure = rung.outcome
    return RungReport(
        name=rung.name,
        adds=_adds(rung.name, answers),
        answers=answers,
        failure=failure,
        read_back=rung.read_back,
        adapter=rung.adapter,
    )


def _adds(name: RungName, answers: Answers | None) -> str | None:
    """The weights are read back at each rung, so a difference from the one below has this cause."""
    if name == "quantized":
        return "weight quantization"
    if name == "app":
        return "text in, decision out"
    if name == "device":
        return "the device"
    if name == "compiled" and answers is not None:
        where = answers.environment
        adds = "activation quantization" if where.activations == "int8" else "the backend's arithmetic"
        return f"{adds}, simulated" if where.simulated else adds
    return None


def _answers(ladder: _Ladder, rung: Answered) -> Answers:
    mismatches = _mismatches(ladder.workload, rung.result)
    extract = isinstance(ladder.recipe.recipe.task, Extract)
    fields = field_scores(ladder.examples, rung.answers) if extract else ()
    reference = ladder.ran.get("reference")
    previous = next(reversed(ladder.ran), None)
    return Answers(
        environment=rung.result.environment,
        accuracy=proportion(sum(rung.right.values()), len(rung.right)),
        labels=label_scores(ladder.examples, rung.answers, ladder.recipe.labels()),
        fields=fields,
        micro_f1=micro_f1(fields) if extract else None,
        confidence=None if rung.choices is None else confidence(rung.choices),
        prompt_mismatches=len(mismatches),
        first_mismatch=mismatches[0] if mismatches else None,
        speed=task_speed(rung.result),
        against_reference=_compare(ladder, "reference", rung) if reference else None,
        against_previous=_compare(ladder, previous, rung) if previous else None,
        fine_tune=fine_tune(reference, ladder.base, rung) if reference and ladder.base else None,
    )


def _compare(ladder: _Ladder, against: RungName, rung: Answered) -> Comparison:
    reference, other = ladder.ran["reference"], ladder.ran[against]
    names = rung.right.keys()
    lost = sum(other.right[name] and not rung.right[name] for name in names)
    won = sum(rung.right[name] and not other.right[name] for name in names)
    differing = sum(other.answers[name] != rung.answers[name] for name in names)
    return Comparison(
        against=against,
        paired=paired(lost, won, differing - lost - won, len(names)),
        divergence=divergence(reference.result, other.result, rung.result),
        agreement=agreement(other.result, rung.result),
    )


def _mismatches(workload: Workload, result: Result) -> list[PromptMismatch]:
    found = []
    for item in workload.items:
        read = result.answers[item.id].input_ids
        if read is not None and read != item.input_ids:
            name = item.id.partition("/")[2]
            found.append(PromptMismatch(id=name, prompt=item.prompt or "", wanted=item.input_ids, read=read))
    return found


def _flips(examples: Sequence[Example], ran: Mapping[RungName, Answered]) -> Iterator[Flip]:
    """Items whose answer changes on the way up, in the workload's order."""
    for example in examples:
        name = example.id
        for (_, before), (rung, after) in pairwise(ran.items()):
            if before.answers[name] != after.answers[name]:
                yield Flip(
                    id=name,
                    rung=rung,
                    kind=_kind(before.right[name], after.right[name]),
                    text="\n".join(example.fields.values()),
                    expected=example.answer,
                    answers={rung: answered.answers[name] for rung, answered in ran.items()},
                )
                break


def _kind(before: bool, after: bool) -> Literal["lost", "won", "other"]:
    if before == after:
        return "other"
    return "lost" if before else "won"
