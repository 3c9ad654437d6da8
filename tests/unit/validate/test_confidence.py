"""Calibration and thresholds, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.errors import RunnerError
from slmc.validate.confidence import Choices, abstaining, choices, confidence, fit_threshold

from .conftest import Lab


def told(*pairs: tuple[float, bool]) -> Choices:
    return Choices(np.array([p for p, _ in pairs]), np.array([right for _, right in pairs]))


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    # (14/15, 1]: mean 0.97, half right; (13/15, 14/15]: 0.9, all right; (0, 1/15]: 0.05, none right
    found = told((0.98, True), (0.96, False), (0.9, True), (0.05, False))
    assert confidence(found).calibration_error == pytest.approx((2 * 0.47 + 0.1 + 0.05) / 4)


def test_a_bin_holds_its_upper_end() -> None:
    # 14/15 and 0.9 lie in one bin, where they make up for each other's error
    found = told((14 / 15, True), (0.9, True), (14 / 15, False))
    assert confidence(found).calibration_error == pytest.approx(abs((28 / 15 + 0.9 - 2) / 3))


def test_gaps_of_one_bin_cancel_and_of_two_bins_do_not() -> None:
    assert confidence(told((0.5, True), (0.5, False))).calibration_error == pytest.approx(0)
    assert confidence(told((0.6, False), (0.4, True))).calibration_error == pytest.approx(0.6)


@pytest.mark.parametrize(("probability", "right", "error"), [(1.0, True, 0), (1.0, False, 1), (0.0, True, 1)])
def test_one_item(probability: float, right: bool, error: float) -> None:
    found = confidence(told((probability, right)))
    assert found.calibration_error == error
    assert found.risk == (float(not right),) * 20


def test_risk_goes_from_the_surest_to_all() -> None:
    found = told(*((1 - n / 100, n % 4 != 3) for n in range(40)))
    risk = confidence(found).risk
    assert len(risk) == 20
    assert risk[0] == 0  # the surest two
    assert risk[1] == 0.25  # the surest four
    assert risk[-1] == 0.25


def test_the_lowest_threshold_within_the_error_is_taken() -> None:
    found = told((0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.5, False), (0.4, False))
    assert fit_threshold(found, 0.25) == 0.6  # 1 wrong of 4, though at 0.7 it was 1 of 3
    assert fit_threshold(found, 0.2) == 0.8
    assert fit_threshold(found, 0.0) == 0.8
    assert fit_threshold(found, 0.5) == 0.4  # all of them


def test_items_of_one_probability_stand_and_fall_together() -> None:
    found = told((0.9, True), (0.8, True), (0.8, False))
    assert fit_threshold(found, 0.1) == 0.9
    assert fit_threshold(found, 0.34) == 0.8
    assert fit_threshold(told((0.8, True), (0.8, False)), 0.1) is None


def test_where_no_threshold_will_do_everything_is_abstained_from() -> None:
    found = told((0.9, False), (0.8, True))
    assert fit_threshold(found, 0.2) is None
    at = abstaining(found, None)
    assert (at.threshold, at.answered.count, at.answered.total, at.wrong) == (None, 0, 2, None)


def test_an_item_at_the_threshold_is_answered() -> None:
    at = abstaining(told((0.9, True), (0.6, False), (0.5999, True)), 0.6)
    assert at.wrong is not None
    assert (at.answered.count, at.wrong.count, at.wrong.total) == (2, 1, 2)


def test_a_probability_just_below_the_grid_is_not_lifted_onto_it() -> None:
    below = [float(np.nextafter(tick / 10_000, 0)) for tick in range(1, 10_000)]
    assert all(fit_threshold(told((p, True)), 0.0) < p for p in below)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.floats(0, 1))
def test_a_fitted_threshold_keeps_its_promise_and_none_below_does(
    pairs: list[tuple[float, bool]], limit: float
) -> None:
    found = told(*pairs)
    threshold = fit_threshold(found, limit)
    at = abstaining(found, threshold)
    assert at.wrong is None or at.wrong.share <= limit
    assert (at.wrong is None) == (threshold is None)
    for lower in np.floor(found.probability * 10_000) / 10_000:
        if threshold is None or lower < threshold:
            below = abstaining(found, float(lower)).wrong
            assert below is not None
            assert below.share > limit


def test_probabilities_are_those_of_the_choices(lab: Lab) -> None:
    path = lab.result("rung", wrong={"i1"}, probabilities={"i0": 0.25, "i2": 1.0})
    right = {"i2": True, "i0": True, "i1": False}
    found = choices(lab.read(path), right)
    assert found.probability == pytest.approx([1.0, 0.25, 0.9])
    assert found.right.tolist() == [True, True, False]


def test_a_choice_without_its_probability_is_an_error(lab: Lab) -> None:
    path = lab.result("rung")
    lines = path.read_text().split("\n")
    lines[1] = json.dumps(json.loads(lines[1]) | {"choice_logprobs": []})
    path.write_text("\n".join(lines))
    with pytest.raises(RunnerError, match=r"'task/i0' .* its own choice"):
        choices(lab.read(path), {"i0": True})
