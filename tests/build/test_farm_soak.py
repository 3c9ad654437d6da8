"""Forty phones and six bundles, while connections are lost, phones restart and storages fill up: all results are in."""

from __future__ import annotations

import random
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slmc import on_device
from slmc.devices.adb import AdbTransport
from slmc.devices.device import Device
from slmc.devices.posix import PosixDevice
from slmc.farm import measure as measuring
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.measure import Subject, measure
from slmc.farm.record import Night, Run
from slmc.on_device import Sent
from slmc.pipeline import merge_stage, proof_folder, run_reference
from slmc.plan import Plan
from slmc.prompt import compile_prompt

from ..adb_device import AdbServer, Phone
from .conftest import LIMIT, Demo

pytestmark = [pytest.mark.build, pytest.mark.soak]

PHONES, BUNDLES = 40, 6
ROOT = "/data/local/tmp/slmc"
PATIENCE_S = 600.0
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Shelf:
    phones: Sequence[Phone]
    server: AdbServer

    def device(self, number: int) -> Device:
        transport = AdbTransport(self.phones[number].serial, self.server.address)
        return PosixDevice(f"phone-{number}", transport, ROOT, patience_s=PATIENCE_S)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    program = shutil.which("adb")
    if program is None:
        pytest.skip("not run: needs adb")
    with ExitStack() as stack:
        server = stack.enter_context(AdbServer(program, tmp_path / "server"))
        phones = [stack.enter_context(Phone(tmp_path / f"phone-{number}")) for number in range(PHONES)]
        yield Shelf(phones, server)


def subjects_of(demo: Demo) -> list[Subject]:
    """The demo's bundle under six names."""
    plan, store, bundle = demo.plan, demo.store, demo.built.bundle
    merged = merge_stage(plan, store)
    codec = compile_prompt(plan.recipe, merged.folder, plan.recipe.examples(plan.recipe.recipe.data.evaluation))
    reference = run_reference(plan, store, merged, codec, LIMIT)
    sent = Sent(bundle, demo.built.manifest)
    return [
        Subject(named(plan, f"recipe-{number}"), sent, proof_folder(bundle), reference, None)
        for number in range(BUNDLES)
    ]


def named(plan: Plan, name: str) -> Plan:
    recipe = plan.recipe.recipe.model_copy(update={"name": name})
    return replace(plan, recipe=replace(plan.recipe, recipe=recipe))


def trouble(shelf: Shelf, done: threading.Event, happened: Counter[str]) -> None:
    """Until all is done; never so much that nothing could get through."""
    drawn = random.Random(9)
    for number, phone in enumerate(shelf.phones):
        phone.lose_at_random(seed=number, mean=8 << 20)
    while not done.wait(drawn.expovariate(1.0)):
        phone = drawn.choice(shelf.phones)
        what = drawn.choice(["lost", "offline", "restarted", "full", "free"])
        happened[what] += 1
        if what == "lost":
            phone.lose()
        elif what == "offline":
            phone.be_offline(drawn.uniform(0.5, 5))
        elif what == "restarted":
            phone.reboot(drawn.uniform(0.5, 5))
        else:
            phone.limit(1 << 20 if what == "full" else 16 << 30)
    for phone in shelf.phones:
        phone.stay()


def test_all_results_are_in_and_none_twice(demo: Demo, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "triple_of", lambda facts: "x86_64-linux-gnu")  # not emulated: there are many
    monkeypatch.setattr(measuring, "TRIES", 100)
    subjects, found = subjects_of(demo), list[Run]()
    done, happened = threading.Event(), Counter[str]()

    def ask(number: int) -> None:
        device = shelf.device(number)
        for subject in subjects:
            run = measure(
                subject, device, demo.store, SpeedPlan(), sleep=lambda _: shelf.phones[number].limit(16 << 30)
            )
            found.append(run)
        device.close()

    troubling = threading.Thread(target=trouble, args=(shelf, done, happened), daemon=True)
    asking = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(PHONES)]
    for thread in (troubling, *asking):
        thread.start()
    for thread in asking:
        thread.join()
    done.set()
    troubling.join()
    sys.stdout.write(f"{len(found)} runs; {dict(happened)}\n")

    assert len(found) == PHONES * BUNDLES
    Night(id="soak", started=NOW, finished=NOW, runs=tuple(found))  # none twice
    assert {run.series.device for run in found} == {f"phone-{number}" for number in range(PHONES)}
    assert [(run.series, run.reason) for run in found if run.outcome != "pass"] == []
    # The same model, the same kernels: whatever happened on the way, not a bit is another.
    assert len({run.accuracy.answered for run in found if run.accuracy is not None}) == 1
    assert min(happened[what] for what in ("lost", "offline", "restarted", "full")) > 0
