from __future__ import annotations

import base64
import math

import pytest
from pydantic import ValidationError

from slmc.farm.record import Accuracy, Run

from .nights import WHERE, accuracy, night, run, series, speed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0])
@pytest.mark.parametrize(
    "name", ["ratio", "decision_ms_p50", "decision_ms_p95", "first_token_ms", "load_ms", "sustained"]
)
def test_a_speed_is_a_positive_number(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        type(speed()).model_validate({**speed().model_dump(), name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_a_variation_is_a_number(value: float) -> None:
    with pytest.raises(ValidationError, match="variation"):
        speed(variation=value)


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_text_is_what_every_database_takes(value: str) -> None:
    with pytest.raises(ValidationError, match="os"):
        type(WHERE).model_validate({**WHERE.model_dump(), "os": value})
    with pytest.raises(ValidationError, match="reason"):
        Run.model_validate({**run(series()).model_dump(), "reason": value})


def test_counts_are_what_every_database_takes() -> None:
    with pytest.raises(ValidationError, match="peak_memory_bytes"):
        Run.model_validate({**run(series()).model_dump(), "peak_memory_bytes": 1 << 63})


@pytest.mark.parametrize(
    ("items", "right", "packed"),
    [
        (3, 2, b"\xa1"),  # a bit behind the last item
        (3, 2, b"\xa0\x00"),
        (9, 2, b"\xa0"),
        (3, 3, b"\xa0"),
    ],
)
def test_answers_are_as_many_as_items(items: int, right: int, packed: bytes) -> None:
    with pytest.raises(ValidationError):
        Accuracy(items=items, right=right, asked="", answered=base64.b64encode(packed).decode())


@pytest.mark.parametrize("answered", ["oA", "oA==\n", "oB==", "ö", ""])
def test_answers_have_one_spelling(answered: str) -> None:
    assert accuracy([True, False, True]).answered == "oA=="
    with pytest.raises(ValidationError):
        Accuracy(items=3, right=2, asked="", answered=answered)


def test_a_series_once_a_night() -> None:
    with pytest.raises(ValidationError, match="twice"):
        type(night(1)).model_validate(night(1).model_dump() | {"runs": (run(series()), run(series(), ratio=2.0))})
