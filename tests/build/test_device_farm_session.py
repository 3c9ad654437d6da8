"""The demo on a phone of AWS Device Farm: what is uploaded there runs here, by the test spec, on an emulated phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from slmc.backends.tvm.library import zig_tools
from slmc.backends.tvm.stored import stored_runner
from slmc.bundle.manifest import read_manifest
from slmc.devices.patience import Clock
from slmc.errors import DeviceError, InputError
from slmc.farm.asking import Question
from slmc.farm.device_farm import package
from slmc.farm.device_farm.asker import DeviceFarmAsker
from slmc.farm.device_farm.service import connect
from slmc.farm.farm_file import SpeedPlan
from slmc.models.compiled import WEIGHTS
from slmc.on_device import Sent
from slmc.pipeline import proof_folder
from slmc.runners.contract import Chosen, Workload
from slmc.runners.files import make, read_result, read_workload, write_workload

from ..adb_device import AdbServer, Emulator, Phone, android_tools, arm64_emulator
from ..device_farm import DEVICE, PROJECT, Farm, TestHost
from .conftest import Demo

pytestmark = pytest.mark.build

FEW, MANY = 10, 50
"""Items of a task: for one part, and for two."""
PLAN = SpeedPlan(rounds=3, items=3, most_variation=1000, cool_down_s=0)
QUICK = Clock(sleep=lambda seconds: Clock().sleep(min(seconds, 0.1)))


@dataclass(frozen=True)
class Case:
    farm: Farm
    asker: DeviceFarmAsker
    question: Question
    workload: Workload
    phone: Phone


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    with zig_tools() as zig:
        return arm64_emulator(zig, tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def case(
    request: pytest.FixtureRequest, demo: Demo, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    adb = shutil.which("adb")
    if adb is None or android_tools() is not None:
        pytest.skip(f"not run: needs {android_tools() or 'adb'}")
    (tmp_path / "host").mkdir()
    bundle = demo.built.bundle
    whole = read_workload(proof_folder(bundle) / "workload.jsonl")
    items = getattr(request, "param", FEW)
    workload = make(whole.header.end_id, whole.header.choices, [*whole.items[: items - 5], *whole.items[-5:]])
    write_workload(workload, tmp_path / "task.jsonl")
    write_workload(make(whole.header.end_id, whole.header.choices, whole.items[: PLAN.items]), tmp_path / "speed.jsonl")
    sent = Sent(bundle, read_manifest(bundle))
    question = Question(sent, None, tmp_path / "task.jsonl", tmp_path / "speed.jsonl", PLAN)
    with (
        AdbServer(adb, tmp_path / "adb") as server,
        Phone(tmp_path / "phone", android=True, emulator=emulator) as phone,
        Farm(TestHost(tmp_path / "host", phone.serial, server.port, phone.shared)) as farm,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_DEVICE_FARM", farm.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        service = replace(connect(PROJECT), clock=QUICK)
        asker = DeviceFarmAsker("pixel", DEVICE, service, tmp_path / "state", partial(stored_runner, demo.store))
        yield Case(farm, asker, question, workload, phone)


def check(case: Case, result: Path) -> None:
    """The answers are the app rung's; arm64's kernels round otherwise."""
    bundle = case.question.bundle.bundle
    found = read_result(result, case.workload)
    right = read_result(proof_folder(bundle) / "app.jsonl", read_workload(proof_folder(bundle) / "workload.jsonl"))
    assert found.environment.artifact == right.environment.artifact
    assert found.environment.device == "Google Pixel 8"
    assert list(found.answers) == [item.id for item in case.workload.items]
    for name, answer in found.answers.items():
        expected = right.answers[name]
        if isinstance(answer, Chosen) and isinstance(expected, Chosen):
            assert answer.choice == expected.choice
            wanted = dict(expected.choice_logprobs)
            assert all(abs(told - wanted[choice]) < 1e-4 for choice, told in answer.choice_logprobs)


def test_a_task_and_its_speed_in_one_run(case: Case, tmp_path: Path) -> None:
    """By connections that are lost in upload, question and download, to and from Device Farm and to the phone."""
    question = replace(case.question, control=case.question.bundle)
    for what in ("PUT", "GET", "GetRun"):
        case.farm.lose(what)
    case.farm.lose("ScheduleRun", done=True)
    case.phone.lose_at_random(seed=5, mean=4 << 20)
    answered = case.asker.ask(question, tmp_path)
    check(case, answered.result)
    assert answered.facts.model == "Google Pixel 8"
    assert answered.speed is not None
    assert answered.speed.rounds == PLAN.rounds
    assert answered.speed.ratio > 0
    assert len(case.farm.runs) == 1
    case.asker.close()
    assert (case.farm.runs, case.farm.uploads) == ({}, {})


@pytest.mark.parametrize("case", [MANY], indirect=True)
def test_weights_in_two_uploads_and_a_task_in_two_runs(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of so few minutes answers one part alone; the border of the test package goes through the weights."""
    manifest = case.question.bundle.manifest
    weights = manifest.files[f"{manifest.artifact}/{WEIGHTS}"].bytes
    monkeypatch.setattr(package, "ROOM", {"package": weights * 4 // 5, "extra": weights})
    asker = replace(case.asker, minutes=1)
    answered = asker.ask(case.question, tmp_path)
    check(case, answered.result)
    runs = list(case.farm.runs.values())
    assert [run.shown["name"].rpartition("-")[2] for run in runs] == ["0", "32"]
    cut = [len(pieces) for pieces in package.pack(case.question, asker.runner).job.files.values()]
    assert sorted(set(cut)) == [1, 2]
    assert all("extraDataPackageArn" in run.request["configuration"] for run in runs)
    assert list(case.phone.shared.iterdir()) == []
    assert len(case.farm.put) == 4, "the weights are sent once"
    asker.close()
    assert (case.farm.runs, case.farm.uploads) == ({}, {})


def test_what_the_bundle_does_not_vouch_for_is_not_run(case: Case, tmp_path: Path) -> None:
    manifest = case.question.bundle.manifest
    assert manifest.task is not None
    entry = manifest.files[manifest.task].model_copy(update={"sha256": "0" * 64})
    other = manifest.model_copy(update={"files": manifest.files | {manifest.task: entry}})
    with pytest.raises((DeviceError, InputError), match="otherwise than"):
        case.asker.ask(replace(case.question, bundle=Sent(case.question.bundle.bundle, other)), tmp_path)
    assert case.phone.processes() == []
    assert list(case.phone.storage.rglob("*.slm")) == []
