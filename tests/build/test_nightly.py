"""A night of a small farm: the demo on this machine, and on a phone that is not there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from slmc.backends.tvm.stored import stored_runner
from slmc.bundle.manifest import read_manifest
from slmc.cli import history as history_verb
from slmc.cli import nightly as nightly_verb
from slmc.devices.local import LocalTransport
from slmc.devices.patience import Clock
from slmc.devices.posix import PosixDevice
from slmc.devices.transport import LostConnection
from slmc.errors import InputError, RecipeError
from slmc.farm.asking import Answered, Asker, DeviceAsker, Question
from slmc.farm.farm_file import load_farm
from slmc.farm.history import open_history
from slmc.farm.nightly import Order, run_night
from slmc.farm.record import Night
from slmc.pipeline import proof_folder
from slmc.runners.contract import Chosen, Failure
from slmc.runners.files import read_result, read_workload
from slmc.runners.launch import RunnerFailed

from .conftest import DEMO, LIMIT, Demo

pytestmark = pytest.mark.build

FARM = """
devices:
  here: {{at: local, target: host}}
  gone: {{at: "adb:nothing", target: host}}
recipes: [{recipe}]
controls: {{host: {control}}}
speed: {{rounds: 3, items: 20, most_variation: 10, sustained_s: 5}}
"""


HURRIED = Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.1)))
"""Looks often whether a program has ended, as they take a second."""


@dataclass(frozen=True)
class Case:
    order: Order
    night: Night
    asked: list[str]
    """Devices that were opened."""


@pytest.fixture(scope="module")
def case(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder, asked = tmp_path_factory.mktemp("farm"), []
    text = FARM.format(recipe=json.dumps(str(DEMO)), control=json.dumps(str(demo.built.bundle)))
    (folder / "farm.yaml").write_text(text)

    def open_device(name: str, at: str) -> Asker:
        asked.append(name)
        if at != "local":
            raise LostConnection("no adb server", where=at)
        return DeviceAsker(
            PosixDevice(name, LocalTransport(), str(folder / "device"), clock=HURRIED),
            partial(stored_runner, demo.store),
        )

    farm = load_farm(folder / "farm.yaml")
    order = Order("night-1", farm, folder, folder / "farm", demo.store, open_device, limit=LIMIT)
    return Case(order, run_night(order), asked)


def test_a_night_measures_what_it_can_and_tells_what_it_could_not(case: Case, demo: Demo) -> None:
    here, gone = case.night.runs
    assert here.series.model_dump() == {
        "recipe": "intent-router",
        "target": "host",
        "backend": "tvm",
        "device": "here",
    }
    assert (here.outcome, here.reason) == ("pass", "")
    assert here.accuracy is not None
    assert here.accuracy.items == LIMIT
    assert here.circumstances is not None
    assert here.circumstances.bundle == here.circumstances.control == read_manifest(demo.built.bundle).digest
    assert here.peak_memory_bytes is not None
    assert here.memory_limit_bytes is None
    assert (gone.outcome, gone.circumstances, gone.accuracy, gone.speed) == ("not run", None, None, None)
    assert "no adb server" in gone.reason


def test_controls_are_asked_before_bundles(case: Case) -> None:
    here, gone = case.night.controls
    assert (here.device, here.outcome, here.reason) == ("here", "pass", "")
    assert here.decision_ms_p50 is not None
    assert (gone.device, gone.outcome, gone.decision_ms_p50) == ("gone", "not run", None)
    assert case.night.runs[1].reason == f"its control could not be asked: {gone.reason}"
    assert case.asked.count("gone") == 1  # for the control alone


def test_its_answers_are_the_apps(case: Case, demo: Demo) -> None:
    proof = proof_folder(demo.built.bundle)
    workload = read_workload(proof / "workload.jsonl")
    app = read_result(proof / "app.jsonl", workload)
    labels = read_manifest(demo.built.bundle).labels
    expected = {example.id: example.answer for example in demo.plan.recipe.examples("data/eval.jsonl")}
    chosen = [(name.removeprefix("task/"), one) for name, one in app.answers.items() if isinstance(one, Chosen)]
    right = [labels[answer.choice] == expected[name] for name, answer in chosen]
    accuracy = case.night.runs[0].accuracy
    assert accuracy is not None
    assert accuracy.bits().tolist() == right


def test_its_ladder_is_that_of_the_bundles_report_with_the_device_above(case: Case, demo: Demo) -> None:
    report, ladder = demo.built.report, case.night.runs[0].ladder
    assert report is not None
    assert ladder is not None
    assert [(one.name, one.status) for one in ladder.rungs] == [
        ("reference", "ran"),
        ("quantized", "ran"),
        ("compiled", "ran"),
        ("app", "ran"),
        ("device", "ran"),
    ]
    for one in ladder.rungs[:-1]:
        answers = report.rung(one.name).answers
        assert answers is not None
        assert one.right == answers.accuracy.count
    assert len(ladder.flips) + ladder.more == len(report.flips)
    kinds = [flip.kind for flip in ladder.flips]
    assert kinds == sorted(kinds, key=("lost", "won", "other").index)
    for flip in ladder.flips:
        told = next(one for one in report.flips if one.id == flip.id)
        assert (flip.before, flip.after) == tuple(
            told.answers[name] for name in list(told.answers)[list(told.answers).index(flip.rung) - 1 :][:2]
        )


def test_a_bundle_against_itself_is_as_fast(case: Case) -> None:
    speed = case.night.runs[0].speed
    assert speed is not None
    assert (speed.verdict, speed.rounds) == ("measured", 3)
    assert 0.2 < speed.ratio < 5
    assert 0 < speed.decision_ms_p50 <= speed.decision_ms_p95
    assert speed.sustained is not None
    assert 0.1 < speed.sustained < 10
    assert speed.conditions is not None


def test_a_night_that_was_stopped_goes_on(case: Case) -> None:
    """What is done is not done again; what is missing is."""
    place = case.order.folder / "nights" / "night-1"
    (place / "@gone.json").unlink()
    before = list(case.asked)
    again = run_night(case.order)
    assert case.asked == [*before, "gone"]
    (place / "intent-router-tvm@here.json").unlink()
    again = run_night(case.order)
    assert case.asked == [*before, "gone", "here"]  # for its bundle: its control was asked
    assert [run.outcome for run in again.runs] == ["pass", "not run"]
    assert again.controls == case.night.controls
    assert again.started == case.night.started


def test_a_night_that_is_over_is_the_same_again(case: Case, tmp_path: Path) -> None:
    history = open_history(tmp_path / "history.sqlite")
    assert history.add(run_night(case.order))
    assert not history.add(run_night(case.order))


def test_other_backends_on_this_machine(case: Case, demo: Demo) -> None:
    """By their runners in Python, against the same control."""
    entry = case.order.farm.devices["here"].model_copy(update={"backends": ("tvm", "executorch")})
    farm = case.order.farm.model_copy(update={"devices": {"here": entry}})
    native, executorch = run_night(replace(case.order, id="night-7", farm=farm)).runs
    assert (native.series.backend, executorch.series.backend) == ("tvm", "executorch")
    assert native.outcome == "pass"
    assert executorch.outcome in ("pass", "unclear")  # of so few items, which its rounding answers otherwise in part
    assert executorch.accuracy is not None
    assert executorch.accuracy.items == LIMIT
    assert executorch.circumstances is not None
    assert executorch.circumstances.runtime.startswith("executorch")
    assert executorch.circumstances.control == read_manifest(demo.built.bundle).digest
    assert executorch.speed is not None
    assert executorch.speed.sustained is None
    assert "asks each item once" in executorch.speed.reason


def test_only_some_of_it(case: Case) -> None:
    night = run_night(replace(case.order, id="night-2"), ["gone"])
    assert [run.series.device for run in night.runs] == ["gone"]
    assert [control.device for control in night.controls] == ["gone"]
    with pytest.raises(InputError, match="no device or recipe 'gon'") as error:
        run_night(replace(case.order, id="night-3"), ["gon"])
    assert error.value.todo == "did you mean 'gone'?"


def test_shards_share_the_runs(case: Case) -> None:
    nights = [run_night(replace(case.order, id="night-1"), shard=(number, 2)) for number in (1, 2)]
    assert [run.series.device for night in nights for run in night.runs] == ["here", "gone"]
    assert [run.outcome for night in nights for run in night.runs] == ["pass", "not run"]
    assert [control for night in nights for control in night.controls] == list(case.night.controls)


@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "1/0", "a/b", "1/2/3", "1/-1", ""])
def test_a_shard_is_one_of_so_many(text: str) -> None:
    asked = CliRunner().invoke(nightly_verb.command, [str(DEMO / "recipe.yaml"), "--shard", text])
    assert asked.exit_code == 2
    assert "is not I/N" in asked.output


def test_a_recipe_that_cant_be_built_is_told_for_each_device(case: Case, tmp_path: Path) -> None:
    farm = case.order.farm.model_copy(update={"controls": {"host": str(tmp_path)}})
    night = run_night(replace(case.order, id="night-4", farm=farm))
    assert [run.outcome for run in night.runs] == ["not run", "not run"]
    assert all("no manifest.json" in run.reason for run in night.runs)
    assert [control.outcome for control in night.controls] == ["not run", "not run"]


def test_bundles_are_not_blamed_for_a_device_that_fails_its_control(case: Case) -> None:
    crash = RunnerFailed(Failure(cause="signal", what="was killed by SIGSEGV"), ["slm-run"])
    asked: list[Question] = []

    @dataclass
    class Broken:
        name: str

        def ask(self, question: Question, folder: Path) -> Answered:
            asked.append(question)
            raise crash

        def close(self) -> None:
            pass

    order = replace(case.order, id="night-5", open_device=lambda name, _: Broken(name), quarantined={"gone": "night-4"})
    night = run_night(order)
    assert [control.outcome for control in night.controls] == ["fail", "fail"]
    assert [(run.outcome, run.reason) for run in night.runs] == [
        ("not run", "its control failed: the runner was killed by SIGSEGV"),
        ("not run", "quarantined since night-4; its control failed: the runner was killed by SIGSEGV"),
    ]
    assert [question.control for question in asked] == [None, None]


def test_a_farm_without_controls_asks_bundles_alone(case: Case) -> None:
    farm = case.order.farm.model_copy(update={"controls": {}})
    night = run_night(replace(case.order, id="night-6", farm=farm), ["here"])
    assert night.controls == ()
    assert [(run.outcome, run.speed) for run in night.runs] == [("pass", None)]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[str, str], Path]:
    """The demo's recipe in a folder of its own, with something in it otherwise."""

    def make(old: str, new: str) -> Path:
        text = (DEMO / "recipe.yaml").read_text()
        assert old in text
        folder = shutil.copytree(DEMO, tmp_path / "broken")
        (folder / "recipe.yaml").write_text(text.replace(old, new))
        return folder

    return make


def test_a_recipe_that_cant_be_read_ends_no_night(case: Case, broken: Callable[[str, str], Path]) -> None:
    folder = broken("name: intent-router", "name: [intent-router]")
    farm = case.order.farm.model_copy(update={"recipes": (*case.order.farm.recipes, str(folder))})
    night = run_night(replace(case.order, id="night-1", farm=farm), ["here"])
    ours, theirs = night.runs
    assert (ours.outcome, ours.accuracy) == ("pass", case.night.runs[0].accuracy)
    assert (theirs.series.recipe, theirs.outcome) == ("broken", "not run")
    assert "name" in theirs.reason


def test_two_recipes_of_one_name(case: Case, broken: Callable[[str, str], Path]) -> None:
    folder = broken("name: intent-router", "name: intent-router  # again")
    farm = case.order.farm.model_copy(update={"recipes": (*case.order.farm.recipes, str(folder))})
    with pytest.raises(RecipeError, match="a second recipe of the name 'intent-router'"):
        run_night(replace(case.order, id="night-5", farm=farm))


def test_the_history_shows_the_night(case: Case, tmp_path: Path) -> None:
    database = tmp_path / "history.sqlite"
    history = open_history(database)
    assert history.add(case.night)
    assert not history.add(case.night)
    shown = CliRunner().invoke(history_verb.command, ["--db", str(database)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert history.night("night-1") == case.night
