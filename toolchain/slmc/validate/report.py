"""`report.json`: what a validation found, for people, for the nightly job, and for the page made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from slmc.errors import InputError
from slmc.quant.survival import AdapterSurvival
from slmc.runners.contract import Environment, Failure
from slmc.strict import Strict, parse
from slmc.validate.confidence import Abstaining, Confidence
from slmc.validate.divergence import Divergence
from slmc.validate.metrics import FieldScore, LabelScore
from slmc.validate.speed import TaskSpeed
from slmc.validate.statistics import Interval, Paired, Proportion, Verdict

RungName = Literal["reference", "quantized", "compiled", "app", "device"]
"""`app` is the compiled model asked by the bundle's own task file, as an app does: text in, decision out."""
Gate = Literal[
    "adapter",
    "weights",
    "runner",
    "prompt",
    "min_accuracy",
    "max_accuracy_drop",
    "max_mean_kl",
    "min_survival",
    "min_agreement",
]
"""What is checked: that the adapter's change is in the weights, that they are those of the step before, that the
runner answered, that it read the same prompts, then the recipe's gates by their keys."""


class Comparison(Strict):
    """A rung beside another, by item and by position."""

    against: RungName
    paired: Paired
    divergence: Divergence | None
    """Of the other's next tokens from this rung's; None where it was not watched."""
    agreement: Proportion | None
    """Of the likeliest next token."""


class PromptMismatch(Strict):
    """An item whose prompt the rung read as other tokens than the workload has."""

    id: str
    prompt: str
    wanted: tuple[int, ...]
    read: tuple[int, ...]


class ReadBack(Strict):
    """A rung's stored weights held against those of the step before, tensor by tensor."""

    tensors: int
    wrong: tuple[str, ...]
    """Names of those that are not what they should be."""


class FineTune(Strict):
    """Of the items that the reference answers otherwise than the base without the adapter, what a rung made."""

    kept: Proportion | None
    """Answered as the reference does; None where there is no such item."""
    reverted: int
    """Answered as the base does."""


class Answers(Strict):
    """What a rung that ran answered."""

    environment: Environment
    accuracy: Proportion
    labels: tuple[LabelScore, ...]
    """Of a classify task."""
    fields: tuple[FieldScore, ...]
    """Of an extract task."""
    micro_f1: float | None
    confidence: Confidence | None
    """Of a classify task."""
    prompt_mismatches: int
    first_mismatch: PromptMismatch | None
    speed: TaskSpeed
    against_reference: Comparison | None
    against_previous: Comparison | None
    fine_tune: FineTune | None
    """None for the reference, and where there is no adapter."""


class RungReport(Strict):
    """One rung of the ladder: it ran, or it failed, or it was not run."""

    name: RungName
    adds: str | None = None
    """What stands between it and the rung below, by name; None for the reference and where it is not known."""
    answers: Answers | None
    failure: Failure | None
    read_back: ReadBack | None = None
    """None where there is nothing to compare with, or it was not done."""
    adapter: AdapterSurvival | None = None
    """What its weights hold of the adapter's change; the quantized rung's alone."""

    @property
    def status(self) -> Literal["ran", "failed", "not run"]:
        if self.answers is not None:
            return "ran"
        return "not run" if self.failure is None else "failed"


class Check(Strict):
    """One promise held against one rung."""

    gate: Gate
    rung: RungName
    against: RungName | None
    limit: float | None
    measured: float | None
    interval: Interval | None
    verdict: Verdict
    evidence: str


class Blame(Strict):
    """The first rung that breaks a promise, and which."""

    rung: RungName
    gate: Gate
    evidence: str


class Flip(Strict):
    """An item whose answer is not the same on every rung."""

    id: str
    rung: RungName
    """The first rung whose answer differs from the one before it."""
    kind: Literal["lost", "won", "other"]
    """What that change did: a right answer lost, one won, or wrong as before."""
    text: str
    """The item's fields, as the data has them."""
    expected: str
    answers: dict[str, str]
    """By rung."""


class BaseAnswers(Strict):
    """What the base answers without the adapter, to the task's items or some of them."""

    accuracy: Proportion
    changed: int
    """Items that the reference answers otherwise."""


class Abstention(Strict):
    """The fitted thresholds of a classify task, below which an app is to abstain."""

    max_error: float
    """The recipe's."""
    fitted: dict[RungName, Abstaining]
    """On the calibration items, each rung's own threshold; the quantized rung's is the one that ships."""
    measured: dict[RungName, Abstaining]
    """On the evaluation items: the reference at its own threshold, every other rung at the one that ships."""


class Step(Strict):
    """A method that `auto` tried: what it cost, and what it bought against the reference."""

    method: str
    budget: float | None
    """Mean bits a quantized weight may take, scales included; None where only the scheme decides."""
    bits: float
    """Mean over all weights."""
    seconds: float
    """What quantizing took on the machine that did it."""
    accuracy: float | None
    divergence: float | None
    """Mean KL in nats a token."""
    kept: float | None
    """Share of the answers that the adapter changed; None without an adapter."""
    verdict: Verdict
    evidence: str
    """Of the check that decides the verdict."""


class Report(Strict):
    slmc_report: Literal[1] = 1
    recipe: str
    recipe_version: str
    recipe_digest: str
    task: Literal["classify", "extract", "generate"]
    workload: str
    """Its digest."""
    items: int
    scored: int
    """Items with next-token probabilities."""
    verdict: Verdict
    blame: Blame | None
    checks: tuple[Check, ...]
    rungs: tuple[RungReport, ...]
    not_run: tuple[RungName, ...]
    flips: tuple[Flip, ...]
    base: BaseAnswers | None
    """None where the recipe has no adapter."""
    abstention: Abstention | None
    """None where the recipe asks for none."""
    steps: tuple[Step, ...] = ()
    """What method `auto` tried, in order; empty for any other method."""

    def rung(self, name: RungName) -> RungReport:
        return next(rung for rung in self.rungs if rung.name == name)


def write_report(report: Report, path: Path) -> None:
    path.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Raises InputError for a file that is not a report of this version."""
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the report can't be read: {error}", where=path) from None
    return parse(Report, raw, path, InputError)
