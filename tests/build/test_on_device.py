"""The device rung: the demo's bundle on this machine and on an emulated phone, by the program that is sent there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from slmc import digest, on_device
from slmc.backends.tvm.library import zig_tools
from slmc.backends.tvm.stored import stored_runner
from slmc.bundle.manifest import Manifest, read_manifest
from slmc.cli import devices
from slmc.devices.adb import AdbTransport
from slmc.devices.apple import AppleDevice
from slmc.devices.device import Facts
from slmc.devices.devicectl import Devicectl
from slmc.devices.local import LocalTransport
from slmc.devices.patience import Clock
from slmc.devices.posix import PosixDevice
from slmc.errors import DeviceError, InputError
from slmc.pipeline import proof_folder, validate
from slmc.runners.contract import Chosen, Result, Workload
from slmc.runners.files import make, read_result, read_workload, write_workload
from slmc.runners.launch import RunnerFailed
from slmc.target import load_target

from .. import apple_phone
from ..adb_device import AdbServer, Phone, android_tools, arm64_emulator
from .conftest import LIMIT, Demo

pytestmark = pytest.mark.build

FEW = 40


@pytest.fixture(scope="module")
def bundle(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, whose manifest is written to; with its results beside it."""
    folder = tmp_path_factory.mktemp("device")
    for path in (demo.built.bundle, proof_folder(demo.built.bundle)):
        shutil.copytree(path, folder / path.name)
    return folder / demo.built.bundle.name


@pytest.fixture(scope="module")
def few(bundle: Path) -> Workload:
    """Items of both modes."""
    whole = read_workload(proof_folder(bundle) / "workload.jsonl")
    items = [*whole.items[:FEW], *whole.items[-5:]]
    return make(whole.header.end_id, whole.header.choices, items)


@pytest.fixture
def here(tmp_path: Path) -> PosixDevice:
    return PosixDevice("here", LocalTransport(), str(tmp_path / "here"))


def manifest_of(bundle: Path) -> Manifest:
    return read_manifest(bundle)


def check(found: Result, bundle: Path, workload: Workload) -> None:
    """The answers are those of the app rung: of the same kernels to the last digit, which may be rounded otherwise."""
    right = read_result(proof_folder(bundle) / "app.jsonl", read_workload(proof_folder(bundle) / "workload.jsonl"))
    assert found.environment.artifact == right.environment.artifact
    for item in workload.items:
        answer, expected = found.answers[item.id], right.answers[item.id]
        if isinstance(answer, Chosen) and isinstance(expected, Chosen):
            assert answer.choice == expected.choice
            told, wanted = dict(answer.choice_logprobs), dict(expected.choice_logprobs)
            assert told.keys() == wanted.keys()
            assert all(abs(told[choice] - wanted[choice]) < 1e-4 for choice in told)


def test_the_ladder_ends_on_a_device(demo: Demo, bundle: Path, here: PosixDevice) -> None:
    report = validate(demo.plan, demo.store, bundle, limit=LIMIT, device=here)
    rung = report.rung("device")
    assert rung.answers is not None
    assert rung.answers.against_previous is not None
    assert rung.answers.against_previous.against == "app"
    assert rung.answers.against_previous.agreement is not None
    assert rung.answers.against_previous.agreement.share == 1
    assert report.not_run == ()
    assert {check.gate for check in report.checks if check.rung == "device"} >= {"prompt", "max_accuracy_drop"}
    assert report.verdict == demo.built.report.verdict if demo.built.report else False
    facts, manifest = here.probe(), manifest_of(bundle)
    assert manifest.device == f"{facts.model}, {facts.os}"
    assert manifest.validation is not None
    assert manifest.validation.runs[-1].rung == "device"
    workload = read_workload(proof_folder(bundle) / "workload.jsonl")
    check(read_result(proof_folder(bundle) / "device.jsonl", workload), bundle, workload)
    here.clear()


def test_a_file_that_the_manifest_does_not_vouch_for_is_not_run(
    demo: Demo, bundle: Path, here: PosixDevice, few: Workload, tmp_path: Path
) -> None:
    other = tmp_path / bundle.name
    shutil.copytree(bundle, other)
    with (other / "task.slm").open("ab") as file:
        file.write(b"\0")
    write_workload(few, tmp_path / "w")
    with pytest.raises(DeviceError, match=r"task\.slm arrived otherwise than it was vouched for"):
        on_device.answer(here, demo.store, other, manifest_of(other), tmp_path / "w", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_runner_that_fails_is_told_with_its_words(
    demo: Demo, bundle: Path, here: PosixDevice, tmp_path: Path
) -> None:
    (tmp_path / "w").write_text("nonsense\n")
    with pytest.raises(RunnerFailed, match="line 1 of the workload") as failed:
        on_device.answer(here, demo.store, bundle, manifest_of(bundle), tmp_path / "w", tmp_path / "r")
    assert failed.value.failure.cause == "exit code"


def test_other_bundles_and_machines_are_refused(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    for changes, told in (({"backend": "executorch"}, "within an app alone"), ({"task": None}, "has no task file")):
        with pytest.raises(InputError, match=told):
            on_device.check_bundle(bundle, manifest.model_copy(update=changes))
    facts = Facts(model="old", system="linux", os="Linux", machine="armv7l", cores=4, memory_bytes=1 << 30)
    with pytest.raises(InputError, match="armv7l"):
        on_device.triple_of(facts)
    assert on_device.triple_of(facts.model_copy(update={"system": "macos", "machine": "aarch64"})).startswith(
        "arm64-apple"
    )


# ---- A phone --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AdbServer]:
    program = shutil.which("adb")
    if program is None or android_tools() is not None:
        pytest.skip(f"not run: needs {android_tools() or 'adb'}")
    with AdbServer(program, tmp_path / "server") as found:
        yield found


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Phone]:
    with zig_tools() as zig, Phone(tmp_path / "phone", android=True, emulator=arm64_emulator(zig, tmp_path)) as found:
        yield found


def test_a_phone_answers_as_the_app_does(
    demo: Demo, bundle: Path, few: Workload, server: AdbServer, phone: Phone, tmp_path: Path
) -> None:
    """Sent by the real adb, run by an emulated arm64 CPU; the connection is lost again and again."""
    write_workload(few, tmp_path / "w")
    device = PosixDevice("phone", AdbTransport(phone.serial, server.address), "/data/local/tmp/slmc")
    phone.lose_at_random(seed=7, mean=4 << 20)
    on_device.answer(device, demo.store, bundle, manifest_of(bundle), tmp_path / "w", tmp_path / "r")
    phone.stay()
    found = read_result(tmp_path / "r", few)
    check(found, bundle, few)
    assert found.environment.device == "Google Pixel 8"
    assert found.environment.os.startswith("Android 14 (API 34)")
    device.clear()
    assert list(phone.storage.rglob("*.slm")) == []


def test_an_iphone_answers_as_the_app_does(demo: Demo, bundle: Path, few: Workload, tmp_path: Path) -> None:
    """By an app that is emulated, whose slm-run is this machine's; the connection is lost again and again."""
    write_workload(few, tmp_path / "w")
    library = stored_runner(demo.store, load_target("ios").native[0].triple)
    program = stored_runner(demo.store, "x86_64-linux-gnu")
    phone = apple_phone.Phone(tmp_path / "phone", program, runner=digest.of_file(library))
    phone.fault = lambda call, words: {3: "before", 6: "after"}.get(call % 7)
    control, app = Devicectl(apple_phone.UDID, phone.run), apple_phone.app_folder(tmp_path)
    device = AppleDevice("phone", control, app, clock=Clock(sleep=lambda seconds: time.sleep(0.01)))
    on_device.answer(device, demo.store, bundle, manifest_of(bundle), tmp_path / "w", tmp_path / "r")
    found = read_result(tmp_path / "r", few)
    check(found, bundle, few)
    assert (found.environment.device, found.environment.os) == ("iPhone16,1", apple_phone.SYSTEM)
    assert program.name not in {path.name for path in phone.documents.rglob("*")}
    device.clear()
    assert not phone.folder.exists()


# ---- slmc devices ---------------------------------------------------------------------------------------------------


def test_devices_are_listed(server: AdbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
    with Phone(tmp_path / "phone") as phone:
        AdbTransport(phone.serial, server.address).execute("true")
        phone.heat(3, 46.5)
        check_listed(phone)


def check_listed(phone: Phone) -> None:
    listed = CliRunner().invoke(devices.command, ["--json"], catch_exceptions=False)
    here, found = json.loads(listed.stdout)
    assert (here["device"], here["runs"]) == ("local", "x86_64-linux-gnu")
    assert found["device"] == f"adb:{phone.serial}"
    assert found["facts"]["model"] == "Google Pixel 8"
    assert (found["state"]["thermal"], found["state"]["temperature"]) == ("severe", 46.5)
    assert (found["state"]["battery"], found["state"]["charging"]) == (0.82, True)
    assert found["runs"] == "aarch64-linux-gnu"
    shown = CliRunner().invoke(devices.command, [], catch_exceptions=False)
    assert shown.exit_code == 0


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    listed = CliRunner().invoke(devices.command, ["adb:nothing", "--json"])
    assert isinstance(listed.exception, DeviceError)
    assert "no adb server" in json.loads(listed.stdout)[0]["problem"]
    refused = CliRunner().invoke(devices.command, ["usb:1"])
    assert isinstance(refused.exception, InputError)
