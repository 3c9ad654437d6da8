from __future__ import annotations

from pathlib import Path

import pytest

from slmc.bundle.manifest import Abstain, Answered
from slmc.describe import confidence
from slmc.validate.confidence import Abstaining
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import Abstention, Report
from slmc.validate.statistics import proportion

from .validate.conftest import Lab, make_lab

SURE = Abstaining(threshold=0.7, answered=proportion(16, 20), wrong=proportion(1, 16))
NEVER = Abstaining(threshold=None, answered=proportion(0, 20), wrong=None)


@pytest.fixture
def report(recipe_folder: Path, tmp_path: Path) -> Report:
    items: list[dict[str, object]] = [{"id": f"i{n}", "text": "x", "label": "yes"} for n in range(3)]
    lab: Lab = make_lab(recipe_folder, tmp_path, 'task: {kind: classify, labels: ["yes", "no"]}', items)
    return judge(lab.recipe, lab.workload, [Rung("reference", lab.result("reference"))])


def shipped(report: Report) -> Abstain | None:
    found = confidence(report)
    assert found is not None
    return found.abstain


def abstaining(report: Report, fitted: dict[str, Abstaining], measured: dict[str, Abstaining]) -> Report:
    found = Abstention.model_validate({"max_error": 0.1, "fitted": fitted, "measured": measured})
    return report.model_copy(update={"abstention": found})


def test_the_quantized_rungs_threshold_ships(report: Report) -> None:
    reference = SURE.model_copy(update={"threshold": 0.2})
    compiled = Abstaining(threshold=0.7, answered=proportion(2, 3), wrong=proportion(0, 2))
    judged = abstaining(
        report, {"reference": reference, "quantized": SURE}, {"reference": reference, "compiled": compiled}
    )
    found = shipped(judged)
    assert found is not None
    assert (found.threshold, found.max_error) == (0.7, 0.1)
    assert found.fitted == Answered(items=20, coverage=0.8, error=0.0625)
    assert found.measured == {"compiled": Answered(items=3, coverage=0.6667, error=0.0)}


def test_always_abstaining_is_told_as_such(report: Report) -> None:
    found = shipped(abstaining(report, {"quantized": NEVER}, {"quantized": NEVER}))
    assert found is not None
    assert found.threshold is None
    assert found.fitted == Answered(items=20, coverage=0, error=None)


def test_nothing_ships_where_nothing_was_fitted(report: Report) -> None:
    assert shipped(report) is None
    assert shipped(abstaining(report, {"reference": SURE}, {"reference": SURE})) is None


def test_every_rung_that_answered_tells_its_calibration_error(report: Report) -> None:
    found = confidence(report)
    assert found is not None
    assert found.calibration_error == {"reference": 0.1}  # all right, each at a probability of 0.9


def test_other_tasks_have_no_confidence(recipe_folder: Path, tmp_path: Path) -> None:
    lab = make_lab(
        recipe_folder, tmp_path, "task: {kind: generate, max_tokens: 9}", [{"id": "a", "text": "x", "answer": "y"}]
    )
    assert confidence(judge(lab.recipe, lab.workload, [Rung("reference", lab.result("reference"))])) is None
