"""Whatever the nights were: every one gets a verdict, and changes come in order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from slmc.farm.changes import METRICS, follow
from slmc.farm.record import Run

from .nights import WHERE, accuracy, night, past_of, run, series, speed

_bits = st.lists(st.booleans(), min_size=8, max_size=8)
_accuracies = st.builds(
    lambda bits, times, asked: accuracy(bits * times, asked), _bits, st.just(40), st.sampled_from("ab")
)
_speeds = st.builds(
    speed,
    st.sampled_from([0.5, 0.9, 1.0, 1.0, 1.0, 1.001, 1.1, 1e-300, 1e300]),
    st.sampled_from([0.0, 0.01, 0.3, 1e300]),
    st.sampled_from(["measured", "measured", "measured", "unclear"]),
)


def _run(answers: object, measured: object, control: str | None) -> Run:
    where = WHERE.model_copy(update={"control": control})
    return run(series()).model_copy(update={"accuracy": answers, "speed": measured, "circumstances": where})


_runs = st.builds(_run, st.none() | _accuracies, st.none() | _speeds, st.sampled_from(["c", "c", "c", "d", None]))


@settings(max_examples=300, deadline=None)
@given(st.lists(_runs, min_size=1, max_size=30))
def test_any_nights_are_judged(runs: list[Run]) -> None:
    past = past_of([night(number, one) for number, one in enumerate(runs)])
    found = follow(past)
    measured = [any(one.accuracy for one in runs), any(one.speed for one in runs)]
    assert [one.metric for one in found] == [metric for metric, was in zip(METRICS, measured, strict=True) if was]
    for one in found:
        assert len(one.said) == len(runs)
        assert [said.call for said in one.said if said.found] == [change.call for change in one.changes]
        assert all(said.reason for said in one.said)
        assert all(change.before < change.first <= change.told for change in one.changes)
        assert all(change.interval.low - 0.02 <= change.size <= change.interval.high + 0.02 for change in one.changes)
        told = [change.told for change in one.changes]
        assert told == sorted(set(told))
