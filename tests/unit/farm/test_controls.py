"""Which of this machine's kernels a device is held against, and what counts as another answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slmc.errors import InputError
from slmc.farm.controls import difference, kernels_like, kernels_of
from slmc.runners.contract import Answer, Generated, Result

from .test_interleaved import result

HERE = ("avx512vnni", "avx2", "avx2_exact", "sse2_exact")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("i8mm", "avx512vnni"),
        ("dotprod", "avx512vnni"),
        ("avx2", "avx2"),
        ("neon_exact", "avx2_exact"),
        ("sse2_exact", "sse2_exact"),
    ],
)
def test_kernels_of_the_same_bits(theirs: str, ours: str) -> None:
    assert kernels_like(theirs, HERE) == ours


def test_a_machine_without_such_kernels() -> None:
    with pytest.raises(InputError, match="same bits as i8mm"):
        kernels_like("i8mm", ("sse2_exact",))


def test_kernels_are_named_by_the_runner() -> None:
    found = result(1, 1)
    environment = found.environment.model_copy(update={"version": "0.1, i8mm"})
    assert kernels_of(replace(found, header=found.header.model_copy(update={"environment": environment}))) == "i8mm"


def edited(**changes: object) -> Result:
    found = result(1, 1)
    answers = dict(found.answers)
    answers["task/1"] = answers["task/1"].model_copy(update=changes)
    return replace(found, answers=answers)


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": 1},
        {"input_ids": (1, 2)},
        {"choice_logprobs": ((0, -0.10001),)},
        {"choice_logprobs": ((1, -0.1),)},
        {"choice_logprobs": ((0, -0.1), (1, -3.0))},
    ],
)
def test_another_answer_is_named(changes: dict[str, object]) -> None:
    told = "1 of 3 items are answered otherwise than on the farm's machine, the first is 'task/1'"
    assert difference(edited(**changes), result(1, 1)) == told


@pytest.mark.parametrize("changes", [{}, {"prefill_ms": 99.0}, {"choice_logprobs": ((0, -0.100001),)}])
def test_times_and_a_last_digit_are_no_other_answer(changes: dict[str, object]) -> None:
    assert difference(edited(**changes), result(1, 1)) == ""


@pytest.mark.parametrize(
    ("changes", "same"),
    [({}, True), ({"output_ids": (5,)}, False), ({"ended": False}, False), ({"logprobs": (-0.1, -0.3)}, False)],
)
def test_text_is_compared_id_by_id(changes: dict[str, object], same: bool) -> None:
    times = {"prefill_ms": 1.0, "decode_ms": 1.0, "prefill_tokens": 1, "decode_tokens": 1, "decode_steps": 1}
    told = {"id": "a", "output_ids": (4,), "ended": True, "text": None, "logprobs": (-0.1, -0.2)}
    answer: Answer = Generated.model_validate({**times, **told})
    found, expected = (replace(result(1, 1), answers={"a": one}) for one in (answer.model_copy(update=changes), answer))
    assert (difference(found, expected) == "") == same
