"""An iPhone's files and programs, on one that is emulated behind devicectl: its connection lost at every call."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from slmc.backends.tvm.runner import RUNNER
from slmc.devices.apple import AppleDevice
from slmc.devices.device import File
from slmc.devices.devicectl import Devicectl
from slmc.devices.opening import open_device
from slmc.devices.patience import Clock
from slmc.devices.runner_app import read_app
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError
from slmc.on_device import triple_of

from ...apple_phone import UDID, Phone, app_folder
from .test_posix import Waits

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not run: needs a POSIX shell")

LIBRARY = b"!<arch>\n"
"""What the app is made of."""


def file(path: Path, content: bytes) -> File:
    path.write_bytes(content)
    return File(path, hashlib.sha256(content).hexdigest())


def phone_of(folder: Path, body: str = "true") -> Phone:
    folder.mkdir(exist_ok=True)
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return Phone(folder / "container", program, runner=hashlib.sha256(LIBRARY).hexdigest())


def device(phone: Phone, *, patience_s: float = 120, clock: Clock | None = None) -> AppleDevice:
    folder = phone.folder.parent / "built"
    app = read_app(folder / "SlmcRunner.app") if folder.exists() else app_folder(folder)
    return AppleDevice("phone", Devicectl(UDID, phone.run), app, patience_s=patience_s, clock=clock or Waits().clock())


@pytest.fixture
def big(tmp_path: Path) -> File:
    return file(tmp_path / "big", os.urandom(4321))


@pytest.fixture
def runner(tmp_path: Path) -> File:
    return file(tmp_path / "library", LIBRARY)


# ---- Of itself ------------------------------------------------------------------------------------------------------


def test_it_tells_of_itself(tmp_path: Path) -> None:
    one = device(phone_of(tmp_path))
    facts, state = one.probe(), one.state()
    assert (facts.model, facts.system, facts.os) == ("iPhone16,1", "ios", "iOS 18.7.1 (Build 22H31)")
    assert (facts.machine, facts.cores, facts.memory_bytes) == ("aarch64", 6, 8 << 30)
    assert triple_of(facts).startswith("arm64-apple-ios")
    assert (state.free_bytes, state.thermal, state.battery, state.charging) == (10**10, "none", 0.85, True)
    assert (state.load, state.clock, state.temperature) == (None, None, None)


@pytest.mark.parametrize(
    ("told", "low_power", "thermal"),
    [
        ("nominal", True, "light"),
        ("fair", True, "light"),
        ("serious", True, "severe"),
        ("critical", False, "critical"),
        ("unknown", False, None),
        ("unknown", True, "light"),
    ],
)
def test_low_power_mode_slows_it_too(tmp_path: Path, told: str, low_power: bool, thermal: str | None) -> None:
    phone = phone_of(tmp_path)
    phone.thermal, phone.low_power = told, low_power
    assert device(phone).state().thermal == thermal


# ---- Files ----------------------------------------------------------------------------------------------------------


def test_files_are_laid_out_and_nothing_else(tmp_path: Path, big: File) -> None:
    phone, empty = phone_of(tmp_path), file(tmp_path / "empty", b"")
    one = device(phone)
    one.push({"model/weights": big, "b c": empty, "again": big})
    job = phone.documents / "job"
    assert (job / "model/weights").read_bytes() == big.path.read_bytes() == (job / "again").read_bytes()
    assert (job / "b c").read_bytes() == b""
    assert phone.sent == 4321
    one.push({"other": empty})
    assert sum("install" in words for words in phone.calls) == 1
    assert [path.name for path in job.iterdir()] == ["other"]
    assert [path.name for path in (phone.documents / "files").iterdir()] == [empty.sha256]
    one.clear()
    assert not phone.folder.exists()
    one.clear()


def test_what_is_there_is_not_sent_again(tmp_path: Path, big: File) -> None:
    phone = phone_of(tmp_path)
    device(phone).push({"a": big})
    device(phone).push({"b": big})
    assert phone.sent == 4321


def test_what_was_damaged_on_the_device_is_sent_again(tmp_path: Path, big: File) -> None:
    phone = phone_of(tmp_path)
    device(phone).push({"a": big})
    (phone.documents / "files" / big.sha256).write_bytes(b"x" * 4321)
    device(phone).push({"a": big})
    assert (phone.documents / "job" / "a").read_bytes() == big.path.read_bytes()


def test_a_file_that_is_not_what_it_is_vouched_for_stays_out(tmp_path: Path, big: File) -> None:
    phone = phone_of(tmp_path)
    big.path.write_bytes(os.urandom(4321))
    with pytest.raises(DeviceError, match="big arrived otherwise") as error:
        device(phone).push({"a": big})
    assert error.value.expected == big.sha256
    assert list((phone.documents / "files").iterdir()) == list((phone.documents / "job").iterdir()) == []


def test_what_is_damaged_on_its_way_stays_out(tmp_path: Path, big: File) -> None:
    phone = phone_of(tmp_path)
    phone.damage = lambda name, content: content[:-1] + b"x" if "/files/" in name else content
    with pytest.raises(DeviceError, match="big arrived otherwise"):
        device(phone).push({"a": big})


def test_a_file_that_was_damaged_since_is_not_run(tmp_path: Path, big: File) -> None:
    phone = phone_of(tmp_path, "touch ran")
    one = device(phone)
    one.push({"a": big})
    (phone.documents / "files" / big.sha256).write_bytes(b"x" * 4321)
    with pytest.raises(DeviceError, match="were lost"):
        one.run([RUNNER], "ran", 100)
    assert not (phone.documents / "job" / "ran").exists()


def test_another_runner_is_refused(tmp_path: Path, big: File, runner: File) -> None:
    phone = phone_of(tmp_path)
    phone.runner = "1" * 64
    with pytest.raises(DeviceError, match="another slm-run") as error:
        device(phone).push({RUNNER: runner, "a": big})
    assert "--runner-app" in (error.value.todo or "")
    assert phone.sent == 0


def test_a_full_phone_is_told(tmp_path: Path, big: File) -> None:
    phone = phone_of(tmp_path)
    phone.room = 4000
    with pytest.raises(DeviceError) as error:
        device(phone).push({"a": big})
    assert error.value.todo == "free some storage on the device"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a"])
def test_a_name_stays_in_the_folder(tmp_path: Path, big: File, name: str) -> None:
    one = device(phone_of(tmp_path))
    with pytest.raises(InputError, match="of a file for a device"):
        one.push({name: big})
    with pytest.raises(InputError):
        one.pull(name, tmp_path / "f")
    with pytest.raises(InputError):
        one.run([RUNNER], name, 100)


# ---- The connection -------------------------------------------------------------------------------------------------


def fault_at(lost: int, how: str) -> Callable[[int, Sequence[str]], str | None]:
    return lambda call, words: how if call == lost else None


@pytest.mark.parametrize("how", ["before", "after", "silent"])
def test_a_connection_lost_at_any_call_costs_a_file_at_most(tmp_path: Path, big: File, runner: File, how: str) -> None:
    """At each call of a whole push, run, pull and clear in turn."""

    def whole(number: int) -> Phone:
        phone = phone_of(tmp_path / f"phone{number}", 'cat "$1" >> counted; cp counted result')
        phone.fault = fault_at(number, how)
        one = device(phone)
        one.push({"big": big, RUNNER: runner, "one": file(tmp_path / "small", b"1\n")})
        assert one.run([RUNNER, "one"], "result", 1000) is None
        one.pull("result", tmp_path / "result")
        assert (tmp_path / "result").read_bytes() == b"1\n"  # it ran once
        assert (phone.documents / "job/big").read_bytes() == big.path.read_bytes()
        one.clear()
        assert not phone.folder.exists()
        return phone

    plain = whole(0)
    assert plain.sent == 4323
    for lost in range(1, len(plain.calls) + 1):
        assert whole(lost).sent <= plain.sent + 4321


def test_a_run_goes_on_while_the_connection_is_lost(tmp_path: Path, big: File) -> None:
    phone = phone_of(tmp_path, "sleep 0.2; touch result")
    one = device(phone)
    one.push({"a": big})
    gone_until = len(phone.calls) + 12
    phone.fault = lambda call, words: "before" if "processes" in words and call < gone_until else None
    assert one.run([RUNNER], "result", 1000) is None


def test_patience_has_an_end(tmp_path: Path) -> None:
    phone, waits = phone_of(tmp_path), Waits()
    phone.fault = lambda call, words: "before"
    with pytest.raises(LostConnection):
        device(phone, patience_s=60, clock=waits.clock()).probe()
    assert 30 < waits.slept <= 60


def test_a_locked_phone_is_told_at_once(tmp_path: Path) -> None:
    phone, waits = phone_of(tmp_path), Waits()
    phone.locked = True
    with pytest.raises(DeviceError, match="unlocked") as error:
        device(phone, clock=waits.clock()).probe()
    assert "Auto-Lock" in (error.value.todo or "")
    assert waits.slept == 0


# ---- Programs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "cause", "what"),
    [
        ("echo why >&2; exit 3", "exit code", "ended with exit code 3"),
        ("echo why; kill -9 $$", "out of memory", "without a word"),
        ("echo why; kill -11 $$", "signal", "was killed by SIGSEGV"),
        ("echo why", "no result", "left no finished result"),
        ("echo why; touch result.partial", "no result", "left no finished result"),
        ("echo why; exec sleep 1000", "timeout", "took longer than 4 s"),
    ],
)
def test_how_it_ended_is_told(tmp_path: Path, body: str, cause: str, what: str) -> None:
    one = device(phone_of(tmp_path, body))
    one.push({})
    failure = one.run([RUNNER], "result", 4)
    assert failure is not None
    assert failure.cause == cause
    assert what in failure.what
    assert failure.stderr == "why"


def test_a_restart_is_told(tmp_path: Path) -> None:
    phone = phone_of(tmp_path, "kill -9 $$")
    one = device(phone)
    one.push({})
    phone.on_launch = lambda phone: setattr(phone, "booted", phone.booted + 3600)
    failure = one.run([RUNNER], "result", 100)
    assert failure is not None
    assert failure.restarted
    assert "restarted" in failure.what


def test_an_app_that_was_left_says_nothing_of_the_runner(tmp_path: Path) -> None:
    phone = phone_of(tmp_path, "exec sleep 1000")
    one = device(phone)
    one.push({})
    phone.on_launch = lambda phone: phone.leave()
    with pytest.raises(DeviceError, match="was left"):
        one.run([RUNNER], "result", 100)


def test_an_app_that_does_nothing_is_told(tmp_path: Path) -> None:
    phone = phone_of(tmp_path)
    phone.on_launch = lambda phone: (phone.documents / "told.json").unlink()
    with pytest.raises(DeviceError, match="gives no answer") as error:
        device(phone).probe()
    assert "by hand" in (error.value.todo or "")


@pytest.mark.parametrize("told", ["{", "[]", "{}", '{"token": 1}'])
def test_what_the_app_never_told_is_no_answer(tmp_path: Path, told: str) -> None:
    phone = phone_of(tmp_path)

    def tell(phone: Phone) -> None:
        (phone.documents / "told.json").write_text(told)

    phone.on_launch = tell
    with pytest.raises(DeviceError, match="gives no answer"):
        device(phone).probe()


def test_an_older_app_is_told(tmp_path: Path) -> None:
    phone = phone_of(tmp_path)

    def older(phone: Phone) -> None:
        path = phone.documents / "told.json"
        path.write_text(path.read_text().replace('"slmc_told": 1', '"slmc_told": 0'))

    phone.on_launch = older
    with pytest.raises(DeviceError, match="slmc_told"):
        device(phone).probe()


def test_what_was_started_before_is_ended_first(tmp_path: Path) -> None:
    phone = phone_of(tmp_path, "echo $$ > pid; exec sleep 1000")
    one = device(phone, patience_s=0)
    one.push({})
    phone.on_launch = lambda phone: setattr(phone, "fault", lambda call, words: "before")
    with pytest.raises(LostConnection):
        one.run([RUNNER], "result", 100)
    assert phone.lives()
    phone.fault, phone.on_launch = (lambda call, words: None), (lambda phone: None)
    assert device(phone).probe().cores == 6
    assert not phone.lives()
    assert sum("terminate" in words for words in phone.calls) == 1


def test_an_old_result_is_none(tmp_path: Path) -> None:
    one = device(phone_of(tmp_path, '[ "$1" = write ] && touch result; [ "$1" = die ] && kill -9 $$; true'))
    one.push({})
    for how, cause in (("nothing", "no result"), ("die", "out of memory")):
        assert one.run([RUNNER, "write"], "result", 100) is None
        failure = one.run([RUNNER, how], "result", 100)
        assert failure is not None
        assert failure.cause == cause
        with pytest.raises(DeviceError, match="was not written"):
            one.pull("result", tmp_path / "r")


def test_a_result_that_comes_otherwise_is_none(tmp_path: Path) -> None:
    phone = phone_of(tmp_path, "echo a > result")
    one = device(phone)
    one.push({})
    assert one.run([RUNNER], "result", 100) is None
    (phone.documents / "job" / "result").write_text("b\n")
    with pytest.raises(DeviceError, match="came otherwise"):
        one.pull("result", tmp_path / "r")
    assert list(tmp_path.glob("r*")) == []


def test_only_the_apps_own_program_is_run(tmp_path: Path) -> None:
    one = device(phone_of(tmp_path))
    with pytest.raises(InputError):
        one.run([RUNNER], "result", 100)
    one.push({})
    with pytest.raises(InputError, match="sh on phone"):
        one.run(["sh"], "result", 100)


# ---- How it is written ----------------------------------------------------------------------------------------------


def test_it_is_opened_by_its_udid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLMC_IOS_RUNNER", raising=False)
    with pytest.raises(InputError, match="needs the runner app") as error:
        open_device(f"apple:{UDID}")
    assert "--runner-app" in (error.value.todo or "")
    monkeypatch.setenv("SLMC_IOS_RUNNER", str(app_folder(tmp_path).path))
    assert open_device(f"apple:{UDID}").name == f"apple:{UDID}"
    for written in ("apple:", "apple:-v", "apple:a b", "apple:../x"):
        with pytest.raises(InputError, match="is no device"):
            open_device(written)


@pytest.mark.parametrize(
    "content", [None, b"", b"nonsense", b"<?xml?><plist>", b"<plist version='1.0'><dict/></plist>"]
)
def test_what_is_no_app_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "Info.plist").write_bytes(content)
    with pytest.raises(InputError, match="names no app"):
        read_app(tmp_path)
