"""What adbd offers on a phone: scripts (`shell`, `exec`) and files (`sync`), by AOSP's shell_service and SYNC.TXT."""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from .adb_wire import Stream

PIECE = 64 << 10
_STATUS = "<4sIQQ4IQ3q"
"""Of version 2: id, error, dev, ino, mode, nlink, uid, gid, size, atime, mtime, ctime."""
IN, OUT, ERRORS, EXIT, CLOSE_IN = range(5)
"""Kinds of packets of shell protocol 2."""


def serve_script(stream: Stream, start: Callable[[], subprocess.Popen[bytes]], packets: bool) -> None:
    """Ends as adbd's does: when nobody can write to its output any more, whoever that is. Without packets, `start` has
    sent standard error where the output goes.
    """
    stream.accept()
    process = start()
    sending = threading.Lock()

    def pump(pipe: IO[bytes], kind: int) -> None:
        with pipe, suppress(OSError, EOFError):
            while piece := os.read(pipe.fileno(), PIECE):
                with sending:
                    stream.write(struct.pack("<BI", kind, len(piece)) + piece if packets else piece)

    feeder = threading.Thread(target=_feed, args=(stream, process, packets), daemon=True)
    pumps = [threading.Thread(target=pump, args=(process.stdout, OUT), daemon=True)]
    if process.stderr is not None:
        pumps.append(threading.Thread(target=pump, args=(process.stderr, ERRORS), daemon=True))
    for thread in (feeder, *pumps):
        thread.start()
    for thread in pumps:
        thread.join()
    code = process.wait()
    if packets:
        stream.write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 0x80 | -code))


def _feed(stream: Stream, process: subprocess.Popen[bytes], packets: bool) -> None:
    """Standard input, until the computer closes the stream or is gone: then the shell is told as by a lost terminal."""
    assert process.stdin is not None
    try:
        while True:
            kind, content = IN, b""
            if packets:
                kind, size = struct.unpack("<BI", stream.read(5))
                content = stream.read(size)
            else:
                content = stream.read_some()
            with suppress(OSError, ValueError):
                if kind == CLOSE_IN:
                    process.stdin.close()
                elif kind == IN:
                    process.stdin.write(content)
                    process.stdin.flush()
    except EOFError:
        with suppress(OSError, ValueError):
            process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)


class Files:
    """The sync service over a folder. `here` finds the file of a phone's path, or raises PermissionError; `room` tells
    how many bytes a file may still grow.
    """

    def __init__(self, stream: Stream, here: Callable[[str], Path], room: Callable[[], int]) -> None:
        self._stream = stream
        self._here = here
        self._room = room

    def serve(self) -> None:
        self._stream.accept()
        while True:
            request, size = struct.unpack("<4sI", self._stream.read(8))
            argument = self._stream.read(size).decode()
            if request == b"QUIT":
                return
            self._answer(request, argument)

    def _answer(self, request: bytes, argument: str) -> None:
        match request:
            case b"STAT":
                self._stat(argument)
            case b"STA2" | b"LST2":
                self._stat_v2(request, argument)
            case b"LIST" | b"LIS2":
                self._list(argument, full=request == b"LIS2")
            case b"SEND":
                path, _, mode = argument.rpartition(",")
                self._receive(path, int(mode))
            case b"SND2":
                _, mode, compression = struct.unpack("<4sII", self._stream.read(12))
                assert compression == 0
                self._receive(argument, mode)
            case b"RECV":
                self._send(argument)
            case b"RCV2":
                _, compression = struct.unpack("<4sI", self._stream.read(8))
                assert compression == 0
                self._send(argument)
            case _:
                raise EOFError(f"an unknown command: {request!r}")

    def _stat(self, path: str) -> None:
        try:
            found = self._here(path).lstat()
            told = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
        except OSError:
            told = (0, 0, 0)
        self._stream.write(struct.pack("<4s3I", b"STAT", *told))

    def _stat_v2(self, request: bytes, path: str) -> None:
        try:
            place = self._here(path)
            told = _status(request, place.lstat() if request == b"LST2" else place.stat())
        except OSError as error:
            told = struct.pack(_STATUS, request, error.errno or errno.EACCES, *[0] * 10)
        self._stream.write(told)

    def _list(self, path: str, full: bool) -> None:
        """With version 2's answers where they are `full`."""
        with suppress(OSError):
            for one in sorted(self._here(path).iterdir()):
                found, name = one.lstat(), os.fsencode(one.name)
                told = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
                entry = _status(b"DNT2", found) if full else struct.pack("<4s3I", b"DENT", *told)
                self._stream.write(entry + struct.pack("<I", len(name)) + name)
        self._stream.write(b"DONE" + bytes(72 if full else 16))

    def _receive(self, path: str, mode: int) -> None:
        """Once it has failed it reads on and throws away, as adbd does, until the computer notices."""
        pieces = self._pieces()
        try:
            self._write(self._here(path), mode, pieces)
        except OSError as error:
            self._fail(error.args[1])
            for _ in pieces:
                pass
        else:
            self._stream.write(struct.pack("<4sI", b"OKAY", 0))

    def _pieces(self) -> Iterator[bytes]:
        while True:
            kind, size = struct.unpack("<4sI", self._stream.read(8))
            if kind == b"DONE":
                return
            yield self._stream.read(size)

    def _write(self, place: Path, mode: int, pieces: Iterator[bytes]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_dir():
            place.unlink(missing_ok=True)
        try:
            file = place.open("xb", buffering=0)
        except FileExistsError:
            raise OSError(errno.EISDIR, "couldn't create file: Is a directory") from None
        with file:
            place.chmod(stat.S_IMODE(mode))
            for content in pieces:
                if len(content) > self._room():
                    place.unlink()
                    raise OSError(errno.ENOSPC, "write failed: No space left on device")
                file.write(content)

    def _send(self, path: str) -> None:
        try:
            file = self._here(path).open("rb")
        except OSError as error:
            self._fail(f"open failed: {error.args[1]}")
            return
        with file:
            while piece := file.read(PIECE):
                self._stream.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        self._stream.write(struct.pack("<4sI", b"DONE", int(time.time())))

    def _fail(self, said: str) -> None:
        self._stream.write(struct.pack("<4sI", b"FAIL", len(said.encode())) + said.encode())


def _status(request: bytes, found: os.stat_result) -> bytes:
    owner = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid)
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    return struct.pack(_STATUS, request, 0, found.st_dev, found.st_ino, *owner, found.st_size, *times)
