"""What is asked beside the ladder: the base without its adapter, and the calibration items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmc.errors import InputError, RunnerError
from slmc.quant.survival import AdapterSurvival, Change, TensorChange
from slmc.recipe import LoadedRecipe, load_recipe
from slmc.runners.contract import ChooseItem, Failure, Workload
from slmc.validate.html import render
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import Check, Report, read_report, write_report
from slmc.validate.sides import Side
from slmc.validate.workload import base_workload, calibration_workload

from .conftest import Lab, make_lab
from .test_showing import Page, on_screen

EVERY = [f"i{n}" for n in range(400)]
CHANGED = EVERY[:100]
"""Items that the base answers with the next label."""


def based(lab: Lab, quantized: Path, *, base_wrong: list[str] = CHANGED, min_survival: float = 0.9) -> Report:
    base = lab.result("base", base_wrong, workload=base_workload(lab.workload))
    gates = lab.recipe.recipe.gates.model_copy(update={"min_survival": min_survival, "max_accuracy_drop": 1.0})
    recipe = LoadedRecipe(lab.recipe.folder, lab.recipe.recipe.model_copy(update={"gates": gates}))
    rungs = [Rung("reference", lab.result("reference")), Rung("quantized", quantized), Rung("device", None)]
    return judge(recipe, lab.workload, rungs, base=Side(base_workload(lab.workload), base))


def check(report: Report, gate: str) -> Check:
    return next(check for check in report.checks if check.gate == gate)


def test_the_base_is_asked_the_task_and_not_too_much(lab: Lab) -> None:
    asked = base_workload(lab.workload)
    assert [item.id for item in asked.items] == [f"task/{name}" for name in EVERY]
    many = [item.model_copy(update={"id": f"task/{n}"}) for n, item in enumerate(asked.items * 3)]
    spread = base_workload(Workload(asked.header, tuple(many)))
    assert len(spread.items) == 1000
    assert [item.id for item in spread.items[:6]] == ["task/0", "task/1", "task/2", "task/3", "task/4", "task/6"]


def test_what_the_adapter_changed_is_counted_where_it_is_kept_and_where_it_went_back(lab: Lab) -> None:
    """Of 100 changed answers the quantized rung turns 4 back into the base's; that it errs elsewhere is no matter."""
    report = based(lab, lab.result("quantized", ["i0", "i1", "i2", "i3", "i300", "i301"]))
    assert report.base is not None
    assert (report.base.changed, report.base.accuracy.count, report.base.accuracy.total) == (100, 300, 400)
    answers = report.rung("quantized").answers
    assert answers is not None
    assert answers.fine_tune is not None
    assert answers.fine_tune.kept is not None
    assert (answers.fine_tune.kept.total, answers.fine_tune.kept.count, answers.fine_tune.reverted) == (100, 96, 4)
    reference = report.rung("reference").answers
    assert reference is not None
    assert reference.fine_tune is None
    found = check(report, "min_survival")
    assert (found.verdict, found.measured, found.against) == ("pass", 0.96, "reference")
    assert found.evidence.startswith("96 of 100 answers that the adapter changed are kept: 96.00% (95%: 90.16%")
    assert "4 went back to the base's" in found.evidence


@pytest.mark.parametrize(("lost", "verdict"), [(2, "pass"), (10, "unclear"), (50, "fail")])
def test_the_gate_is_held_against_the_whole_interval(lost: int, verdict: str, lab: Lab) -> None:
    assert check(based(lab, lab.result("quantized", CHANGED[:lost])), "min_survival").verdict == verdict


@pytest.mark.parametrize(("changed", "verdict"), [(29, "unclear"), (30, "pass")])
def test_few_changed_answers_can_not_tell(changed: int, verdict: str, lab: Lab) -> None:
    report = based(lab, lab.result("quantized"), base_wrong=EVERY[:changed], min_survival=0.5)
    found = check(report, "min_survival")
    assert found.verdict == verdict
    assert ("fewer than 30" in found.evidence) == (verdict == "unclear")


def test_an_adapter_that_changes_no_answer_can_not_be_judged(lab: Lab) -> None:
    report = based(lab, lab.result("quantized"), base_wrong=[])
    found = check(report, "min_survival")
    assert (found.verdict, found.measured, found.interval) == ("unclear", None, None)
    assert "every item as the base does" in found.evidence
    assert Page(render(report)).open == []


def test_without_an_adapter_nothing_is_asked_or_checked(lab: Lab) -> None:
    report = judge(lab.recipe, lab.workload, [Rung("reference", lab.result("r")), Rung("quantized", lab.result("q"))])
    assert (report.base, report.abstention) == (None, None)
    assert not {"min_survival", "adapter"} & {check.gate for check in report.checks}
    assert "The recipe has no adapter" in Page(render(report)).text


def test_a_base_that_answers_something_else_is_an_error(lab: Lab) -> None:
    side = Side(base_workload(lab.workload), lab.result("base"))  # of the whole ladder's workload
    with pytest.raises(RunnerError, match="another workload"):
        judge(lab.recipe, lab.workload, [Rung("reference", lab.result("reference"))], base=side)


def change(name: str, coefficient: float, error: float) -> TensorChange:
    return TensorChange(name=name, layer=0, size=0.1, kept=1.1, correlation=0.5, coefficient=coefficient, error=error)


def held(lab: Lab, whole: tuple[float, float] | None, *tensors: TensorChange) -> Report:
    """A ladder whose quantized rung holds so much of the adapter."""
    one = None if whole is None else Change.model_validate(change("all", *whole).model_dump(exclude={"name", "layer"}))
    adapter = AdapterSurvival(whole=one, tensors=tensors)
    quantized = Rung("quantized", lab.result("quantized"), adapter=adapter)
    return judge(lab.recipe, lab.workload, [Rung("reference", lab.result("reference")), quantized])


@pytest.mark.parametrize(
    ("whole", "verdict"), [((0.99, 0.001), "pass"), ((1.2, 0.2), "pass"), ((0.6, 0.1), "unclear"), ((0.1, 0.1), "fail")]
)
def test_the_adapters_change_must_arrive(whole: tuple[float, float], verdict: str, lab: Lab) -> None:
    report = held(lab, whole, change("a", *whole))
    found = check(report, "adapter")
    assert (found.verdict, found.rung, found.measured) == (verdict, "quantized", whole[0])
    if verdict == "fail":
        assert report.blame is not None
        assert (report.blame.rung, report.blame.gate) == ("quantized", "adapter")


def test_one_matrix_that_lost_its_change_is_named(lab: Lab) -> None:
    lost = [change(f"lost{n}", n / 100, 0.001) for n in range(5)]
    report = held(lab, (0.98, 0.001), change("kept", 1.0, 0.001), change("noisy", 0.1, 0.2), *reversed(lost))
    found = check(report, "adapter")
    assert found.verdict == "fail"
    assert found.evidence == (
        "5 of 7 matrices have lost the adapter's change: lost0 (0.0% left), lost1 (1.0% left), lost2 (2.0% left)"
    )
    page = Page(render(report))
    assert page.open == []
    assert "lost0" in page.text


def test_an_adapter_that_changes_no_quantized_matrix_has_nothing_to_lose(lab: Lab) -> None:
    report = held(lab, None)
    assert check(report, "adapter").verdict == "pass"
    assert Page(render(report)).open == []


@pytest.fixture
def unsure(recipe_folder: Path, tmp_path: Path) -> Lab:
    """A lab whose recipe abstains rather than err in more than a tenth of its answers."""
    task = 'task: {kind: classify, labels: ["yes", "no", "maybe"], abstain: {max_error: 0.1}}'
    path = recipe_folder / "recipe.yaml"
    path.write_text(path.read_text().replace("credit: ours", "calibration: calibration.jsonl, credit: ours"))
    items: list[dict[str, object]] = [{"id": f"i{n}", "text": f"say {n}", "label": "yes"} for n in range(100)]
    (recipe_folder / "calibration.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items[:20]))
    return make_lab(recipe_folder, tmp_path, task, items)


def calibrated(lab: Lab, name: str, wrong: int) -> Side:
    """20 calibration items from surest to least sure, the last `wrong` of them wrong."""
    asked = calibration_workload(lab.recipe, lab.codec, context=64)
    sure = {f"i{n}": 0.99 - 0.02 * n for n in range(20)}
    last = [f"i{n}" for n in range(20 - wrong, 20)]
    return Side(asked, lab.result(f"calibration-{name}", last, workload=asked, probabilities=sure))


def test_the_calibration_items_are_asked_as_the_task_is(unsure: Lab) -> None:
    asked = calibration_workload(unsure.recipe, unsure.codec, context=64)
    assert [item.id for item in asked.items] == [f"task/i{n}" for n in range(20)]
    assert all(isinstance(item, ChooseItem) for item in asked.items)
    assert asked.header.choices == unsure.workload.header.choices


def abstaining(lab: Lab, quantized: Side | None) -> Report:
    sure = {f"i{n}": 0.9 if n < 60 else 0.5 for n in range(100)}
    wrong = [f"i{n}" for n in range(57, 100)]
    rungs = [
        Rung("reference", lab.result("reference", probabilities=sure)),
        Rung("quantized", lab.result("quantized", wrong, probabilities=sure)),
        Rung("compiled", Failure(cause="signal", what="was killed")),
    ]
    calibration = {"reference": calibrated(lab, "reference", 1), "quantized": quantized}
    asked = {name: side for name, side in calibration.items() if side is not None}
    return judge(lab.recipe, lab.workload, rungs, calibration=asked)


def test_a_threshold_is_fitted_to_the_calibration_items_and_measured_on_the_others(unsure: Lab) -> None:
    """The reference errs in 1 of 20, so that it may answer all; the quantized one in 12, and may answer 8 and 0.89."""
    found = abstaining(unsure, calibrated(unsure, "quantized", 12)).abstention
    assert found is not None
    assert found.max_error == 0.1
    reference, quantized = found.fitted["reference"], found.fitted["quantized"]
    assert (reference.threshold, reference.answered.count) == (0.61, 20)
    assert (quantized.threshold, quantized.answered.count, quantized.answered.total) == (0.85, 8, 20)
    assert quantized.wrong is not None
    assert quantized.wrong.count == 0
    assert list(found.measured) == ["reference", "quantized"]
    assert found.measured["reference"].threshold == 0.61
    measured = found.measured["quantized"]
    assert measured.wrong is not None
    assert (measured.threshold, measured.answered.count, measured.wrong.count) == (0.85, 60, 3)


def test_the_threshold_is_said_in_words(unsure: Lab) -> None:
    report = abstaining(unsure, calibrated(unsure, "quantized", 12))
    said = (
        "Abstain where the label's probability is below 0.8500: fitted on 20 calibration items for at most 10.00% "
        "wrong labels. The quantized rung then answers 60.00% of the evaluation items, 5.00% of them wrong."
    )
    assert said in on_screen(report)
    assert said in Page(render(report)).text


def test_where_every_answer_is_wrong_no_threshold_is_made_up(unsure: Lab) -> None:
    report = abstaining(unsure, calibrated(unsure, "quantized", 20))
    assert report.abstention is not None
    assert report.abstention.fitted["quantized"].threshold is None
    assert report.abstention.measured["quantized"].answered.count == 0
    assert "No threshold brings the wrong labels" in Page(render(report)).text


def test_a_quantized_rung_that_died_has_no_threshold(unsure: Lab, tmp_path: Path) -> None:
    report = abstaining(unsure, None)
    assert report.abstention is not None
    assert list(report.abstention.fitted) == ["reference"]
    assert list(report.abstention.measured) == ["reference"]
    assert Page(render(report)).open == []
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report


def test_calibration_items_that_are_not_the_recipes_are_named(unsure: Lab) -> None:
    side = calibrated(unsure, "reference", 0)
    unsure.recipe.file("calibration.jsonl").write_text('{"id": "other", "text": "x", "label": "yes"}\n')
    recipe = load_recipe(unsure.recipe.folder)
    with pytest.raises(InputError, match="'i0', which the recipe has not"):
        judge(recipe, unsure.workload, [Rung("reference", unsure.result("r"))], calibration={"reference": side})
