"""False alarms on quiet nights of recorded noise, and planted regressions: a few seconds' worth, and the whole.

`scripts/test -m soak -n 0 -s tests/unit/farm` prints the figures of docs/history.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from slmc.farm.changes import follow

from .simulated import LOST, WON, Plan, Tally, farm, recorded, tally

FARM = 500
"""Series: 50 devices with 10 recipes."""


def test_the_noise_is_of_dozens_of_nights() -> None:
    kinds, items = recorded()
    assert all(len(kind.ratios) >= 50 for kind in kinds.values())
    assert (len(items.bits), int(items.bits.sum())) == (4500, 4033)
    assert (LOST - WON) / len(items.bits) == 0.02


@pytest.mark.parametrize("threads", [1, 2])
def test_quiet_nights_raise_no_alarm(threads: int) -> None:
    for found in tally(Plan(40, 100, threads=threads), 1).values():
        assert found.series_nights == 4000
        assert found.alarms == 0


@pytest.mark.parametrize("planted", [8, 30])
def test_planted_regressions_are_found_in_two_nights(planted: int) -> None:
    for found in tally(Plan(60, planted + 10, planted), 2).values():
        assert found.in_two >= 59
        assert found.alarms == found.silent == 0


def test_a_steady_series_is_seldom_unsure() -> None:
    for found in tally(Plan(40, 100), 1).values():
        assert found.unsure < found.series_nights / 8


def test_a_test_that_is_too_eager_would_be_seen() -> None:
    """The same nights raise alarms where hundreds are allowed."""
    eager = follow(farm(Plan(40, 100), 1), alarms=5)
    assert sum(len(one.changes) for one in eager) > 0


@pytest.mark.soak
@pytest.mark.parametrize(("threads", "farms"), [(1, 5), (2, 2)])
def test_a_quiet_farm_of_500_series(threads: int, farms: int) -> None:
    """Fewer alarms than one in a hundred nights of the whole farm, by both metrics together."""
    found = tally(Plan(FARM, 120, threads=threads), *range(farms))
    show(f"quiet, {threads} threads", found)
    assert sum(one.alarms for one in found.values()) < farms * 120 / 100


@pytest.mark.soak
@pytest.mark.parametrize("planted", [8, 30, 90])
def test_planted_in_a_farm_of_500_series(planted: int) -> None:
    """All but one in a hundred are found in two nights, with the right first night and what changed on it."""
    found = tally(Plan(FARM, planted + 10, planted), 100 + planted)
    show(f"planted on night {planted}", found)
    for one in found.values():
        assert one.in_two >= 0.99 * FARM
        assert one.silent <= FARM / 100


@pytest.mark.soak
@pytest.mark.parametrize("scale", [2, 3])
def test_noisier_devices(scale: float) -> None:
    """They take longer, and say so meanwhile; they raise no more alarms."""
    quiet, found = tally(Plan(FARM, 100, scale=scale), 7)["speed"], tally(Plan(FARM, 40, 30, scale=scale), 8)["speed"]
    show(f"{scale} times as noisy", {"speed, quiet": quiet, "speed, planted on night 30": found})
    assert quiet.alarms <= 1
    assert found.silent <= FARM / 100


@pytest.mark.soak
def test_tails_heavier_than_the_test_s_own() -> None:
    found = tally(Plan(FARM, 120, tails=4), *range(3))["speed"]
    show("tails of 4 degrees", {"speed": found})
    assert found.alarms < 3 * 120 / 100


def show(what: str, found: Mapping[str, Tally]) -> None:
    for name, one in found.items():
        sys.stdout.write(f"\n{what}, {name}: {one}")
