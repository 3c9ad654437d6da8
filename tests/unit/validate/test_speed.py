from __future__ import annotations

from pathlib import Path

import pytest

from slmc.errors import InputError
from slmc.runners.contract import Footer, Generated, GenerateItem, Result, ResultHeader, Workload
from slmc.runners.files import read_workload
from slmc.validate.speed import ROUNDS, WARM_UP, bench_workload, summarize, task_speed

from .conftest import Lab, environment


def answered(workload: Workload) -> Result:
    """Reading takes 2 ms a token and writing 5; warm-up ten times as long; each round is a percent slower."""
    answers = {}
    for item in workload.items:
        assert isinstance(item, GenerateItem)
        kind, phase, turn = item.id.split("/")
        slow = 10.0 if phase == "warm-up" else 1 + int(turn) / 100
        answers[item.id] = Generated(
            id=item.id,
            prefill_ms=2 * slow * len(item.input_ids),
            decode_ms=5 * slow * (item.max_tokens - 1),
            prefill_tokens=len(item.input_ids),
            decode_tokens=item.max_tokens - 1,
            decode_steps=item.max_tokens - 1,
            output_ids=(1,) * item.max_tokens,
            ended=False,
            text=None,
            logprobs=(-1.0,) * item.max_tokens,
        )
        assert kind in ("short", "long")
    header = ResultHeader(workload=workload.digest, environment=environment())
    return Result(header, answers, Footer(peak_memory_bytes=7, load_ms=3))


def test_the_protocol(tmp_path: Path) -> None:
    workload = bench_workload(300, 1024, 9, tmp_path / "w")
    items = [item for item in workload.items if isinstance(item, GenerateItem)]
    assert read_workload(tmp_path / "w") == workload
    assert [(len(item.input_ids), item.max_tokens) for item in items] == [(128, 64), (512, 1)] * (WARM_UP + ROUNDS)
    assert len({item.input_ids for item in items}) == len(items)
    assert all(item.ignore_end and max(item.input_ids) < 300 for item in items)
    assert workload == bench_workload(300, 1024, 9, tmp_path / "w2")


@pytest.mark.parametrize(("context", "short", "long"), [(575, 128, 512), (256, 128, 256), (128, 65, 128)])
def test_a_small_context_cuts_the_prompts_and_says_so(context: int, short: int, long: int, tmp_path: Path) -> None:
    workload = bench_workload(300, context, 9, tmp_path / "w")
    for item in workload.items:
        assert isinstance(item, GenerateItem)
        assert len(item.input_ids) + item.max_tokens - 1 <= context
    found = summarize(answered(workload))
    assert (found.short.prompt_tokens, found.short.wanted_tokens) == (short, 128)
    assert (found.long.prompt_tokens, found.long.wanted_tokens) == (long, 512)


def test_a_context_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too small"):
        bench_workload(300, 127, 9, tmp_path / "w")


def test_medians_and_spread_leave_the_warm_up_out(tmp_path: Path) -> None:
    found = summarize(answered(bench_workload(300, 1024, 9, tmp_path / "w")))
    middle = 1 + (WARM_UP + ROUNDS // 2) / 100
    assert found.short.tokens_per_s.median == pytest.approx(500 / middle)
    assert found.long.first_token_ms.median == pytest.approx(1024 * middle)
    decode = found.decode_tokens_per_s
    assert decode.median == pytest.approx(200 / middle)
    assert decode.least == pytest.approx(200 / (1 + (WARM_UP + ROUNDS - 1) / 100))
    assert decode.most == pytest.approx(200 / (1 + WARM_UP / 100))
    assert 0.01 < decode.variation < 0.03
    assert (found.decoded_tokens, decode.count, found.load_ms, found.peak_memory_bytes) == (64, ROUNDS, 3, 7)


def test_a_result_of_something_else_is_refused(lab: Lab) -> None:
    with pytest.raises(InputError, match="not one of a bench"):
        summarize(lab.read(lab.result("compiled")))


def test_a_tasks_own_speed(lab: Lab) -> None:
    found = task_speed(lab.read(lab.result("compiled", batched=True)))
    assert found.batched
    assert (found.decision_ms_p50, found.decision_ms[0], found.decision_ms[-1]) == (7.5, 3.0, 12.0)
    assert found.decode_tokens_per_s == pytest.approx(1000)
    tokens = sum(len(item.input_ids) for item in lab.workload.items if item.id.startswith("task/"))
    assert found.prefill_tokens_per_s == pytest.approx(1000 * tokens / (400 * 6.5))
    assert found.peak_memory_bytes == 50 * 2**20
