"""An adb server that answers whatever it likes. The real one is in tests/build/test_adb.py."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from slmc.devices.adb import PIECE, AdbTransport, Attached, attached
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError

pytest.importorskip("adbutils", reason="not run: needs slmc[farm]")

Answer = Callable[[str], bytes]
SERIAL = "39V4C19114019806"


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, int]]:
    """A server that answers each request, and nothing but requests: it closes when they end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            while size := connection.recv(4):
                request = connection.recv(int(size, 16)).decode()
                connection.sendall(answer(request))
                if not request.startswith("host:transport:"):
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def text(said: str, kind: str = "OKAY") -> bytes:
    return f"{kind}{len(said.encode()):04x}{said}".encode()


def phone(shell: bytes = b"", sync: bytes = b"") -> Answer:
    """The answers for one that is ready, whose services say this."""

    def answer(request: str) -> bytes:
        if request.endswith(":features"):
            return text("cmd,shell_v2,stat_v2")
        return b"OKAY" + {"she": shell, "syn": sync}.get(request[:3], b"")

    return answer


def packet(kind: int, content: bytes) -> bytes:
    return struct.pack("<BI", kind, len(content)) + content


@pytest.mark.parametrize(
    ("said", "todo"),
    [
        ("device offline", "reconnect"),
        (f"device '{SERIAL}' not found", "USB debugging"),
        ("device still authorizing", "unlock"),
        ("closed", None),
        ("", None),
    ],
)
def test_a_phone_that_is_lost_may_come_back(said: str, todo: str | None) -> None:
    with serving(lambda _: text(said, "FAIL")) as server, pytest.raises(LostConnection) as raised:
        AdbTransport(SERIAL, server).execute("true")
    assert (todo or "") in (raised.value.todo or "")
    assert raised.value.where == f"adb {SERIAL}"


@pytest.mark.parametrize(
    ("said", "todo"),
    [
        ("device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\nTry 'adb kill-server'", "allow USB"),
        ("insufficient permissions for device: missing udev rules? user is in the plugdev group", "udev"),
    ],
)
def test_some_phones_need_a_person(said: str, todo: str) -> None:
    with serving(lambda _: text(said, "FAIL")) as server, pytest.raises(DeviceError) as raised:
        AdbTransport(SERIAL, server).execute("true")
    assert not isinstance(raised.value, LostConnection)
    assert todo in str(raised.value.todo)


def test_phones_are_listed_by_their_states() -> None:
    listing = (
        f"{SERIAL}\tdevice\nR58M\tunauthorized\nHT7A\tno permissions (missing udev rules?); see [http://x]\n"
        "192.168.1.7:5555\toffline\nabc\trecovery\n\nxyz\thost\n"
    )
    with serving(lambda _: text(listing)) as server:
        ready, *others = attached(server)
    assert ready == Attached(SERIAL, "device", None)
    assert [one.state for one in others] == ["unauthorized", "no permissions", "offline", "recovery", "host"]
    assert all(one.todo for one in others)


def test_unknown_packets_of_a_shell_are_passed_over() -> None:
    shell = packet(9, b"new") + packet(1, b"out\xff") + packet(2, b"err") + packet(1, b"put") + packet(3, b"\x07")
    with serving(phone(shell)) as server:
        output = AdbTransport(SERIAL, server).execute("true")
    assert (output.code, output.text, output.errors) == (7, "out\ufffdput", "err")


@pytest.mark.parametrize(
    ("shell", "error"),
    [
        (b"", LostConnection),
        (packet(1, b"out"), LostConnection),
        (packet(3, b"\x07")[:-1], LostConnection),
        (packet(3, b""), LostConnection),
        (struct.pack("<BI", 1, 0xFFFFFFFF), DeviceError),
    ],
)
def test_a_shell_that_ends_in_the_middle(shell: bytes, error: type[DeviceError]) -> None:
    with serving(phone(shell)) as server, pytest.raises(error) as raised:
        AdbTransport(SERIAL, server).execute("true")
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("sync", "said"),
    [
        (b"", "lost"),
        (b"OKA", "lost"),
        (b"OKAY" + bytes(4), "OKAY"),  # of sending
        (struct.pack("<4sI", b"DATA", 5) + b"cont", "lost"),
        (struct.pack("<4sI", b"DATA", 7) + b"content", "lost"),
        (struct.pack("<4sI", b"DATA", 0), "DATA"),
        (struct.pack("<4sI", b"DATA", PIECE + 1) + bytes(PIECE + 1), "DATA"),
        (struct.pack("<4sI", b"FAIL", 0xFFFFFFF0), "FAIL"),
        (struct.pack("<4sI", b"FAIL", 4) + b"n\xffpe", "n\ufffdpe"),
        (struct.pack("<4sI", b"DENT", 4) + b"nope", "DENT"),
    ],
)
def test_a_file_that_does_not_come_whole_is_none(sync: bytes, said: str, tmp_path: Path) -> None:
    with serving(phone(sync=sync)) as server, pytest.raises(DeviceError, match=said):
        AdbTransport(SERIAL, server).fetch("/data/local/tmp/file", tmp_path / "to")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_there_when_the_phone_says_so() -> None:
    refused = struct.pack("<4sI", b"FAIL", 4) + b"nope"
    for sync in (refused, struct.pack("<4sI", b"DONE", 0), struct.pack("<4sI", b"DATA", 1) + b"x"):
        with serving(phone(sync=sync)) as server, pytest.raises(DeviceError):
            AdbTransport(SERIAL, server).send(b"content", "/data/local/tmp/file")


PIECES = some.sampled_from(
    [b"OKAY", b"FAIL", b"0004", b"ffff", b"DATA", b"DONE", b"\1\4\0\0\0", b"\3\1\0\0\0\7", b"shell_v2", b"\n", b"\t"]
)


@settings(max_examples=60, deadline=None)
@given(some.lists(PIECES | some.binary(max_size=8), max_size=8).map(b"".join), some.booleans(), some.booleans())
def test_no_answer_can_do_harm(
    tmp_path_factory: pytest.TempPathFactory, answer: bytes, ready: bool, network: bool
) -> None:
    to = tmp_path_factory.getbasetemp() / "to"
    with serving(phone(answer, answer) if ready else lambda _: answer) as server:
        transport = AdbTransport("10.0.0.7:5555" if network and not ready else SERIAL, server)
        calls: list[Callable[[], object]] = [
            lambda: transport.execute("true"),
            lambda: transport.send(b"content", "/file"),
            lambda: transport.fetch("/file", to),
            lambda: attached(server),
        ]
        for call in calls:
            with suppress(DeviceError):
                call()
    to.unlink(missing_ok=True)


def test_no_server_is_started_for_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As adbutils would."""
    started: list[object] = []
    monkeypatch.setattr("adbutils._adb.subprocess.run", lambda command, **_: started.append(command))
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    def answer_once() -> None:
        request = b""
        while not request:
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(1000)
                if request:
                    listener.close()
                    connection.sendall(text("shell_v2"))

    thread = threading.Thread(target=answer_once, daemon=True)
    thread.start()
    with pytest.raises(LostConnection, match="no adb server"):
        AdbTransport(SERIAL, address).execute("true")
    thread.join()
    assert started == []
