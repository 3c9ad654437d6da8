"""A night of phones that lose their connections, say nothing, restart, fill up and kill what runs, while the adb server
and the night itself are killed too: all results are in, none twice, none lost.

`scripts/test -m soak -n 0 -s tests/build/test_farm_soak.py` asks 40 phones for 6 bundles, and prints what happened.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from slmc.devices.opening import ADB_PORT
from slmc.errors import RunnerError
from slmc.farm.history import open_history
from slmc.farm.record import Run
from slmc.strict import read_json

from ..adb_device import PROPERTIES, AdbServer, Phone
from .conftest import DEMO, LIMIT, Demo

pytestmark = pytest.mark.build
pytest.importorskip("adbutils", reason="not run: needs slmc[farm]")

HERE = {**PROPERTIES, "ro.product.cpu.abilist": "x86_64"}
"""Phones whose programs are not emulated: there are many."""
ROOM = 16 << 30
TICK_S = 0.05
SLMC = """
import faulthandler, signal
from slmc.cli.main import main
from slmc.farm import tries
faulthandler.register(signal.SIGUSR1)
tries.RETRY_S = {retry_s}
main()
"""
"""The command, which tells where it is when it is asked by a signal."""
CUT = "connections cut in the middle"
DEAD = "adb servers dead by themselves"
"""As Debian's are now and then, of a fault of their own, where phones are lost: those who keep one start it again."""
KILLED = "the runner was killed by SIGKILL"


@dataclass(frozen=True)
class Size:
    phones: int
    recipes: int
    items: int
    """Of each evaluation."""
    mean: int
    """Bytes from one loss of a phone's connection to the next, but for those that are counted."""
    most: int
    """Faults of a kind."""
    calm_s: float
    """From one fault of a kind and phone to the next, on average."""
    away_s: float
    """That a phone is away or says nothing, at most."""
    retry_s: float
    """Between a device's tries."""
    limit_s: float


class Soak:
    """One night, and what happens to it: all by the test's own thread."""

    def __init__(self, size: Size, phones: Mapping[str, Phone], server: AdbServer, store: Path, folder: Path) -> None:
        self._size = size
        self._phones = phones
        self._server = server
        self._folder = folder
        self._place = store / "farm" / "nights" / folder.name
        words = ["nightly", folder / "farm.yaml", "--id", folder.name, "--limit", size.items, "--store", store]
        words += ["--db", folder / "history.sqlite"]
        self._command = [sys.executable, "-c", SLMC.format(retry_s=size.retry_s), *map(str, words)]
        self._drawn = random.Random(9)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._spent: set[tuple[str, int]] = set()
        self._written: dict[str, int] = {}
        self.faults: Mapping[str, Callable[[str], bool]] = {
            "connections lost": self._lose,
            "phones away": self._leave,
            "phones frozen": self._freeze,
            "phones restarted": self._restart,
            "storages full": self._fill,
            "runners killed": self._kill_runner,
            "adb servers killed": self._kill_server,
            "nights killed": self._kill_night,
        }
        self.happened: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()
        """Runners, by phone."""

    def run(self) -> int:
        """The exit code of the night, when it is over."""
        limit, due = time.monotonic() + self._size.limit_s, dict[str, float]()
        self._begin()
        try:
            while self._night.poll() is None:
                now = time.monotonic()
                if now > limit:
                    self._fail()
                self._undo(now)
                self.happened[DEAD] += self._server.revive()
                for kind, fault in self.faults.items():
                    connected = [name for name, phone in self._phones.items() if phone.connected]
                    if not connected or self.happened[kind] == self._size.most:
                        continue
                    calm_s = self._drawn.expovariate(len(connected) / self._size.calm_s)
                    if now > due.setdefault(kind, now + calm_s) and fault(self._drawn.choice(connected)):
                        self.happened[kind] += 1
                        due[kind] = now + calm_s
                time.sleep(TICK_S)
        finally:
            self._night.kill()
            self._night.wait()
        return self._night.returncode

    def results(self) -> dict[str, Run]:
        """By the names of their files."""
        return {path.name: read_json(Run, path, RunnerError, "a run") for path in self._place.glob("*@*.json")}

    def rewritten(self) -> list[str]:
        """Results that were there when a night was killed, and were made again."""
        now = self._times()
        return [name for name, written in self._written.items() if now.get(name) != written]

    # ---- Faults: each of a phone that is connected, and tells whether it happened -----------------------------------

    def _lose(self, name: str) -> bool:
        self._phones[name].lose()
        return True

    def _leave(self, name: str) -> bool:
        self._phones[name].be_offline(self._while())
        return True

    def _freeze(self, name: str) -> bool:
        self._phones[name].freeze()
        self._then(self._while(), self._phones[name].thaw)
        return True

    def _restart(self, _: str) -> bool:
        """One where a bundle is being asked."""
        for name, _runner in self._runners():
            if self._spend(name):
                self._phones[name].reboot(self._while())
                return True
        return False

    def _fill(self, name: str) -> bool:
        """Free again before the second try after this."""
        if not self._spend(name):
            return False
        self._phones[name].limit(0)
        self._then(self._size.retry_s * self._drawn.uniform(0.5, 1), partial(self._phones[name].limit, ROOM))
        return True

    def _kill_runner(self, _: str) -> bool:
        """One that this night has started, of a device that nothing else makes try again."""
        for name, runner in self._runners():
            with suppress(psutil.NoSuchProcess):
                if runner.create_time() > self._began and self._spend(name):
                    runner.kill()
                    self.killed[name] += 1
                    return True
        return False

    def _kill_server(self, _: str) -> bool:
        self._server.stop()
        self._server.start()
        return True

    def _kill_night(self, _: str) -> bool:
        """Once, when half is done."""
        if self._written or len(self._times()) * 2 < len(self._phones) * self._size.recipes:
            return False
        self._night.kill()
        self._night.wait()
        self._written = self._times()
        self._begin()
        return True

    # ---- Its inside -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """The night, or what is left of it."""
        self._began = time.time()
        environment = os.environ | {ADB_PORT: str(self._server.port)}
        with (self._folder / "log").open("ab") as log:
            self._night = subprocess.Popen(self._command, env=environment, stdout=log, stderr=log)

    def _while(self) -> float:
        return self._drawn.uniform(0.1, 1) * self._size.away_s

    def _runners(self) -> Iterator[tuple[str, psutil.Process]]:
        """Of which phone."""
        names = {str(phone.storage): name for name, phone in self._phones.items()}
        for process in psutil.process_iter(["name", "environ"]):
            storage = (process.info["environ"] or {}).get("TMPDIR")
            if process.info["name"] == "slm-run" and storage in names:
                yield names[storage], process

    def _spend(self, name: str) -> bool:
        """One of a device's tries for a bundle, where one is left to it for certain."""
        now = (name, len(list(self._place.glob(f"*@{name}.json"))))
        spent = now in self._spent
        self._spent.add(now)
        return not spent

    def _then(self, seconds: float, call: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, call))

    def _undo(self, now: float) -> None:
        for one in [one for one in self._later if one[0] <= now]:
            self._later.remove(one)
            one[1]()

    def _times(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self._place.glob("*@*.json")}

    def _fail(self) -> NoReturn:
        """With where each thread is."""
        self._night.send_signal(signal.SIGUSR1)
        time.sleep(1)
        pytest.fail(f"not over: {dict(self.happened)}\n{(self._folder / 'log').read_text()[-20_000:]}")


def recipes_in(folder: Path, count: int) -> list[str]:
    """The demo's, and copies under other names."""
    copies = [folder / f"router-{number}" for number in range(1, count)]
    for copy in copies:
        shutil.copytree(DEMO, copy)
        recipe = (copy / "recipe.yaml").read_text()
        (copy / "recipe.yaml").write_text(recipe.replace("name: intent-router", f"name: {copy.name}"))
    return [str(DEMO), *map(str, copies)]


@pytest.mark.parametrize(
    "size",
    [
        Size(phones=6, recipes=1, items=LIMIT, mean=8 << 20, most=2, calm_s=3, away_s=1, retry_s=1, limit_s=300),
        pytest.param(
            Size(
                phones=40, recipes=6, items=100, mean=2 << 20, most=40, calm_s=200, away_s=40, retry_s=30, limit_s=1800
            ),
            marks=pytest.mark.soak,
        ),
    ],
    ids=["small", "whole"],
)
def test_all_results_are_in_and_none_twice(demo: Demo, size: Size, tmp_path: Path) -> None:
    program = shutil.which("adb")
    if program is None:
        pytest.skip("not run: needs adb")
    with ExitStack() as stack:
        server = stack.enter_context(AdbServer(program, tmp_path / "server"))
        phones = {
            f"phone-{number}": stack.enter_context(Phone(tmp_path / f"phone-{number}", properties=HERE))
            for number in range(size.phones)
        }
        for seed, phone in enumerate(phones.values()):
            phone.lose_at_random(seed, size.mean)
        recipes = recipes_in(tmp_path, size.recipes)
        devices = {name: {"at": f"adb:{phone.serial}", "target": "host"} for name, phone in phones.items()}
        (tmp_path / "farm.yaml").write_text(json.dumps({"devices": devices, "recipes": recipes}))
        soak = Soak(size, phones, server, demo.store.root, tmp_path)
        start = time.monotonic()
        code = soak.run()
    runs = list(soak.results().values())
    outcomes = Counter(run.outcome for run in runs)
    soak.happened[CUT] = sum(phone.cuts for phone in phones.values())
    minutes = (time.monotonic() - start) / 60
    sys.stdout.write(f"{len(runs)} runs, {dict(outcomes)}, in {minutes:.1f} minutes; {dict(soak.happened)}\n")

    wanted = {(Path(recipe).name, name) for recipe in recipes for name in phones}
    assert {(run.series.recipe, run.series.device) for run in runs} == wanted
    assert len(runs) == len(wanted)
    assert soak.rewritten() == []
    # A runner that was killed is told, not asked again; all else that happens is got over.
    failed = [run for run in runs if run.outcome in ("fail", "not run")]  # of few items a gate can't tell
    assert failed
    assert [(run.series, run.reason) for run in failed if not run.reason.startswith(KILLED)] == []
    assert Counter(run.series.device for run in failed) <= soak.killed
    assert code == 20
    # The same model, the same kernels: whatever happened on the way, not a bit is another.
    assert len({run.accuracy.answered for run in runs if run.accuracy is not None}) == 1
    assert soak.happened.keys() - {DEAD, CUT} == set(soak.faults)

    history = open_history(tmp_path / "history.sqlite")
    night = history.night(tmp_path.name)
    assert night is not None
    assert Counter(night.runs) == Counter(runs)
    assert not history.add(night)
    past = history.past()
    assert [evening.runs for evening in past.evenings] == [len(wanted)]
    assert [len(track.points) for track in past.tracks] == [1] * len(wanted)
