"""A phone of AWS Device Farm by boto3 itself: what is sent, taken up again, put together and cleaned up."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("boto3", reason="not run: needs slmc[farm]")

from botocore.retries.standard import ExponentialBackoff
from click.testing import CliRunner

from slmc.cli import devices
from slmc.devices.patience import Clock
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError, MissingToolError, RunnerError
from slmc.farm.asking import Answered
from slmc.farm.device_farm import package
from slmc.farm.device_farm.asker import PROJECT as PROJECT_NAME
from slmc.farm.device_farm.asker import check_arn
from slmc.farm.device_farm.service import connect
from slmc.farm.opening import open_asker
from slmc.runners.contract import Failure
from slmc.runners.files import read_result
from slmc.runners.launch import RunnerFailed
from slmc.store import Store

from ..device_farm import DEVICE, PROJECT, Done
from ..unit.farm.device_farm_case import FACTS, SPEED, Case, running, workload_of

pytestmark = pytest.mark.build

OPERATIONS = (
    *("GetDevice", "ListRuns", "ListUploads", "CreateUpload", "PUT", "GetUpload", "ScheduleRun", "GetRun"),
    *("ListJobs", "ListArtifacts", "GET", "DeleteRun", "DeleteUpload"),
)


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    for case in running(tmp_path):
        monkeypatch.setenv("AWS_ENDPOINT_URL_DEVICE_FARM", case.farm.url)
        yield case


def check(case: Case, answered: Answered, items: int) -> None:
    result = read_result(answered.result, workload_of(items))
    assert list(result.answers) == [f"task/{number}" for number in range(items)]
    assert answered.facts == FACTS


def scheduled(case: Case) -> int:
    return case.farm.asked.count("ScheduleRun")


def left(case: Case) -> list[str]:
    return [one.shown["name"] for one in (*case.farm.runs.values(), *case.farm.uploads.values())]


# ---- Runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", [False, True])
def test_a_task_in_one_run(case: Case, tmp_path: Path, control: bool) -> None:
    asker = case.asker()
    answered = asker.ask(case.question(40, control=control), tmp_path)
    check(case, answered, 40)
    assert answered.speed == (SPEED if control else None)
    assert case.phone.starts == [0]
    asker.close()
    assert left(case) == []


def test_a_task_that_takes_longer_than_a_run_is_put_together_of_several(case: Case, tmp_path: Path) -> None:
    case.phone.part_s = 300
    case.phone.limits = replace(case.phone.limits, seconds=700)
    answered = case.asker().ask(case.question(200, control=True), tmp_path)
    check(case, answered, 200)
    assert len(case.phone.starts) > 2
    assert sum(case.phone.parts) == 200
    assert answered.speed == SPEED
    result = read_result(answered.result, workload_of(200))
    assert result.footer.load_ms == 5
    assert result.footer.peak_memory_bytes == 100 + len(case.phone.parts) - 1
    names = [name for name in left(case) if name.endswith("package.zip")]
    assert len(names) == 1, "the weights are sent once"


def test_weights_beside_the_test_package(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "ROOM", {"package": 100_000, "extra": 100_000})
    check(case, case.asker().ask(case.question(3, weights=150_000), tmp_path), 3)
    assert [run.request["configuration"].keys() for run in case.farm.runs.values()] == [{"extraDataPackageArn"}]


def test_what_has_no_room_is_refused_before_anything_is_sent(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "ROOM", {"package": 100_000, "extra": 100_000})
    with pytest.raises(InputError, match="GB to send") as refused:
        case.asker().ask(case.question(3, weights=250_000), tmp_path)
    assert "4 GB" in str(refused.value)
    assert "CreateUpload" not in case.farm.asked


# ---- Lost connections, and nights that were stopped -----------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("what", OPERATIONS)
def test_a_connection_that_is_lost_costs_no_second_run(case: Case, tmp_path: Path, what: str, done: bool) -> None:
    case.farm.lose(what, 2, done=done)
    asker = case.asker()
    check(case, asker.ask(case.question(3), tmp_path), 3)
    assert len(case.phone.starts) == 1
    asker.close()
    assert left(case) == []


@pytest.mark.parametrize("operation", ["CreateUpload", "GetUpload", "ScheduleRun", "GetRun", "ListArtifacts"])
def test_a_night_that_was_stopped_takes_its_run_up_again(case: Case, tmp_path: Path, operation: str) -> None:
    def die(**_: object) -> None:
        raise Killed

    question, dying = case.question(40), case.asker()
    for client in (dying.service.client, dying.service.once):
        client.meta.events.register(f"after-call.device-farm.{operation}", die)
    with pytest.raises(Killed):
        dying.ask(question, tmp_path)
    asker = case.asker()
    check(case, asker.ask(question, tmp_path), 40)
    assert scheduled(case) == 1
    asker.close()
    assert left(case) == []


def test_a_process_that_was_killed_takes_its_run_up_again(case: Case, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from slmc.devices.patience import Clock\n"
        "from tests.unit.farm.device_farm_case import asker_in, question_in\n"
        "folder = Path(sys.argv[1]); asker_in(folder, Clock()).ask(question_in(folder, 40), folder)\n"
    )
    case.farm.wait.clear()
    question = case.question(40)
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2])
    limit = time.monotonic() + 60
    while not case.phone.starts and time.monotonic() < limit:
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    case.farm.wait.set()
    check(case, case.asker().ask(question, tmp_path), 40)
    assert case.phone.starts == [0]


def test_a_service_that_is_asked_too_much_is_asked_again(case: Case, tmp_path: Path) -> None:
    for operation in ("GetRun", "ListRuns", "CreateUpload", "ScheduleRun"):
        case.farm.throttle(operation, 3)
    check(case, case.asker().ask(case.question(3), tmp_path), 3)
    assert len(case.phone.starts) == 1


def test_a_service_that_is_gone_is_a_lost_connection(case: Case, tmp_path: Path) -> None:
    question, asker = case.question(3), case.asker()
    case.farm.lose("ListRuns", 100)
    with pytest.raises(LostConnection, match="can't be reached for list_runs"):
        asker.ask(question, tmp_path)
    asker.close()


def test_what_was_left_behind_is_removed_and_others_is_left_alone(case: Case, tmp_path: Path) -> None:
    check(case, case.asker(owner="other").ask(case.question(3), tmp_path), 3)
    others = left(case)
    check(case, case.asker().ask(case.question(4), tmp_path), 4)
    old = [name for name in left(case) if name not in others]
    asker = case.asker()
    check(case, asker.ask(case.question(5), tmp_path), 5)
    assert not set(old) & set(left(case))
    asker.close()
    assert left(case) == others


def test_a_run_of_another_day_is_not_taken_up(case: Case, tmp_path: Path) -> None:
    question = case.question(3)
    case.asker().ask(question, tmp_path)
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=25)
    for run in case.farm.runs.values():
        run.shown["created"] = yesterday.timestamp()
    check(case, case.asker().ask(question, tmp_path), 3)
    assert scheduled(case) == 2


# ---- What fails -----------------------------------------------------------------------------------------------------


def test_an_upload_that_is_refused_is_told_in_their_words(case: Case, tmp_path: Path) -> None:
    case.farm.refused = "We could not find a valid signature."
    asker = case.asker()
    with pytest.raises(InputError, match=r"refuses .*package\.zip: We could not find a valid signature"):
        asker.ask(case.question(3), tmp_path)
    asker.close()
    assert left(case) == []


@pytest.mark.parametrize("result", ["ERRORED", "STOPPED", "FAILED", "SKIPPED"])
def test_a_run_that_brings_nothing_is_told_with_its_last_words(case: Case, tmp_path: Path, result: str) -> None:
    case.farm.host = lambda _: Done(result, message="Timed out.", output="pip: no such package\n")
    asker, question = case.asker(), case.question(3)
    with pytest.raises(DeviceError, match=f"left no customer artifact; the run ended {result}: Timed out.") as failed:
        asker.ask(question, tmp_path)
    assert "pip: no such package" in str(failed.value)
    assert "Signature" not in str(failed.value)
    case.farm.host = case.phone
    check(case, asker.ask(question, tmp_path), 3)
    assert len(case.farm.put) == 2, "what was sent is still there"


def test_a_run_that_does_not_end_is_stopped(case: Case, tmp_path: Path) -> None:
    passed = [0.0]
    clock = Clock(now=lambda: passed[0], sleep=lambda seconds: passed.__setitem__(0, passed[0] + seconds))
    case.farm.wait.clear()
    with pytest.raises(DeviceError, match="did not end in 510 minutes"):
        case.asker(clock).ask(case.question(3), tmp_path)
    assert case.farm.runs == {}


def test_what_was_answered_before_the_phone_was_lost_counts(case: Case, tmp_path: Path) -> None:
    case.phone.failing["task/35"] = LostConnection("the phone was lost")
    case.phone.part_s = 290
    check(case, case.asker().ask(case.question(60), tmp_path), 60)
    assert case.phone.starts == [0, 32]


def test_a_phone_that_is_lost_at_once_is_a_device_s_error(case: Case, tmp_path: Path) -> None:
    case.phone.failing["task/0"] = DeviceError("No space left on device")
    asker, question = case.asker(), case.question(3)
    with pytest.raises(DeviceError, match="No space left"):
        asker.ask(question, tmp_path)
    check(case, asker.ask(question, tmp_path), 3)
    assert scheduled(case) == 2


def test_a_runner_that_fails_there_fails_here(case: Case, tmp_path: Path) -> None:
    failure = Failure(cause="signal", what="was killed by SIGSEGV", stderr="its last words")
    case.phone.failing["task/0"] = RunnerFailed(failure, ["slm-run", "--threads", "4"])
    with pytest.raises(RunnerFailed, match="SIGSEGV") as failed:
        case.asker().ask(case.question(3), tmp_path)
    assert failed.value.failure == failure


def test_runs_on_phones_that_differ_are_not_put_together(case: Case, tmp_path: Path) -> None:
    case.phone.part_s, case.phone.limits = 300, replace(case.phone.limits, seconds=100)
    case.phone.facts = lambda run: FACTS.model_copy(update={"os": f"Android 14, build {run}"})
    with pytest.raises(DeviceError, match="with other systems"):
        case.asker().ask(case.question(100), tmp_path)


def test_answers_of_other_files_are_refused(case: Case, tmp_path: Path) -> None:
    question = case.question(3)
    case.phone.artifact = "f" * 64
    with pytest.raises(RunnerError, match="by other files"):
        case.asker().ask(question, tmp_path)


# ---- How it is opened -----------------------------------------------------------------------------------------------


def test_it_is_opened_by_its_address(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, at = Store(tmp_path / "store"), f"aws-device-farm:{DEVICE}"
    with pytest.raises(InputError, match="no project of AWS Device Farm") as unnamed:
        open_asker("pixel", at, store, tmp_path)
    assert PROJECT_NAME in str(unnamed.value)
    monkeypatch.setenv(PROJECT_NAME, PROJECT)
    asker = open_asker("pixel", at, store, tmp_path)
    assert asker.name == "pixel"
    asker.close()
    assert set(case.farm.asked) == {"ListRuns", "ListUploads"}


@pytest.mark.parametrize("arn", ["", "pixel", PROJECT, DEVICE.replace("us-west-2", "eu-west-1"), f"{DEVICE} x"])
def test_what_is_no_device_s_arn_is_refused(arn: str) -> None:
    with pytest.raises(InputError, match="no ARN of a device"):
        check_arn(arn, "device")


def test_credentials_that_are_not_there(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    question, asker = case.question(3), case.asker()
    with pytest.raises(InputError, match="Unable to locate credentials") as missing:
        asker.ask(question, tmp_path)
    assert "aws configure" in str(missing.value)
    asker.close()
    assert "was not removed" in capsys.readouterr().err


def test_what_device_farm_says_of_a_device_is_shown(case: Case) -> None:
    shown = CliRunner().invoke(devices.command, [f"aws-device-farm:{DEVICE}", "--json"], catch_exceptions=False)
    [found] = json.loads(shown.stdout)
    assert found["said"] == "Google Pixel 8, ANDROID 14, HIGHLY_AVAILABLE"
    assert CliRunner().invoke(devices.command, [f"aws-device-farm:{DEVICE}"], catch_exceptions=False).exit_code == 0
    other = CliRunner().invoke(devices.command, [f"aws-device-farm:{DEVICE}0"])
    assert isinstance(other.exception, DeviceError)


def test_boto3_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingToolError, match="needs boto3"):
        connect(PROJECT)
