"""An Android phone, through the adb server that knows its cable or its network address.

adbutils talks with the server. What the phone is asked is said here: adbutils' own shell is a terminal's, where
standard error is part of the output, and its transfers wait for ever and drop the phone's reason.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slmc.devices.transport import LostConnection, Output
from slmc.errors import DeviceError, MissingToolError

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection

SERVER = ("127.0.0.1", 5037)
"""Host and port where adb's own programs start one."""
SILENT_S = 30.0
"""A server or phone that says nothing for so long is lost."""
ALIVE_S = 10.0
"""How long a phone may take for an empty script."""
OUTPUT = 64 << 20
"""Bytes of output that are kept of a script; one that writes more is stopped."""
PIECE = 64 << 10
"""Bytes of a file that go at once: the most that the sync protocol allows."""
_MODE = 0o100644
_SCRIPT = 0xFFFF
"""Bytes of a request to the server, whose length has four hexadecimal digits."""
_OUT, _ERRORS, _EXIT = 1, 2, 3
"""Kinds of packets of shell protocol 2."""
_NETWORK = re.compile(r".+:\d+")
_TODO = {
    "unauthorized": "unlock the phone and allow USB debugging from this computer, whose key it shows",
    "authorizing": "unlock the phone and see whether it asks to allow USB debugging from this computer",
    "not found": "plug it in, with USB debugging on; `adb devices -l` lists what the server sees",
    "offline": "`adb reconnect offline`, or plug the phone in again; restart it where that does not help",
    "connecting": "wait a moment, then ask again",
    "no permissions": "allow this user the phone's USB device: see udev in developer.android.com/studio/run/device",
    "recovery": "start Android: `adb reboot`",
    "sideload": "start Android: `adb reboot`",
    "rescue": "start Android: `adb reboot`",
    "bootloader": "start Android: `fastboot reboot`",
}
"""By the states that are not "device", and what the server answers instead."""


@dataclass(frozen=True)
class Attached:
    """A phone that the server knows."""

    serial: str
    state: str
    """"device" where it can be used, else adb's word, such as "offline" or "unauthorized"."""
    todo: str | None
    """What makes it usable; None where it is."""


def attached(server: tuple[str, int] = SERVER) -> tuple[Attached, ...]:
    """Raises LostConnection where no adb server answers, MissingToolError without adbutils."""
    client = _client(server)
    with _asking(f"{server[0]}:{server[1]}"):
        found = client.list()
    states = [(one.serial, "no permissions" if one.state == "no" else one.state) for one in found]
    return tuple(Attached(serial, state, _todo(state)) for serial, state in states)


class AdbTransport:
    """Without Android 7 or newer on the other side, DeviceError is raised: exit codes came with it."""

    def __init__(self, serial: str, server: tuple[str, int] = SERVER) -> None:
        self._serial = serial
        self._server = server
        self._ready = self._lost = False

    @property
    def address(self) -> str:
        return f"adb {self._serial}"

    def execute(self, script: str, timeout_s: float = 60) -> Output:
        try:
            return self._execute(script, timeout_s)
        except _TimeUp:
            pass
        try:
            self._execute("", ALIVE_S)
        except _TimeUp:
            self._ready, self._lost = False, True
            raise LostConnection("the phone says nothing", where=self.address, todo=_TODO["offline"]) from None
        raise DeviceError(f"a command took longer than {timeout_s:g} s", where=self.address)

    def send(self, content: bytes, path: str) -> None:
        with self._sync(b"SEND", f"{path},{_MODE}", path) as phone:
            for start in range(0, len(content), PIECE):
                if phone.speaks():
                    phone.reply(set())  # refuses what comes
                piece = content[start : start + PIECE]
                phone.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
            phone.write(struct.pack("<4sI", b"DONE", int(time.time())))
            phone.reply({b"OKAY"})

    def fetch(self, path: str, to: Path) -> None:
        try:
            with to.open("wb") as file, self._sync(b"RECV", path, path) as phone:
                while piece := phone.reply({b"DATA", b"DONE"}):
                    file.write(piece)
        except BaseException as error:
            with suppress(OSError):
                to.unlink()
            if isinstance(error, OSError):
                raise DeviceError(f"can't be written here: {error.strerror}", where=to) from None
            raise

    def close(self) -> None:
        self._ready = False

    def _execute(self, script: str, timeout_s: float) -> Output:
        written = {_OUT: bytearray(), _ERRORS: bytearray()}
        # A program that reads what nobody writes would wait for ever.
        with self._service(f"shell,v2,raw:exec < /dev/null\n{script}", self.address) as phone:
            phone.deadline = time.monotonic() + timeout_s
            while True:
                kind, size = struct.unpack("<BI", phone.read(5))
                if size + sum(map(len, written.values())) > OUTPUT:
                    raise DeviceError(f"a command writes more than {OUTPUT >> 20} MiB", where=self.address)
                content = phone.read(size)
                if kind in written:
                    written[kind] += content
                elif kind == _EXIT and size == 1:
                    return Output(content[0], *(part.decode(errors="replace") for part in written.values()))

    @contextmanager
    def _sync(self, request: bytes, argument: str, path: str) -> Iterator[_Service]:
        """The phone's file service, with a request that it has not answered yet."""
        octets, where = self._octets(argument), f"{self.address}: {path}"
        with self._service("sync:", where) as phone:
            phone.write(struct.pack("<4sI", request, len(octets)) + octets)
            yield phone

    @contextmanager
    def _service(self, name: str, where: str) -> Iterator[_Service]:
        request = self._octets(name)
        if len(request) > _SCRIPT:
            raise DeviceError(f"a script of {len(request)} bytes", where=where, expected=f"up to {_SCRIPT}")
        try:
            client = _client(self._server)
            self._prepare(client)
            with self._requested(client, f"host:transport:{self._serial}") as connection:
                service = _Service(connection.conn, where)
                service.write(b"%04x" % len(request) + request)
                with _asking(self.address):
                    connection.check_okay()
                yield service
        except LostConnection:
            self._ready, self._lost = False, True
            raise

    def _prepare(self, client: AdbClient) -> None:
        """Connect a phone that is reached by network, and see that it can be used."""
        if self._ready:
            return
        if _NETWORK.fullmatch(self._serial):
            self._connect(client)
        with self._requested(client, f"host-serial:{self._serial}:features") as connection, _asking(self.address):
            features = connection.read_string_block()
        if "shell_v2" not in features.split(","):
            raise DeviceError("can't tell exit codes", where=self.address, expected="Android 7 or newer")
        self._ready, self._lost = True, False

    def _connect(self, client: AdbClient) -> None:
        """The server holds on to connections that were lost, and takes them for ready: they are closed first."""
        with _asking(self.address):
            states = {one.serial: one.state for one in client.list()}
            state = states.get(self._serial)
            if state == "unauthorized" or (state == "device" and not self._lost):
                return
            if state is not None:
                client.disconnect(self._serial)
            said = client.connect(self._serial, timeout=SILENT_S)
        if not said.startswith(("connected to", "already connected to", "failed to authenticate to")):
            raise LostConnection(said, where=self.address, todo="see that it is on and in this network, with adb on")

    @contextmanager
    def _requested(self, client: AdbClient, request: str) -> Iterator[AdbConnection]:
        """A connection to the server, which has accepted a request."""
        with _asking(self.address):
            connection = client.make_connection()
        with connection:
            with _asking(self.address):
                connection.send_command(request)
                connection.check_okay()
            yield connection

    def _octets(self, text: str) -> bytes:
        """Raises DeviceError for what neither a script nor a path can hold: the phone would take the part before it."""
        try:
            octets = text.encode()
        except UnicodeEncodeError:
            octets = b"\0"
        if b"\0" in octets:
            raise DeviceError(f"{text[:200]!r}", where=self.address, expected="Unicode text without NUL")
        return octets


class _TimeUp(Exception):
    """The deadline has passed."""


class _Service:
    """Bytes to and from one service of the phone. All calls raise LostConnection, also after SILENT_S."""

    def __init__(self, connection: socket.socket, where: str) -> None:
        self._connection = connection
        self._where = where
        self.deadline: float | None = None
        """By time.monotonic(); reading raises _TimeUp when it has passed."""

    def write(self, content: bytes) -> None:
        with self._waiting(SILENT_S):
            self._connection.sendall(content)

    def read(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            with self._waiting(self._left()):
                piece = self._connection.recv(size - len(content))
            if not piece:
                raise LostConnection("the phone was lost", where=self._where)
            content += piece
        return bytes(content)

    def _left(self) -> float:
        if self.deadline is None:
            return SILENT_S
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise _TimeUp
        return left

    def speaks(self) -> bool:
        """Something can be read already."""
        return bool(select.select([self._connection], [], [], 0)[0])

    def reply(self, wanted: set[bytes]) -> bytes:
        """What the file service answers; empty for OKAY and DONE. Raises DeviceError where it refuses."""
        kind, size = struct.unpack("<4sI", self.read(8))
        if kind in wanted - {b"DATA"}:
            return b""
        if kind not in {b"FAIL", *wanted} or not 0 < size <= PIECE:
            raise DeviceError(f"its file service answers {kind!r} of {size} bytes", where=self._where)
        content = self.read(size)
        if kind == b"FAIL":
            said = content.decode(errors="replace")
            full = "free some storage on the device" if "No space left" in said else None
            raise DeviceError(f"the phone refuses: {said}", where=self._where, todo=full)
        return content

    @contextmanager
    def _waiting(self, wait_s: float) -> Iterator[None]:
        self._connection.settimeout(wait_s)
        try:
            yield
        except TimeoutError:
            if self.deadline is not None:
                raise _TimeUp from None
            raise LostConnection("the phone says nothing", where=self._where, todo=_TODO["offline"]) from None
        except OSError as error:
            raise LostConnection(f"the phone was lost: {error.strerror or error}", where=self._where) from None


def _client(server: tuple[str, int]) -> AdbClient:
    """Raises MissingToolError without adbutils, and for each request LostConnection where no server answers."""
    try:
        from adbutils import AdbClient, AdbConnection
    except ImportError as error:
        raise MissingToolError(f"phones need adbutils: {error}", todo="pip install 'slmc[farm]'") from None
    host, port = server

    class Connection(AdbConnection):  # type: ignore[misc]
        def _safe_connect(self) -> socket.socket:
            """adbutils' own starts a server where none answers at once, on whatever port."""
            try:
                return socket.create_connection(server, SILENT_S)
            except OSError as error:
                said, todo = error.strerror or error, f"`adb -P {port} start-server` on that machine"
                raise LostConnection(f"no adb server: {said}", where=f"{host}:{port}", todo=todo) from None

    class Client(AdbClient):  # type: ignore[misc]
        def make_connection(self, timeout: float | None = None) -> AdbConnection:
            return Connection(host, port)

    return Client(host, port)


@contextmanager
def _asking(where: str) -> Iterator[None]:
    """Around what the server is asked. Raises LostConnection where it or the phone is lost, DeviceError where a person
    is needed.
    """
    from adbutils import AdbError

    try:
        yield
        return
    except AdbError as error:
        said = str(error).splitlines()[0] if str(error) else "no answer"
    except (EOFError, OSError, ValueError) as error:  # the last for half an answer
        said = f"the adb server was lost: {error}"
    for state in ("unauthorized", "no permissions"):
        if state.removeprefix("no ") in said:
            raise DeviceError(said, where=where, todo=_TODO[state])
    raise LostConnection(said, where=where, todo=next((_TODO[state] for state in _TODO if state in said), None))


def _todo(state: str) -> str | None:
    """None for a phone that can be used."""
    return None if state == "device" else _TODO.get(state, f"see what {state!r} means: `adb devices -l`")
