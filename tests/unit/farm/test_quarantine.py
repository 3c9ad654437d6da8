"""Devices whose control fails: from which night they are quarantined, until when, and where that is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from slmc.farm.morning.site import write_site
from slmc.farm.morning.standing import morning_of, until
from slmc.farm.quarantine import quarantined
from slmc.farm.record import Control, Night
from slmc.farm.tracks import Evening, Past

from .morning_case import gone, kept, morning, parsed
from .nights import BEGAN, night, run, series

LETTERS = {"p": "pass", "f": "fail", "n": "not run"}


def control(letter: str, device: str = "shelf-1") -> Control:
    reason = "" if letter == "p" else f"was killed {letter}"
    return Control.model_validate(
        {"device": device, "outcome": LETTERS[letter], "reason": reason, "decision_ms_p50": None}
    )


def past(said: str, hours: int = 24) -> Past:
    """A letter a night; a dot is one that has no control."""
    starts = [BEGAN.replace(hour=1) + number * timedelta(hours=hours) for number in range(len(said))]
    evenings = [Evening(f"night-{number}", start, start, 1) for number, start in enumerate(starts)]
    return Past(evenings, [], [], [(n, control(letter)) for n, letter in enumerate(said) if letter != "."])


@pytest.mark.parametrize(
    ("said", "since", "count"),
    [
        ("", None, 0),
        ("ff", None, 0),
        ("pff", None, 0),
        ("fff", "night-2", 3),
        ("ppfffff", "night-4", 5),
        ("fpfff", "night-4", 3),
        ("ffpff", None, 0),
        ("fffp", None, 0),
        ("fffpfff", "night-6", 3),
        ("fnff", "night-3", 3),  # what was not asked says nothing
        ("f.f.f", "night-4", 3),
        ("fffn", "night-2", 3),
        ("nnnnn", None, 0),
    ],
)
def test_three_nights_in_a_row(said: str, since: str | None, count: int) -> None:
    found = quarantined(past(said)).get("shelf-1")
    assert (None if found is None else (found.since, found.nights)) == (None if since is None else (since, count))


def test_nights_of_one_day_are_one() -> None:
    """As shards of a farm are, which each ask the control of a device."""
    assert quarantined(past("fffffff", hours=2)) == {}
    assert quarantined(past("fffffff", hours=12))["shelf-1"].nights == 4


def test_it_is_told_in_a_sentence() -> None:
    found = quarantined(past("ffff"))["shelf-1"]
    assert str(found) == ("quarantined since night-2: its control failed on 4 nights in a row, last: was killed f")


def nights(said: Sequence[str]) -> list[Night]:
    """Two devices, the first of which has its control say so."""
    found = []
    for number, letter in enumerate(said):
        its = run(series(device="shelf-1"))
        first = its if letter == "p" else gone(its.series, "its control failed: was killed f")
        controls = [control(letter), control("p", "shelf-2")]
        found.append(night(number, first, run(series(device="shelf-2")), controls=controls))
    return found


def test_the_report_names_it_on_the_overview_and_its_page(tmp_path: Path) -> None:
    history = kept(nights("pfff"), tmp_path)
    write_site(morning(history), tmp_path / "site")
    overview, first, second = (
        parsed((tmp_path / "site" / name).read_text(encoding="utf-8")).find("header")[0].text
        for name in ("index.html", "device-shelf-1.html", "device-shelf-2.html")
    )
    assert "shelf-1 is quarantined since night-3: its control failed on 3 nights in a row" in overview
    assert "shelf-1 is quarantined since night-3: its control failed" in first
    assert "uarantine" not in second
    told = json.loads((tmp_path / "site" / "report.json").read_text(encoding="utf-8"))["quarantined"]
    assert told == [{"device": "shelf-1", "since": "night-3", "nights": 3, "reason": "was killed f"}]


@pytest.mark.parametrize("name", ["night-2", "night-4"])
def test_the_report_of_another_night_is_as_it_was_then(tmp_path: Path, name: str) -> None:
    history = kept(nights("pfffp"), tmp_path)
    assert "shelf-1" in quarantined(until(history.past(), "night-3"))
    past_ = until(history.past(), name)
    write_site(morning_of(past_, history.night(name)), tmp_path / "site")
    assert "uarantine" not in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "site" / "report.json").read_text(encoding="utf-8"))["quarantined"] == []
