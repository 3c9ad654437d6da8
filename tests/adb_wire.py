"""The adb protocol as a phone speaks it over TCP: messages, the handshake, and streams with one write in flight.

By AOSP's packages/modules/adb: protocol.txt and adb.h.
"""

from __future__ import annotations

import secrets
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = struct.unpack("<6I", b"CNXNAUTHOPENOKAYCLSEWRTE")
_TOKEN, _KEY = 1, 3
"""What an AUTH message holds."""
UNCHECKED = 0x01000001
"""The version from which on sums of messages are not looked at."""
_HEADER = struct.Struct("<6I")


class Fuse:
    """Lets bytes through while the phone is awake, and blows in the middle of whatever goes on when there are more than
    it was set to.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.awake = threading.Event()
        self.awake.set()
        self.set(lambda: None)

    def set(self, draw: Callable[[], int | None]) -> None:
        """To how many bytes, now and whenever it has blown; None is any number."""
        self._draw, self._left = draw, draw()

    def take(self, wanted: int) -> int:
        """How many of these go through."""
        self.awake.wait()
        with self._lock:
            if self._left is None:
                return wanted
            if wanted <= self._left:
                self._left -= wanted
                return wanted
            taken, self._left = self._left, self._draw()
            return taken


@dataclass
class Terms:
    """What a phone says of itself when it is connected."""

    banner: bytes
    version: int = UNCHECKED
    max_data: int = 1 << 20


class Wire:
    """One connection of an adb server."""

    def __init__(
        self, connection: socket.socket, terms: Terms, fuse: Fuse, serve: Callable[[Stream, str], None], trusted: bool
    ) -> None:
        self._socket = connection
        self._terms = terms
        self._fuse = fuse
        self._serve = serve
        self._trusted = trusted
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self.version, self.max_data = terms.version, terms.max_data

    def run(self) -> None:
        """Until the connection ends."""
        with suppress(OSError, EOFError):
            while True:
                self._take(*self._receive())
        self.cut()

    def cut(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for stream in list(self._streams.values()):
            stream.end()

    def trust(self) -> None:
        """The person has accepted the computer's key."""
        self._trusted = True
        self.send(CNXN, self._terms.version, self._terms.max_data, self._terms.banner)

    def send(self, command: int, first: int, second: int, content: bytes = b"") -> None:
        check = sum(content) & 0xFFFFFFFF if self.version < UNCHECKED else 0
        header = _HEADER.pack(command, first, second, len(content), check, command ^ 0xFFFFFFFF)
        with self._sending:
            message = header + content
            allowed = self._fuse.take(len(message))
            self._socket.sendall(message[:allowed])
        if allowed < len(message):
            self.cut()
            raise EOFError("the fuse has blown")

    def _receive(self) -> tuple[int, int, int, bytes]:
        command, first, second, size, check, magic = _HEADER.unpack(self._read(_HEADER.size))
        content = self._read(size)
        assert magic == command ^ 0xFFFFFFFF
        assert self.version >= UNCHECKED or command == CNXN or check == sum(content) & 0xFFFFFFFF
        return command, first, second, content

    def _read(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            piece = self._socket.recv(size - len(content))
            if not piece or self._fuse.take(len(piece)) < len(piece):
                raise EOFError("the connection was lost")
            content += piece
        return bytes(content)

    def _take(self, command: int, first: int, second: int, content: bytes) -> None:
        if command == CNXN:
            self.version, self.max_data = min(first, self._terms.version), min(second, self._terms.max_data)
            self.trust() if self._trusted else self.send(AUTH, _TOKEN, 0, secrets.token_bytes(20))
        elif command == AUTH and first != _KEY:
            self.send(AUTH, _TOKEN, 0, secrets.token_bytes(20))
        elif command == OPEN:
            self._open(first, content)
        elif second in self._streams:
            self._streams[second].take(command, content)

    def _open(self, remote: int, name: bytes) -> None:
        local = max(self._streams, default=0) + 1
        stream = self._streams[local] = Stream(self, local, remote)
        threading.Thread(target=self._answer, args=(stream, name.rstrip(b"\0").decode()), daemon=True).start()

    def _answer(self, stream: Stream, name: str) -> None:
        with suppress(OSError, EOFError):
            self._serve(stream, name)
        with suppress(OSError, EOFError):
            stream.close()
        self._streams.pop(stream.local, None)


class Stream:
    """One service of the phone, opened by the computer. Calls raise EOFError where the computer is gone."""

    def __init__(self, wire: Wire, local: int, remote: int) -> None:
        self._wire = wire
        self.local, self._remote = local, remote
        self._inbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._unread = bytearray()
        self._credit = threading.Semaphore(0)
        self.ended = False

    def accept(self) -> None:
        self._wire.send(OKAY, self.local, self._remote)

    def read(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._unread += self.read_some()
        content = bytes(self._unread[:size])
        del self._unread[:size]
        return content

    def read_some(self) -> bytes:
        piece = self._inbox.get()
        if piece is None:
            raise EOFError("the stream was closed")
        self._wire.send(OKAY, self.local, self._remote)
        return piece

    def write(self, content: bytes) -> None:
        for start in range(0, len(content), self._wire.max_data):
            self._wire.send(WRTE, self.local, self._remote, content[start : start + self._wire.max_data])
            self._credit.acquire()
            if self.ended:
                raise EOFError("the stream was closed")

    def take(self, command: int, content: bytes) -> None:
        if command == WRTE:
            self._inbox.put(content)
        elif command == OKAY:
            self._credit.release()
        elif command == CLSE:
            self.end()

    def end(self) -> None:
        """The computer has closed it, or is gone."""
        self.ended = True
        self._inbox.put(None)
        self._credit.release()

    def close(self) -> None:
        if not self.ended:
            self._wire.send(CLSE, self.local, self._remote)
