"""Files and programs on a device with a shell: this machine's own, its connection lost at every point in turn."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slmc.devices import posix
from slmc.devices.device import File
from slmc.devices.local import LocalTransport
from slmc.devices.patience import Clock
from slmc.devices.posix import PosixDevice
from slmc.devices.transport import LostConnection, Output
from slmc.errors import DeviceError, InputError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not run: needs a POSIX shell")

RUNNER = "#!/bin/sh\n{body}\n"


def file(path: Path, content: bytes) -> File:
    path.write_bytes(content)
    return File(path, hashlib.sha256(content).hexdigest())


def program(folder: Path, body: str) -> File:
    return file(folder / "program", RUNNER.format(body=body).encode())


class Flaky(LocalTransport):
    """Loses the connection before some of its calls, or in the middle: a file arrives by half, a command is done."""

    def __init__(self, lost: Callable[[int], str | None]) -> None:
        self._lost = lost
        self.calls = 0
        self.sent = 0
        self.fetched = 0

    def _call(self) -> str | None:
        self.calls += 1
        found = self._lost(self.calls)
        if found == "before":
            raise LostConnection("lost", where=self.address)
        return found

    def execute(self, script: str, timeout_s: float = 60) -> Output:
        late = self._call()
        done = super().execute(script, timeout_s)
        if late:
            raise LostConnection("lost", where=self.address)
        return done

    def send(self, content: bytes, path: str) -> None:
        late = self._call()
        super().send(content[: len(content) // 2] if late else content, path)
        self.sent += len(content)
        if late:
            raise LostConnection("lost", where=self.address)

    def fetch(self, path: str, to: Path) -> None:
        late = self._call()
        super().fetch(path, to)
        self.fetched += to.stat().st_size
        if late:
            to.unlink()
            raise LostConnection("lost", where=self.address)


class Waits:
    """A clock that counts what is slept, and sleeps a little where a process is waited for."""

    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        time.sleep(0.01)

    def clock(self) -> Clock:
        return Clock(now=lambda: self.slept, sleep=self.sleep)


def device(root: Path, transport: LocalTransport | None = None, patience_s: float = 120) -> PosixDevice:
    return PosixDevice("phone", transport or LocalTransport(), str(root), patience_s=patience_s, clock=Waits().clock())


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "PIECE", 1000)


# ---- Files ----------------------------------------------------------------------------------------------------------


def test_files_are_laid_out_and_nothing_else(tmp_path: Path) -> None:
    phone, root = device(tmp_path / "on it"), tmp_path / "on it"
    big, empty = file(tmp_path / "big", os.urandom(4321)), file(tmp_path / "empty", b"")
    phone.push({"model/weights": big, "b c": empty, "again": big})
    assert (root / "job/model/weights").read_bytes() == big.path.read_bytes() == (root / "job/again").read_bytes()
    assert (root / "job/b c").read_bytes() == b""
    (root / "job/left").touch()
    phone.push({"other": empty})
    assert [path.name for path in (root / "job").iterdir()] == ["other"]
    assert [path.name for path in (root / "files").iterdir()] == [empty.sha256]
    phone.clear()
    assert not root.exists()


def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    transport = Flaky(lambda call: None)
    phone, big = device(tmp_path / "on it", transport), file(tmp_path / "big", os.urandom(4321))
    phone.push({"a": big})
    assert transport.sent == 4321
    phone.push({"b": big})
    assert transport.sent == 4321


def test_what_was_damaged_on_the_device_is_sent_again(tmp_path: Path) -> None:
    phone, big = device(tmp_path / "on it"), file(tmp_path / "big", os.urandom(4321))
    phone.push({"a": big})
    (tmp_path / "on it" / "files" / big.sha256).write_bytes(b"x" * 4321)
    phone.push({"a": big})
    assert (tmp_path / "on it" / "job" / "a").read_bytes() == big.path.read_bytes()


def test_a_file_that_is_not_what_it_is_vouched_for_stays_out(tmp_path: Path) -> None:
    phone, big = device(tmp_path / "on it"), file(tmp_path / "big", os.urandom(4321))
    big.path.write_bytes(os.urandom(4321))
    with pytest.raises(DeviceError, match="big arrived otherwise") as error:
        phone.push({"a": big})
    assert error.value.expected == big.sha256
    assert list((tmp_path / "on it" / "files").iterdir()) == []
    assert not (tmp_path / "on it" / "job").exists()


@pytest.mark.parametrize("how", ["before", "middle"])
def test_a_connection_lost_at_any_call_costs_a_piece(tmp_path: Path, how: str) -> None:
    """At each call of a whole push, run, pull and clear in turn."""
    big, answer = file(tmp_path / "big", os.urandom(3500)), file(tmp_path / "small", os.urandom(2500))
    runner = program(tmp_path, 'cat "$1" >> counted; cp counted result')

    def whole(number: int, transport: Flaky) -> None:
        phone = device(tmp_path / f"phone{number}", transport)
        phone.push({"big": big, "program": runner, "one": answer})
        assert phone.run(["program", "one"], "result", 1000) is None
        phone.pull("result", tmp_path / "result")
        assert (tmp_path / "result").read_bytes() == answer.path.read_bytes()  # it ran once
        assert not (tmp_path / f"phone{number}/files/piece").exists()
        assert (tmp_path / f"phone{number}/job/big").read_bytes() == big.path.read_bytes()
        phone.clear()
        assert not (tmp_path / f"phone{number}").exists()

    whole(0, plain := Flaky(lambda call: None))
    for lost in range(1, plain.calls + 1):
        transport = Flaky(lambda call, lost=lost: how if call == lost else None)  # type: ignore[misc]
        whole(lost, transport)
        assert transport.sent <= plain.sent + 1000
        assert transport.fetched <= plain.fetched + 1000


def test_a_push_that_was_given_up_is_taken_up_where_it_was(tmp_path: Path) -> None:
    big = file(tmp_path / "big", os.urandom(9500))
    dead = Flaky(lambda call: "before" if call > 12 else None)
    with pytest.raises(LostConnection):
        device(tmp_path / "on it", dead, patience_s=5).push({"a": big})
    assert 1000 < dead.sent < 9000
    again = Flaky(lambda call: None)
    device(tmp_path / "on it", again).push({"a": big})
    assert again.sent <= 9500 - dead.sent + 1000
    assert (tmp_path / "on it" / "job" / "a").read_bytes() == big.path.read_bytes()


def test_patience_has_an_end(tmp_path: Path) -> None:
    waits = Waits()
    gone = PosixDevice("phone", Flaky(lambda call: "before"), str(tmp_path), patience_s=60, clock=waits.clock())
    with pytest.raises(LostConnection):
        gone.probe()
    assert 30 < waits.slept <= 60


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a"])
def test_a_name_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="of a file for a device"):
        device(tmp_path).push({name: file(tmp_path / "f", b"")})
    with pytest.raises(InputError):
        device(tmp_path).pull(name, tmp_path / "f")


@pytest.mark.parametrize("root", ["relative", "/", ""])
def test_the_folder_is_slmcs_own(root: str) -> None:
    with pytest.raises(InputError, match="absolute path"):
        PosixDevice("phone", LocalTransport(), root)


@pytest.mark.parametrize("name", ["a b", "it's", "$HOME", "ü 😀", "-rf", "a;b", 'q"q', "new\nline"])
def test_odd_names_are_only_names(tmp_path: Path, name: str) -> None:
    phone = device(tmp_path / "on it")
    phone.push({name: file(tmp_path / "f", b"content"), "program": program(tmp_path, 'cp "$1" "$2"')})
    assert phone.run(["program", f"./{name}", f"./{name}.out"], f"{name}.out", 100) is None
    phone.pull(f"{name}.out", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


# ---- Programs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "cause", "what"),
    [
        ("echo why >&2; exit 3", "exit code", "ended with exit code 3"),
        ("echo why; kill -9 $$", "out of memory", "was killed by SIGKILL"),
        ("echo why; kill -11 $$", "signal", "was killed by SIGSEGV"),
        ("echo why", "no result", "left no finished result"),
        ("echo why; touch result.partial", "no result", "left no finished result"),
        ("echo why; sleep 1000", "timeout", "took longer than 4 s"),
    ],
)
def test_how_it_ended_is_told(tmp_path: Path, body: str, cause: str, what: str) -> None:
    phone = device(tmp_path / "on it")
    phone.push({"program": program(tmp_path, body)})
    failure = phone.run(["program"], "result", 4)
    assert failure is not None
    assert failure.cause == cause
    assert what in failure.what
    assert failure.stderr == "why"


def test_what_took_too_long_is_gone(tmp_path: Path) -> None:
    phone = device(tmp_path / "on it")
    phone.push({"program": program(tmp_path, "echo $$ > pid; while :; do sleep 0.1; done")})
    assert phone.run(["program"], "result", 4) is not None
    pid = int((tmp_path / "on it/job/pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.01)
    assert not _runs(pid)


def test_a_restart_is_told(tmp_path: Path) -> None:
    """As it looks: the process and the shell that waits for it are gone, and the files are there."""
    phone = device(tmp_path / "on it")
    phone.push({"program": program(tmp_path, "kill -9 $(ps -o ppid= -p $$); kill -9 $$")})
    failure = phone.run(["program"], "result", 100)
    assert failure is not None
    assert failure.cause == "no result"
    assert "restarted" in failure.what
    assert failure.restarted


def test_a_restart_before_the_program_has_a_number_is_told(tmp_path: Path) -> None:
    class Restarted(LocalTransport):
        def execute(self, script: str, timeout_s: float = 60) -> Output:
            """In the middle of the start: of all that it does, there is only the folder."""
            begun, _, rest = script.partition(" && { ( ")
            if not rest or "run/" not in begun or list((tmp_path / "on it/run").iterdir()):
                return super().execute(script, timeout_s)
            super().execute(f"{begun}; }}; }}", timeout_s)
            raise LostConnection("lost", where=self.address)

    phone = device(tmp_path / "on it", Restarted())
    phone.push({"program": program(tmp_path, "touch result")})
    failure = phone.run(["program"], "result", 3600)
    assert failure is not None
    assert failure.restarted


def test_a_program_that_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    class Slow(LocalTransport):
        def execute(self, script: str, timeout_s: float = 60) -> Output:
            return super().execute(script.replace("; echo $p > ", "; sleep 0.2; echo $p > "), timeout_s)

    phone = device(tmp_path / "on it", Slow())
    phone.push({"program": program(tmp_path, "touch result")})
    assert phone.run(["program"], "result", 3600) is None


def test_another_process_of_the_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        folder = tmp_path / "run" / "old"
        folder.mkdir(parents=True)
        (folder / "pid").write_text(str(other.pid))
        device(tmp_path).clear()
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)


def test_an_old_result_is_none(tmp_path: Path) -> None:
    phone = device(tmp_path / "on it")
    phone.push({"program": program(tmp_path, '[ "$1" = write ] && touch result; true')})
    assert phone.run(["program", "write"], "result", 100) is None
    failure = phone.run(["program", "nothing"], "result", 100)
    assert failure is not None
    assert failure.cause == "no result"


def test_this_machine_tells_of_itself(tmp_path: Path) -> None:
    phone = device(tmp_path)
    facts, state = phone.probe(), phone.state()
    assert facts.system in ("linux", "macos")
    assert facts.cores == os.cpu_count()
    assert facts.memory_bytes > 1 << 28
    assert state.free_bytes > 0
    assert state.load is not None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
