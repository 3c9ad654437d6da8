"""A bundle and its control in turn: what is counted, when a device is waited for, and when nothing can be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from slmc.devices.device import State, Thermal
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.interleaved import BUNDLE, CONTROL, run_rounds, summarize
from slmc.runners.contract import Chosen, Environment, Footer, Result, ResultHeader

PLAN = SpeedPlan(rounds=4, items=3, most_variation=0.05, cool_down_s=60)
ENVIRONMENT = Environment(
    device="d",
    os="o",
    runtime="slm",
    version="1",
    threads=1,
    thermal=None,
    artifact="a",
    precision="int4",
    batched=False,
)


def result(milliseconds: float, load_ms: float) -> Result:
    answers = {
        f"task/{number}": Chosen(
            id=f"task/{number}",
            prefill_ms=milliseconds * 0.75,
            decode_ms=milliseconds * 0.25,
            prefill_tokens=30,
            decode_tokens=2,
            decode_steps=1,
            choice=0,
            output_ids=(1,),
            text=None,
            choice_logprobs=((0, -0.1),),
            unexplored=0.0,
        )
        for number in range(3)
    }
    header = ResultHeader(workload="w", environment=ENVIRONMENT)
    return Result(header, answers, Footer(peak_memory_bytes=1 << 20, load_ms=load_ms))


class Asked:
    """Answers of given times, in the order in which they are asked."""

    def __init__(self, bundle: Sequence[float], control: Sequence[float]) -> None:
        self._times: dict[str, Iterator[float]] = {BUNDLE: iter(bundle), CONTROL: iter(control)}
        self.order: list[str] = []

    def __call__(self, name: str) -> Result:
        self.order.append(name)
        return result(next(self._times[name]), load_ms=100 + len(self.order))


def state(thermal: Thermal | None) -> State:
    return State(free_bytes=1, load=None, clock=None, thermal=thermal, temperature=None, battery=None, charging=None)


def test_the_first_round_is_left_out_and_slow_minutes_count_on_both_sides() -> None:
    asked = Asked(bundle=(90, 10, 30, 10, 10), control=(10, 20, 60, 20, 20))
    speed = summarize(run_rounds(asked, lambda: state(None), PLAN), PLAN)
    assert asked.order == [BUNDLE, CONTROL, CONTROL, BUNDLE, BUNDLE, CONTROL, CONTROL, BUNDLE, BUNDLE, CONTROL]
    assert speed.ratio == pytest.approx(0.5)
    assert speed.variation == pytest.approx(0)
    assert (speed.rounds, speed.verdict) == (4, "measured")
    assert speed.decision_ms_p50 == pytest.approx(10)
    assert speed.first_token_ms == pytest.approx(7.5)
    assert speed.prefill_tokens_per_s == pytest.approx(30 / 7.5e-3)
    assert speed.load_ms == 101  # the very first, whatever the files' cache made of later ones


def test_rounds_that_differ_tell_nothing() -> None:
    asked = Asked(bundle=(10, 10, 12, 8, 10), control=(10, 10, 10, 10, 10))
    speed = summarize(run_rounds(asked, lambda: state("none"), PLAN), PLAN)
    assert speed.verdict == "unclear"
    assert speed.variation == pytest.approx(0.1414, abs=1e-3)


def test_a_hot_device_is_waited_for_before_a_round() -> None:
    heat: Iterator[Thermal] = iter(["none", "severe", "moderate", "light", "none", "none", "none"])
    slept: list[float] = []
    asked = Asked(bundle=[10] * 5, control=[10] * 5)
    rounds = run_rounds(asked, lambda: state(next(heat)), PLAN, sleep=slept.append)
    assert slept == [10, 10]
    assert not rounds.hot
    assert summarize(rounds, PLAN).verdict == "measured"


def test_a_device_that_stays_hot_is_measured_and_not_believed() -> None:
    slept: list[float] = []
    asked = Asked(bundle=[10] * 5, control=[10] * 5)
    rounds = run_rounds(asked, lambda: state("severe"), PLAN, sleep=slept.append)
    assert sum(slept) == 60
    assert summarize(rounds, PLAN).verdict == "unclear"
