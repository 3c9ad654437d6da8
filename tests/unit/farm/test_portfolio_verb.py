"""`slmc select`, of a history in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slmc.cli.main import cli
from slmc.errors import GateFailed, GateUnclear, HistoryError, InputError
from slmc.farm.portfolio.choice import Portfolio
from slmc.farm.record import Night, Run

from .morning_case import gone, kept
from .nights import night
from .portfolio_case import Phone, chosen, in_class, portfolio

NINE, TEN, BIG = Phone("shelf-1"), Phone("shelf-2", "Phone 10 [blue]"), Phone("shelf-3", "Phone 11", "6 GB")


def nights(*runs: Sequence[Run]) -> list[Night]:
    return [night(number, *each) for number, each in enumerate(runs)]


WELL = [NINE.run(ms=12.5), TEN.run(ms=3), BIG.run(outcome="fail")]
FARM = nights(WELL, WELL)


def asked(folder: Path, *words: object, recipe: str = "router") -> Result:
    options = ("--db", folder / "history.sqlite", "--out", folder / "out" / "portfolio.json")
    return CliRunner().invoke(cli, ["select", *map(str, (*options, *words)), "--", recipe])


def written(folder: Path) -> Portfolio:
    assert [path.name for path in (folder / "out").iterdir()] == ["portfolio.json"]
    return Portfolio.model_validate_json((folder / "out" / "portfolio.json").read_bytes())


def test_the_file_and_the_table(tmp_path: Path) -> None:
    kept(FARM, tmp_path)
    done = asked(tmp_path)
    assert done.exit_code == 0, done.output
    assert written(tmp_path) == portfolio(FARM)
    text = " ".join(done.output.split())
    assert "android Phone 10 [blue] tvm new of tvm 3 ms 66.67% 31.5 MB of 2,147.5 MB 1 device, 2 nights" in text
    assert "android class 4 GB tvm new of tvm 12.5 ms 66.67% 31.5 MB of 2,147.5 MB 2 devices, 2 nights" in text
    assert "android class 6 GB none tvm: failed on Phone 11 with 17.1: night-1: it is a fail" in text
    assert "android class 8 GB none never measured" in text


def test_the_same_bytes_in_whatever_order_nights_were_added(tmp_path: Path) -> None:
    found = []
    for number, order in enumerate((FARM, FARM[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        kept(order, folder)
        assert asked(folder).exit_code == 0
        found.append((folder / "out" / "portfolio.json").read_bytes())
        assert json.loads(asked(folder, "--json").output) == json.loads(found[-1])
    assert found[0] == found[1]


def test_options_narrow_what_counts(tmp_path: Path) -> None:
    kept(nights([NINE.run(outcome="fail")], *[[NINE.run()]] * 3), tmp_path)
    assert isinstance(asked(tmp_path).exception, GateFailed)
    assert asked(tmp_path, "--since", "2026-01-02").exit_code == 0
    assert asked(tmp_path, "--nights", 3).exit_code == 0
    slow = asked(tmp_path, "--nights", 3, "--max-ms", 1).exception
    assert isinstance(slow, GateFailed)
    assert "too slow: 2 ms of 1" in str(slow)
    assert (written(tmp_path).nights, written(tmp_path).max_ms) == (3, 1.0)
    for wrong in (("--since", "2027-01-01"), ("--max-ms", "nan"), ("--max-ms", "inf")):
        assert isinstance(asked(tmp_path, *wrong).exception, InputError)


def test_nothing_supported_is_told_by_the_exit_code_and_written(tmp_path: Path) -> None:
    kept(nights([NINE.run()]), tmp_path)
    once = asked(tmp_path)
    assert isinstance(once.exception, GateUnclear)
    assert in_class(written(tmp_path).targets[0]) == "tvm: measured once on Phone 9 with 17.1: night-0"
    kept([night(1, NINE.run(outcome="fail"))], tmp_path)
    assert isinstance(asked(tmp_path).exception, GateFailed)
    assert written(tmp_path).night == "night-1"


def test_a_class_that_fails_beside_one_that_passes_is_no_failure(tmp_path: Path) -> None:
    kept(FARM, tmp_path)
    assert asked(tmp_path).exit_code == 0
    assert in_class(written(tmp_path).targets[0]) == chosen()


@pytest.mark.parametrize("name", ["../../etc/passwd", "--help", "[red]x[/nothing]", "a\nb \x1b[2J ü", " "])
def test_recipes_of_hostile_names(name: str, tmp_path: Path) -> None:
    kept(nights(*[[NINE.run(recipe=name)]] * 2), tmp_path)
    done = asked(tmp_path, recipe=name)
    assert done.exit_code == 0, done.output
    assert written(tmp_path).recipe == name
    assert isinstance(asked(tmp_path, recipe=name + "x").exception, InputError)


def test_a_target_without_classes(tmp_path: Path) -> None:
    here = NINE.series().model_copy(update={"target": "host"})
    runs = [one.model_copy(update={"series": here}) for one in (NINE.run(), NINE.run(), gone(here, "away"))]
    kept(nights(*[[one] for one in runs[:1]]), tmp_path)
    once = asked(tmp_path)
    assert isinstance(once.exception, GateUnclear)
    assert "host none tvm: measured once: night-0" in " ".join(once.output.split())
    kept([night(number, one) for number, one in enumerate(runs) if number], tmp_path)
    assert asked(tmp_path).exit_code == 0


def test_no_history(tmp_path: Path) -> None:
    assert isinstance(asked(tmp_path).exception, HistoryError)
    kept([], tmp_path)
    assert isinstance(asked(tmp_path).exception, InputError)
    assert not (tmp_path / "out").exists()
