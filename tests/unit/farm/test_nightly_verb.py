"""`slmc nightly` over nights that are made up: what it tells of devices whose control fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slmc.cli import nightly as verb
from slmc.cli.main import cli
from slmc.errors import GateFailed
from slmc.farm.nightly import Order, Shard
from slmc.farm.record import Control, Night

from .morning_case import gone
from .nights import night, run, series, speed

FARM = 'devices:\n  "shelf-1": {at: local, target: host}\nrecipes: [router]\n'
KILLED = Control(device="shelf-1", outcome="fail", reason="was [killed]", decision_ms_p50=None)
FIT = KILLED.model_copy(update={"outcome": "pass", "reason": ""})


class Made:
    """Nights in turn in place of real ones, and what each was told of quarantine."""

    def __init__(self, said: Sequence[Control]) -> None:
        self._said = said
        self.told: list[dict[str, str]] = []

    def __call__(self, order: Order, only: Sequence[str], shard: Shard) -> Night:
        control = self._said[len(self.told)]
        self.told.append(dict(order.quarantined))
        its = run(series())
        fit = control.outcome == "pass"
        return night(len(self.told), its if fit else gone(its.series, "its control failed"), controls=[control])


def nightly(folder: Path, name: str) -> Result:
    (folder / "farm.yaml").write_text(FARM)
    words = ["nightly", str(folder / "farm.yaml"), "--store", str(folder / "store"), "--id", name]
    return CliRunner().invoke(cli, words)


def test_a_device_is_quarantined_named_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made([KILLED, KILLED, KILLED, KILLED, FIT, KILLED])
    monkeypatch.setattr(verb, "run_night", made)
    ended = [nightly(tmp_path, f"night-{number}") for number in range(1, 7)]
    assert made.told == [{}, {}, {}, {"shelf-1": "night-3"}, {"shelf-1": "night-3"}, {}]
    assert [isinstance(one.exception, GateFailed) for one in ended] == [True, True, True, True, False, True]
    assert ["quarantined" in one.output for one in ended] == [False, False, True, True, False, False]
    assert (
        "shelf-1 is quarantined since night-3: its control failed on 4 nights in a row, last: was [killed]"
        in ended[3].output
    )
    assert str(ended[3].exception).startswith("1 of 1 runs failed or were not made; quarantined: shelf-1")


def test_why_a_speed_can_t_be_told_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unclear = run(series()).model_copy(update={"speed": speed(verdict="unclear")})
    monkeypatch.setattr(verb, "run_night", lambda *_: night(1, unclear))
    ended = nightly(tmp_path, "night-1")
    assert ended.exception is None
    assert "can't tell" in ended.output
    assert "the device stayed hot" in ended.output
