"""Divergence over watched tokens against the whole vocabulary's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.validate.divergence import agreement, divergence, kl

from .conftest import OTHER, SURE, Lab


def distributions(seed: int, sharpness: float, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of 4096 tokens, and of a disturbed copy."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((2, 4096)) * [[sharpness], [apart]]
    logits[1] += logits[0]
    return tuple(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))  # type: ignore[return-value]


@given(st.integers(0, 10_000), st.sampled_from([0.5, 3.0, 8.0]), st.sampled_from([0.01, 0.3, 2.0]))
def test_the_watched_divergence_is_a_lower_bound(seed: int, sharpness: float, apart: float) -> None:
    first, second = distributions(seed, sharpness, apart)
    whole = float((np.exp(first) * (first - second)).sum())
    top = np.argsort(-first)[:64]
    watched = kl(first[top], second[top])
    assert 0 <= watched <= whole + 1e-9
    if np.exp(first[top]).sum() > 0.9999:
        assert watched == pytest.approx(whole, rel=0.05, abs=1e-4)


def test_watching_everything_is_exact() -> None:
    first, second = np.log([0.5, 0.3, 0.2]), np.log([0.4, 0.4, 0.2])
    assert kl(first, second) == pytest.approx(0.5 * np.log(0.5 / 0.4) + 0.3 * np.log(0.3 / 0.4), abs=1e-7)


def test_rounded_log_probabilities_of_the_same_model_hardly_differ() -> None:
    first, _ = distributions(1, 3.0, 0.1)
    top = np.argsort(-first)[:64]
    assert kl(first[top], np.round(first[top], 6)) < 1e-6


def test_results_are_compared_at_every_scored_position(lab: Lab) -> None:
    reference, rung = lab.read(lab.result("reference")), lab.read(lab.result("rung", sure=0.8))
    found = divergence(reference, reference, rung)
    assert found is not None
    wanted = SURE * np.log(SURE / 0.8) + (1 - SURE) * np.log((1 - SURE) / 0.2)
    assert found.mean == pytest.approx(wanted, abs=1e-5)
    assert (found.interval.low, found.interval.high, found.p99) == pytest.approx((wanted,) * 3, abs=1e-5)
    positions = sum(len(item.score_ids) for item in lab.workload.items if item.mode == "score")
    assert (found.items, found.positions) == (100, positions)
    again = divergence(reference, rung, rung)
    assert again is not None
    assert again.mean == 0


def test_what_was_not_watched_is_not_measured(lab: Lab) -> None:
    reference = lab.read(lab.result("reference"))
    assert divergence(reference, reference, lab.read(lab.result("rung", workload=lab.plain))) is None


def test_agreement_counts_first_choices(lab: Lab) -> None:
    swapped = [item.id.partition("/")[2] for item in lab.workload.items if item.mode == "score"][:25]
    reference, rung = lab.read(lab.result("reference")), lab.read(lab.result("rung", swapped=swapped))
    found = agreement(reference, rung)
    assert found is not None
    lengths = [len(item.score_ids) for item in lab.workload.items if item.mode == "score"]
    assert found.count == sum(lengths) - sum(lengths[:25])
    assert OTHER not in {item.score_ids[0] for item in lab.workload.items if item.mode == "score"}
