"""What a build says of itself: the manifest and the golden file, from the plan and what was made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from slmc import __version__
from slmc.artifacts import QuantizedCheckpoint
from slmc.bundle.golden import GOLDEN_ITEMS, GoldenItem, ReferenceAnswer, evenly
from slmc.bundle.manifest import (
    NOT_RUN,
    Abstain,
    Answered,
    BuiltWith,
    Confidence,
    Manifest,
    Memory,
    MemoryFit,
    Origins,
    Quantized,
    RunRecord,
    Validation,
)
from slmc.models.exported import Delegation
from slmc.plan import Plan
from slmc.prompt import Codec
from slmc.provenance import TOOLS, code_digest, data_digests, tool_versions
from slmc.quant.table import read_table
from slmc.rungs import REFERENCE, WORKLOAD
from slmc.runners.contract import Answer, Chosen, Generated, Result
from slmc.runners.files import read_result, read_workload
from slmc.store import Entry
from slmc.text.task import PREFIX_FILE, TASK_FILE
from slmc.validate.confidence import Abstaining
from slmc.validate.report import Report, RungReport
from slmc.validate.workload import TASK

GOLDEN_CHOICES = 5
LOGPROB_DIGITS = 3
"""A CPU's last bits are no part of a bundle's identity."""


def make_golden(plan: Plan, codec: Codec, reference: Entry | None) -> list[GoldenItem]:
    """A few evaluation items, evenly spread over those asked, with the reference's answers where it was run."""
    examples = plan.recipe.examples(plan.recipe.recipe.data.evaluation)
    answers = {} if reference is None else _answers(reference).answers
    asked = [example for example in examples if not answers or TASK + example.id in answers]
    labels = plan.recipe.labels()
    golden = []
    for example in evenly(asked, GOLDEN_ITEMS):
        text, ids = codec.prompt(example.fields)
        answer = answers.get(TASK + example.id)
        golden.append(
            GoldenItem(
                id=example.id,
                fields=example.fields,
                prompt=text,
                input_ids=tuple(ids),
                expected=example.answer,
                reference=None if answer is None else _reference_answer(answer, labels),
            )
        )
    return golden


def _answers(reference: Entry) -> Result:
    return read_result(reference.folder / REFERENCE, read_workload(reference.folder / WORKLOAD))


def _reference_answer(answer: Answer, labels: tuple[str, ...]) -> ReferenceAnswer:
    if isinstance(answer, Chosen):
        likeliest = sorted(answer.choice_logprobs, key=lambda told: -told[1])[:GOLDEN_CHOICES]
        known = {labels[index]: round(logprob, LOGPROB_DIGITS) for index, logprob in likeliest}
        return ReferenceAnswer(answer=labels[answer.choice], logprobs=known)
    text = answer.text if isinstance(answer, Generated) else None
    return ReferenceAnswer(answer=text or "", logprobs={})


def make_manifest(
    plan: Plan, quantized: QuantizedCheckpoint, delegation: Delegation | None, task: Path | None
) -> Manifest:
    """Everything but the files, which packing fills in. `task` is the folder that the task's stage made."""
    recipe, target = plan.recipe.recipe, plan.target
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        target=target.name,
        backend=plan.backend.value,
        minimum_os=target.minimum_os,
        context=plan.context.value,
        delegate=None if plan.delegate is None else plan.delegate.value,
        delegation=delegation,
        library_by=_library_by(plan),
        artifact=target.layout.artifact,
        tokenizer=target.layout.tokenizer,
        task=None if task is None else TASK_FILE,
        prefix=PREFIX_FILE if task is not None and (task / PREFIX_FILE).is_file() else None,
        labels=plan.recipe.labels(),
        files={},
        origins=_origins(plan),
        built_with=BuiltWith(slmc=__version__, code=code_digest(), tools=_tools(plan)),
        quantization=_quantization(plan, quantized),
        memory=_memory(plan),
        recipe=recipe,
    )


def _library_by(plan: Plan) -> Literal["slmc", "mlc_llm"] | None:
    if plan.backend.value != "mlc":
        return None
    return "slmc" if plan.mlc_llm.value is None else "mlc_llm"


def _tools(plan: Plan) -> dict[str, str]:
    tool = plan.mlc_llm.value
    return tool_versions(TOOLS[plan.backend.value]) | ({} if tool is None else {"mlc_llm": tool.version})


def _origins(plan: Plan) -> Origins:
    return Origins(
        recipe=plan.recipe.digest(),
        target=plan.target.digest(),
        data=data_digests(plan.recipe),
        stages={stage.name: stage.key for stage in plan.stages},
    )


def _quantization(plan: Plan, quantized: QuantizedCheckpoint) -> Quantized:
    table = read_table(quantized.folder)
    return Quantized(
        scheme=table.scheme,
        method=", ".join(sorted({row.method for row in table.tensors if row.method is not None})),
        bits=round(table.bits_per_weight, 4),
        tensors=table.tensors,
    )


def _memory(plan: Plan) -> Memory:
    forecast = plan.forecast
    return Memory(
        weights=forecast.weights,
        kv_cache=forecast.kv_cache,
        activations=forecast.activations,
        copies=forecast.copies,
        # The host is whatever machine opens the bundle; only fixed classes are facts about it.
        fits=tuple(
            MemoryFit(
                device_class=fit.device.name,
                process_mib=fit.device.process_mib,
                share=round(fit.share, 4),
                source=fit.device.source,
            )
            for fit in plan.fits()
            if plan.target.device_classes
        ),
    )


def validation(report: Report) -> Validation:
    """What was run, on what, and how it was judged."""
    return Validation(verdict=report.verdict, runs=tuple(_run(report, rung) for rung in report.rungs))


def _run(report: Report, rung: RungReport) -> RunRecord:
    verdicts = [check.verdict for check in report.checks if check.rung == rung.name]
    worst = next((verdict for verdict in ("fail", "unclear") if verdict in verdicts), "pass")
    if rung.answers is None:
        return RunRecord(rung=rung.name, runtime="", device="", verdict=rung.status)
    environment = rung.answers.environment
    return RunRecord(
        rung=rung.name,
        runtime=f"{environment.runtime} {environment.version}",
        device=environment.device,
        verdict=worst,
    )


def where_run(report: Report) -> str:
    """The device that the bundle was run on, and its system."""
    answers = next((rung.answers for rung in report.rungs if rung.name == "device"), None)
    return NOT_RUN if answers is None else f"{answers.environment.device}, {answers.environment.os}"


def confidence(report: Report) -> Confidence | None:
    """What a classify task's probabilities are worth, on every rung that answered; None for other tasks."""
    errors: dict[str, float] = {
        rung.name: round(rung.answers.confidence.calibration_error, 4)
        for rung in report.rungs
        if rung.answers is not None and rung.answers.confidence is not None
    }
    return Confidence(calibration_error=errors, abstain=_abstain(report)) if errors else None


def _abstain(report: Report) -> Abstain | None:
    """The threshold that ships: the quantized rung's."""
    found = report.abstention
    if found is None or "quantized" not in found.fitted:
        return None
    return Abstain(
        threshold=found.fitted["quantized"].threshold,
        max_error=found.max_error,
        fitted=_answered(found.fitted["quantized"]),
        measured={name: _answered(at) for name, at in found.measured.items() if name != "reference"},
    )


def _answered(found: Abstaining) -> Answered:
    return Answered(
        items=found.answered.total,
        coverage=round(found.answered.share, 4),
        error=None if found.wrong is None else round(found.wrong.share, 4),
    )
