"""What is asked beside the ladder: the base without its adapter, and the calibration items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slmc.recipe import Classify, LoadedRecipe
from slmc.runners.contract import Workload
from slmc.validate.answered import Answered, asked_examples, read_answers
from slmc.validate.confidence import Abstaining, abstaining, fit_threshold
from slmc.validate.report import Abstention, BaseAnswers, FineTune, RungName
from slmc.validate.statistics import proportion


@dataclass(frozen=True)
class Side:
    """A workload of its own and the result."""

    workload: Workload
    result: Path


def read_base(recipe: LoadedRecipe, side: Side) -> Answered:
    """What the base answers; raises RunnerError for a result that can't be used."""
    examples = asked_examples(recipe, side.workload, recipe.recipe.data.evaluation)
    return read_answers(recipe, side.workload, examples, side.result)


def base_answers(reference: Answered, base: Answered) -> BaseAnswers:
    return BaseAnswers(
        accuracy=proportion(sum(base.right.values()), len(base.right)), changed=len(_changed(reference, base))
    )


def fine_tune(reference: Answered, base: Answered, rung: Answered) -> FineTune:
    """What a rung made of the items that the adapter changed."""
    changed = _changed(reference, base)
    kept = sum(rung.answers[name] == reference.answers[name] for name in changed)
    return FineTune(
        kept=proportion(kept, len(changed)) if changed else None,
        reverted=sum(rung.answers[name] == base.answers[name] for name in changed),
    )


def _changed(reference: Answered, base: Answered) -> list[str]:
    return [name for name, answer in base.answers.items() if reference.answers[name] != answer]


def abstention(
    recipe: LoadedRecipe, ran: Mapping[RungName, Answered], calibration: Mapping[RungName, Side]
) -> Abstention | None:
    """Fit the thresholds and measure them on the ladder's items; None where the recipe asks for none."""
    task = recipe.recipe.task
    if not isinstance(task, Classify) or task.abstain is None:
        return None
    limit = task.abstain.max_error
    fitted = {name: _fitted(recipe, side, limit) for name, side in calibration.items()}
    measured = {}
    for name, answered in ran.items():
        own = fitted.get("reference" if name == "reference" else "quantized")
        if own is not None and answered.choices is not None:
            measured[name] = abstaining(answered.choices, own.threshold)
    return Abstention(max_error=limit, fitted=fitted, measured=measured)


def _fitted(recipe: LoadedRecipe, side: Side, max_error: float) -> Abstaining:
    assert recipe.recipe.data.calibration is not None, "the recipe was checked for one"
    examples = asked_examples(recipe, side.workload, recipe.recipe.data.calibration)
    choices = read_answers(recipe, side.workload, examples, side.result).choices
    assert choices is not None, "only a classify task abstains"
    return abstaining(choices, fit_threshold(choices, max_error))
