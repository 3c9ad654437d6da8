"""`slmc history`, of a farm of two devices on one of which a new system made a bundle slower."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result

from slmc.cli.main import cli
from slmc.errors import HistoryError, InputError
from slmc.farm.history.history import History

from .nights import WHERE, night, run, series

ANSWERS = [index % 10 > 0 for index in range(4500)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    history, random = History.open(path), Random(1)
    for number in range(14):
        updated = number >= 10
        phone = WHERE.model_copy(update={"os": "17.2 [beta]"}) if updated else WHERE
        ratios = [random.gauss(1.1 if updated else 1, 0.003), random.gauss(1, 0.003)]
        never = run(series("idle", "shelf-3")).model_copy(
            update={"outcome": "not run", "reason": "not [found]", "accuracy": None, "speed": None}
        )
        runs = (run(series(), ANSWERS, ratios[0], phone), run(series(device="shelf-2"), ANSWERS, ratios[1]), never)
        history.add(night(number, *runs))
    return path


def asked(*words: object) -> Result:
    return CliRunner().invoke(cli, ["history", *map(str, words)])


def test_what_changed_is_shown_with_its_first_night(database: Path) -> None:
    shown = asked("--db", database)
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "night-10, after night-9" in text
    assert "os 17.1 → 17.2 [beta]" in text
    assert text.count("regression") == 2  # among the changes, and beside the series' last night
    assert "30.0 MB" in text
    assert "night-13 2026-01-14 22:00 3 1 not run, 2 pass" in text
    assert "not [found]" in text
    assert "night-0" not in text


def test_json_tells_all(database: Path) -> None:
    told = json.loads(asked("--db", database, "--json").output)
    assert [one["id"] for one in told["nights"]] == [f"night-{number}" for number in range(14)]
    assert told["unmeasured"] == [series("idle", "shelf-3").model_dump()]
    assert len(told["series"]) == 4
    [slower] = [one for one in told["series"] if one["changes"]]
    assert (slower["device"], slower["metric"], len(slower["verdicts"])) == ("shelf-1", "speed", 14)
    [change] = slower["changes"]
    assert [change[name] for name in ("call", "before", "first", "told")] == [
        "regression",
        "night-9",
        "night-10",
        "night-11",
    ]
    assert change["differences"] == [{"name": "os", "was": "17.1", "now": "17.2 [beta]"}]
    assert change["interval"]["low"] < 0.1 < change["interval"]["high"]
    assert slower["verdicts"][11]["call"] == "regression"
    assert (slower["verdicts"][0]["right"], slower["verdicts"][0]["peak_memory_bytes"]) == (4050, 30_000_000)


def test_what_is_shown_can_be_narrowed(database: Path) -> None:
    told = json.loads(asked("--db", database, "--json", "--device", "shelf-2", "--since", "2026-01-13").output)
    assert [one["id"] for one in told["nights"]] == ["night-12", "night-13"]
    assert {one["device"] for one in told["series"]} == {"shelf-2"}
    assert {len(one["verdicts"]) for one in told["series"]} == {2}
    told = json.loads(asked("--db", database, "--json", "--since", "2026-01-13").output)
    assert not any(one["changes"] for one in told["series"])
    assert "No change was found." in asked("--db", database, "--since", "2027-01-01").output


@pytest.mark.parametrize(
    ("option", "name", "hint"), [("--recipe", "ruter", "router"), ("--device", "shelf-9", "shelf-")]
)
def test_a_name_that_is_not_there(database: Path, option: str, name: str, hint: str) -> None:
    shown = asked("--db", database, option, name)
    assert isinstance(shown.exception, InputError)
    assert hint in str(shown.exception)


def test_no_history_yet(tmp_path: Path) -> None:
    shown = asked("--store", tmp_path)
    assert isinstance(shown.exception, HistoryError)
    assert shown.exception.where == str(tmp_path / "history.sqlite")
    assert not list(tmp_path.iterdir())


def test_the_store_s_own_and_the_environment_s(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked("--store", database.parent).exit_code == 0
    monkeypatch.setenv("SLMC_HISTORY", str(database))
    assert asked().exit_code == 0


def test_without_the_packages_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None; sys.argv = ['slmc', 'history', '--store', sys.argv[1]]; "
        "from slmc.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 18
    assert "pip install 'slmc[farm]'" in done.stderr
