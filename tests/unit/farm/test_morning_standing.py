"""What a morning says of each series, held against how its nights were made."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from slmc.errors import InputError
from slmc.farm.changes import follow
from slmc.farm.history.history import History
from slmc.farm.morning import words
from slmc.farm.morning.bands import speed_bands
from slmc.farm.morning.health import health
from slmc.farm.morning.standing import Morning
from slmc.farm.morning.stories import still_worse, stories

from .morning_case import AWAY, BACK, EARLIER, FULL, LIMIT, QUIET, SHAKY, SLOWED, farm_nights, kept, morning, standing
from .nights import WHERE, night, run, series
from .simulated import Plan, farm


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return kept(farm_nights(), tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def found(history: History) -> Morning:
    return morning(history)


def test_each_series_has_the_state_that_its_nights_give_it(found: Morning) -> None:
    states = {one.series.device: one.state for one in found.standings if one.series.recipe == "router"}
    assert states == {
        SLOWED: "regression",
        FULL: "fail",
        AWAY: "not run",
        SHAKY: "can't tell",
        QUIET: "pass",
        BACK: "pass",
        EARLIER: "worse",
    }
    assert standing(found, QUIET, "retired").state == "not asked"
    assert found.counts() == dict.fromkeys(("fail", "not run", "regression", "worse", "can't tell", "not asked"), 1) | {
        "pass": 2
    }


def test_news_come_first_and_each_once(found: Morning) -> None:
    told = [
        (story.title.split(":")[0].split(",")[0], [one.series.device for one in story.standings])
        for story in stories(found)
    ]
    assert told == [
        ("Failed", [FULL]),
        ("Failed", [SLOWED]),
        ("Waits for a person", [AWAY]),
        ("Waits for a person", [SHAKY]),
        ("Better", [BACK]),
    ]
    [old] = still_worse(found)
    assert [one.series.device for one in old.standings] == [EARLIER]


def test_reasons_name_nights_sizes_and_what_changed(found: Morning) -> None:
    [slowed] = words.reasons(found.past, standing(found, SLOWED))
    assert slowed.startswith("regression: speed +")
    assert slowed.endswith("of time since night-12, after night-11; os 17.1 → 17.2")
    assert words.reasons(found.past, standing(found, AWAY)) == ["not attached (2 nights in a row)"]
    assert words.reasons(found.past, standing(found, FULL)) == ["44 MiB of memory"]
    assert words.reasons(found.past, standing(found, BACK)) == ["not run on night-12"]
    [earlier] = words.reasons(found.past, standing(found, EARLIER))
    assert earlier.startswith("still worse: regression")
    assert "since night-6, after night-5; os 17.1 → 17.3" in earlier
    [shaky] = words.reasons(found.past, standing(found, SHAKY))
    assert shaky.endswith("(14 nights in a row)")
    assert words.reasons(found.past, standing(found, QUIET, "retired")) == ["last asked on night-12: pass"]
    assert words.memory(standing(found, QUIET)) == "29 of 40 MiB"
    assert standing(found, QUIET).limit == LIMIT


def test_an_earlier_night_is_told_as_it_was_then(history: History, tmp_path: Path) -> None:
    """As a history says that never had the later nights."""
    then = morning(history, "night-7")
    alone = morning(kept(farm_nights()[:8], tmp_path))
    assert then.night.id == "night-7"
    assert [(one.series, one.state) for one in then.standings] == [(one.series, one.state) for one in alone.standings]
    assert standing(then, EARLIER).state == "regression"
    assert standing(then, SLOWED).state == "pass"


def test_unknown_names_are_refused_and_the_nearest_told(history: History) -> None:
    with pytest.raises(InputError, match="no night night-99"):
        morning(history, "night-99")
    with pytest.raises(InputError, match="no recipe ruoter") as refused:
        morning(history, recipe="ruoter")
    assert "router" in (refused.value.todo or "")
    assert {one.series.recipe for one in morning(history, recipe="router").standings} == {"router"}


def test_an_empty_history_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no night yet"):
        morning(kept([], tmp_path))


def test_a_night_without_runs_is_a_morning(tmp_path: Path) -> None:
    found = morning(kept([night(1)], tmp_path))
    assert (found.standings, words.headline(found)) == ([], "nothing was asked")


def test_series_of_one_cause_are_one_story(tmp_path: Path) -> None:
    """Ten recipes on a phone that got another system."""
    recipes = [f"recipe-{number}" for number in range(10)]
    nights = []
    for number in range(8):
        where = WHERE.model_copy(update={"os": "18"}) if number >= 6 else WHERE
        noise = 0.001 * (number % 3)
        sizes = [1.1 + 0.01 * index if number >= 6 else 1.0 for index in range(10)]
        answers = [True] * 100
        nights.append(
            night(
                number,
                *(run(series(name), answers, by + noise, where) for name, by in zip(recipes, sizes, strict=True)),
            )
        )
    [story] = stories(morning(kept(nights, tmp_path)))
    assert len(story.standings) == 10
    [reason] = story.reasons
    assert "since night-6, after night-5; os 17.1 → 18" in reason
    low, high = reason.split("speed +")[1].split(" of time")[0].split("% to +")
    assert float(low) == pytest.approx(10, abs=0.3)
    assert float(high.rstrip("%")) == pytest.approx(19, abs=0.3)


def test_health_counts_nights_and_names_what_changed(found: Morning) -> None:
    its = [one for one in found.standings if one.series.device == SLOWED]
    told = health(found.past, its, 0)
    assert told.runs == {"measured": 14, "unclear": 0, "failed": 0, "not run": 0}
    assert told.known["system"] == "17.2"
    assert [(turn.evening, turn.name, turn.was, turn.now) for turn in told.turns] == [(12, "system", "17.1", "17.2")]
    assert told.typical == pytest.approx(0.01)
    shaky = health(found.past, [standing(found, SHAKY)], 4)
    assert shaky.runs["unclear"] == len(shaky.variations) == 10
    assert shaky.typical == pytest.approx(0.2)
    away = health(found.past, [standing(found, AWAY)], 0)
    assert (away.runs["not run"], away.variations[-2:]) == (2, [None, None])


@pytest.mark.parametrize("plan", [Plan(10, 60, planted=30), Plan(10, 60, threads=2), Plan(10, 60, scale=3.0)])
def test_the_band_is_the_one_that_the_test_uses(plan: Plan) -> None:
    """A night beyond it is told to be a change or to want a second; one within it never is the first of two."""
    past = farm(plan, 3)
    tracks = {track.series: track for track in past.tracks}
    beyond = 0
    for followed in follow(past):
        if followed.metric != "speed":
            continue
        points = tracks[followed.series].points
        for point, said, band in zip(
            points, followed.said, speed_bands(past, tracks[followed.series], followed), strict=True
        ):
            if band is None:
                assert said.call == "can't tell"
                continue
            assert point.ratio is not None
            within = band.low < point.ratio < band.high
            beyond += not within
            if said.found is None:
                assert ("a second such night" in said.reason) == (not within)
    assert beyond or plan.planted is None


def test_another_control_begins_another_band() -> None:
    plan = Plan(1, 20)
    past = farm(plan, 1)
    other = WHERE.model_copy(update={"control": "control-2"})
    track = past.tracks[0]
    points = [point._replace(circumstances=2 if point.evening >= 10 else 0) for point in track.points]
    changed = replace(past, circumstances=[*past.circumstances, other], tracks=[replace(track, points=points)])
    [followed] = [one for one in follow(changed) if one.metric == "speed"]
    bands = list(speed_bands(changed, changed.tracks[0], followed))
    assert [night for night, band in enumerate(bands) if band is None and points[night].verdict == "measured"] == [
        0,
        1,
        2,
        10,
        11,
        12,
    ]
    assert all(math.isfinite(band.high) for band in bands if band)
