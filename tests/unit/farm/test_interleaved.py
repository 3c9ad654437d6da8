"""A bundle and its control in turn: what is counted, when a device is waited for, and when nothing can be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from slmc.devices.device import State, Thermal
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.interleaved import BUNDLE, CONTROL, run_rounds, summarize
from slmc.farm.record import Conditions
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


def result(milliseconds: float, load_ms: float, sustained: tuple[int, ...] | None = None) -> Result:
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
    return Result(header, answers, Footer(peak_memory_bytes=1 << 20, load_ms=load_ms, sustained=sustained))


class Asked:
    """Answers of given times, in the order in which they are asked."""

    def __init__(self, bundle: Sequence[float], control: Sequence[float]) -> None:
        self._times: dict[str, Iterator[float]] = {BUNDLE: iter(bundle), CONTROL: iter(control)}
        self.order: list[str] = []

    def __call__(self, name: str) -> Result:
        self.order.append(name)
        return result(next(self._times[name]), load_ms=100 + len(self.order))


def state(thermal: Thermal | None = None, **told: object) -> State:
    silent = dict.fromkeys(("load", "clock", "temperature", "battery", "charging"))
    return State.model_validate({"free_bytes": 1, "thermal": thermal, **silent, **told})


def test_the_first_round_is_left_out_and_slow_minutes_count_on_both_sides() -> None:
    asked = Asked(bundle=(90, 10, 30, 10, 10), control=(10, 20, 60, 20, 20))
    speed = summarize(run_rounds(asked, lambda: state(None), PLAN), PLAN)
    assert asked.order == [BUNDLE, CONTROL, CONTROL, BUNDLE, BUNDLE, CONTROL, CONTROL, BUNDLE, BUNDLE, CONTROL]
    assert speed.ratio == pytest.approx(0.5)
    assert speed.variation == pytest.approx(0)
    assert (speed.rounds, speed.verdict, speed.reason) == (4, "measured", "")
    assert speed.decision_ms_p50 == pytest.approx(10)
    assert speed.first_token_ms == pytest.approx(7.5)
    assert speed.prefill_tokens_per_s == pytest.approx(30 / 7.5e-3)
    assert speed.load_ms == 101  # the very first, whatever the files' cache made of later ones


def test_rounds_that_differ_tell_nothing() -> None:
    asked = Asked(bundle=(10, 10, 12, 8, 10), control=(10, 10, 10, 10, 10))
    speed = summarize(run_rounds(asked, lambda: state("none"), PLAN), PLAN)
    assert speed.verdict == "unclear"
    assert speed.variation == pytest.approx(0.1414, abs=1e-3)
    assert speed.reason == "the rounds' ratios vary by 14.1%, more than 5.0%"


def test_a_hot_device_is_waited_for_before_a_round() -> None:
    heat: Iterator[Thermal] = iter(["none", "severe", "moderate", "light", "none", "none", "none", "none"])
    slept: list[float] = []
    asked = Asked(bundle=[10] * 5, control=[10] * 5)
    rounds = run_rounds(asked, lambda: state(next(heat)), PLAN, sleep=slept.append)
    assert slept == [10, 10]
    assert [one.thermal for one in rounds.states] == ["none", "light", "none", "none", "none", "none"]
    assert summarize(rounds, PLAN).verdict == "measured"


def test_a_device_that_stays_hot_is_measured_and_not_believed() -> None:
    slept: list[float] = []
    asked = Asked(bundle=[10] * 5, control=[10] * 5)
    rounds = run_rounds(asked, lambda: state("severe"), PLAN, sleep=slept.append)
    assert sum(slept) == 60
    speed = summarize(rounds, PLAN)
    assert (speed.verdict, speed.reason) == ("unclear", "the device stayed hot (severe heat)")


@pytest.mark.parametrize(
    ("battery", "charging", "verdict"),
    [(0.19, False, "unclear"), (0.19, None, "unclear"), (0.19, True, "measured"), (0.2, False, "measured")],
)
def test_a_battery_that_is_low_is_not_believed(battery: float, charging: bool | None, verdict: str) -> None:
    asked = Asked(bundle=[10] * 5, control=[10] * 5)
    rounds = run_rounds(asked, lambda: state(battery=battery, charging=charging), PLAN)
    speed = summarize(rounds, PLAN)
    assert speed.verdict == verdict
    assert speed.reason == ("its battery is low and not being charged (battery 19%)" if verdict == "unclear" else "")


def test_a_battery_that_becomes_low_in_the_last_round() -> None:
    shares: Iterator[float] = iter([0.22, 0.22, 0.21, 0.2, 0.2, 0.19])
    asked = Asked(bundle=[10] * 5, control=[10] * 5)
    rounds = run_rounds(asked, lambda: state(battery=next(shares), charging=False), PLAN)
    assert summarize(rounds, PLAN).verdict == "unclear"


def test_the_worst_that_was_told_is_kept_and_said_where_nothing_can_be_told() -> None:
    told: Iterator[State] = iter(
        [
            state("none", load=0.2, clock=1.0, temperature=30.0, battery=0.8, charging=False),
            state("light", load=0.9, clock=0.6, temperature=44.4, battery=0.79, charging=False),
            *[state("none", load=0.1, clock=1.0, temperature=31.0, battery=0.78, charging=True)] * 4,
        ]
    )
    asked = Asked(bundle=(10, 10, 12, 8, 10), control=(10, 10, 10, 10, 10))
    speed = summarize(run_rounds(asked, lambda: next(told), PLAN), PLAN)
    assert speed.conditions == Conditions(
        load=0.9, clock=0.6, thermal="light", temperature=44.4, battery=0.78, charging=True
    )
    assert speed.reason.endswith("5.0% (load 0.90 a core, clock at 60%, light heat, 44 °C, battery 78%, charging)")
