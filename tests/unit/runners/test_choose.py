"""The search against brute force over every choice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.errors import InputError, RunnerError
from slmc.runners.choose import UNEXPLORED, Verdict, search
from slmc.text.choices import tree

END = 9
VOCAB = 10

words = st.lists(st.integers(0, 3), min_size=0, max_size=5).map(lambda ids: (*ids, END))
choice_sets = st.lists(words, min_size=1, max_size=30, unique=True)


def logits_after(path: tuple[int, ...], seed: int, sharpness: float) -> np.ndarray:
    rng = np.random.default_rng([seed, *path])
    return (rng.standard_normal(VOCAB) * sharpness).astype(np.float32)


def decide(choices: list[tuple[int, ...]], seed: int, sharpness: float) -> tuple[Verdict, list[tuple[int, ...]]]:
    steps, asked = search(tree(choices)), []
    try:
        path = next(steps)
        while True:
            asked.append(path)
            path = steps.send(logits_after(path, seed, sharpness))
    except StopIteration as done:
        return done.value, asked


def brute_force(choices: list[tuple[int, ...]], seed: int, sharpness: float) -> list[float]:
    """Each choice's log-probability by walking it token by token, restricting to what can follow."""
    totals = []
    for choice in choices:
        total = 0.0
        for depth in range(len(choice)):
            start = choice[:depth]
            follow = sorted({other[depth] for other in choices if other[:depth] == start})
            logits = logits_after(start, seed, sharpness).astype(np.float64)
            total += logits[choice[depth]] - math.log(sum(math.exp(logits[token]) for token in follow))
        totals.append(total)
    return totals


@given(choice_sets, st.integers(0, 1000), st.sampled_from([0.1, 1.0, 5.0]))
def test_the_search_finds_what_brute_force_finds(choices, seed, sharpness):
    verdict, asked = decide(choices, seed, sharpness)
    wanted = brute_force(choices, seed, sharpness)
    assert verdict.choice == int(np.argmax(wanted))
    for choice, logprob in verdict.logprobs.items():
        assert logprob == pytest.approx(wanted[choice], abs=1e-9)
    told = sum(math.exp(logprob) for logprob in verdict.logprobs.values())
    assert told + verdict.unexplored == pytest.approx(1, abs=1e-9)
    assert verdict.unexplored < UNEXPLORED
    assert len(set(asked)) == len(asked)


@given(choice_sets, st.integers(0, 1000))
def test_a_path_is_asked_for_only_where_choices_part(choices, seed):
    _, asked = decide(choices, seed, 0.1)
    for path in asked:
        assert len({other[len(path)] for other in choices if other[: len(path)] == path}) > 1


def test_a_sharp_model_is_asked_little():
    choices = [(a, b, END) for a in range(4) for b in range(4)]
    steps = search(tree(choices))
    sharp = np.full(VOCAB, -30, np.float32)
    sharp[2] = 30
    assert next(steps) == ()
    assert steps.send(sharp) == (2,)
    with pytest.raises(StopIteration) as done:
        steps.send(sharp)
    assert done.value.value.choice == choices.index((2, 2, END))
    assert done.value.value.unexplored < UNEXPLORED


def test_one_choice_costs_nothing():
    with pytest.raises(StopIteration) as done:
        next(search(tree([(1, 2, END)])))
    assert done.value.value == Verdict(0, {0: 0.0}, 0.0)


@pytest.mark.parametrize("choices", [[], [()], [(1, END), (1, END)], [(1,), (3, END), (1, END)]])
def test_choices_that_can_not_be_told_apart_are_refused(choices):
    with pytest.raises(InputError):
        tree(choices)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(bad):
    steps = search(tree([(0, END), (1, END)]))
    next(steps)
    with pytest.raises(RunnerError, match="not finite"):
        steps.send(np.full(VOCAB, bad, np.float32))
