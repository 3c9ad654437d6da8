"""The way to Macs, Raspberry Pis and edge boxes: SSH, by keys alone."""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from slmc.devices.transport import LostConnection, Output
from slmc.errors import DeviceError, InputError, MissingToolError

if TYPE_CHECKING:
    from asyncssh import SFTPClient, SSHClientConnection

PIECE = 4 << 20
"""Bytes of a file that are on their way at once."""
PIECE_S = 120.0
"""For each of them: a storage or a line that takes longer is fit for no run."""
_HOST = re.compile(r"[^\s@-][^\s@]*")
Found = TypeVar("Found")


class SshTransport:
    """Keys from `key`, ~/.ssh/config, ~/.ssh or the agent, never a password; a passphrase is not asked for. The host
    must be in `known_hosts`, else in the files that ~/.ssh/config names. Raises InputError for a host that is no name,
    and MissingToolError without asyncssh.
    """

    def __init__(
        self,
        host: str,
        user: str | None = None,
        port: int | None = None,
        key: Path | None = None,
        known_hosts: Path | None = None,
    ) -> None:
        if not _HOST.fullmatch(host):
            raise InputError(f"the host {host!r}", expected="a name, an address, or a Host of ~/.ssh/config")
        try:
            from slmc.devices.ssh_connection import Way
        except ImportError as error:
            raise MissingToolError(f"asyncssh is not installed: {error}", todo="pip install 'slmc[farm]'") from None
        self._way = Way(host, user, port, key and key.expanduser(), known_hosts and known_hosts.expanduser())
        self._thread: _Thread | None = None
        self._connection: SSHClientConnection | None = None

    @property
    def address(self) -> str:
        return str(self._way)

    def execute(self, script: str, timeout_s: float = 60) -> Output:
        """The code of one that a signal ended is 128 and the signal's number, as a shell has it."""
        return self._run(lambda connection: self._execute(connection, script, timeout_s))

    def send(self, content: bytes, path: str) -> None:
        self._run(lambda connection: self._send(connection, content, path))

    def fetch(self, path: str, to: Path) -> None:
        self._run(lambda connection: self._fetch(connection, path, to))

    def close(self) -> None:
        if self._thread is not None:
            self._thread.run(self._disconnect())
            self._thread.end()
            self._thread = None

    # ---- The connection ---------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[SSHClientConnection], Awaitable[Found]]) -> Found:
        if self._thread is None:
            self._thread = _Thread()
        return self._thread.run(self._connect_and(work))

    async def _connect_and(self, work: Callable[[SSHClientConnection], Awaitable[Found]]) -> Found:
        """Work over a connection, which is made where there is none. What the library raises is told in our words."""
        import asyncssh

        from slmc.devices.ssh_connection import connect, reason_of

        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._way)
        try:
            return await work(self._connection)
        except LostConnection:
            raise
        except (asyncssh.Error, OSError, DeviceError) as error:
            await asyncio.sleep(0)  # a connection that breaks is marked as closed a turn later
            gone = isinstance(error, asyncssh.DisconnectError | asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection)
            if gone or self._connection.is_closed():
                what = error.what if isinstance(error, DeviceError) else reason_of(error)
                raise LostConnection(f"the connection was lost: {what}", where=self._way) from None
            if isinstance(error, DeviceError):
                raise
            raise DeviceError(f"the SSH server refused: {reason_of(error)}", where=self._way) from None

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            await self._connection.wait_closed()
            self._connection = None

    @asynccontextmanager
    async def _within(self, seconds: float, late: str) -> AsyncIterator[asyncio.Timeout]:
        try:
            async with asyncio.timeout(seconds) as limit:
                yield limit
        except TimeoutError:
            if not limit.expired():  # a socket's own
                raise
            raise DeviceError(f"{late} {seconds:g} s", where=self._way) from None

    # ---- Scripts ----------------------------------------------------------------------------------------------------

    async def _execute(self, connection: SSHClientConnection, script: str, timeout_s: float) -> Output:
        mark = secrets.token_hex(16)
        process = None
        try:
            async with self._within(timeout_s, "a command took longer than"):
                process = await connection.create_process(_command(mark), encoding=None, request_pty=False)
                text, errors = await process.communicate(script.encode() + mark.encode())
        finally:
            if process is not None:
                process.close()
        if connection.is_closed() or process.exit_status is None:
            raise LostConnection("the connection was lost during a command", where=self._way)
        code = process.exit_status if process.exit_signal is None else 128 + _number(process.exit_signal[0])
        return Output(code, self._after(mark, text), self._after(mark, errors))

    def _after(self, mark: str, said: bytes) -> str:
        """What the script wrote: files that the user's shell reads as it starts may have written before."""
        before, found, after = said.partition(mark.encode())
        if not found:
            raise DeviceError(
                f"commands don't get through to a shell: it said {before.decode(errors='replace').strip()[:500]!r}",
                where=self._way,
                todo="give the user there a shell, and no command= for the key in authorized_keys",
            )
        return after.decode(errors="replace")

    # ---- Files ------------------------------------------------------------------------------------------------------

    async def _send(self, connection: SSHClientConnection, content: bytes, path: str) -> None:
        from asyncssh import SFTPFailure

        async with self._files(connection, path) as (sftp, more_time):
            try:
                file = await sftp.open(path, "wb")
                for start in range(0, len(content), PIECE):
                    await file.write(content[start : start + PIECE])
                    more_time()
                await file.close()
            except SFTPFailure:  # of which no reason is told
                free = await _free_bytes(sftp, path)
                if free is None or free >= len(content):
                    raise
                what, todo = f"No space left on the device: {free} bytes are free", "free some storage on the device"
                raise DeviceError(what, where=self._where(path), todo=todo) from None

    async def _fetch(self, connection: SSHClientConnection, path: str, to: Path) -> None:
        try:
            async with self._files(connection, path) as (sftp, more_time):
                file = await sftp.open(path, "rb")
                size = (await file.stat()).size or 0
                with to.open("wb") as out:
                    content: bytes = await file.read(PIECE)
                    while content:
                        out.write(content)
                        more_time()
                        content = await file.read(PIECE)
                    if out.tell() < size:
                        raise DeviceError(f"ended after {out.tell()} of {size} bytes", where=self._where(path))
        except BaseException as error:
            to.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise DeviceError(f"can't be written on this machine: {error.strerror}", where=to) from None
            raise

    @asynccontextmanager
    async def _files(
        self, connection: SSHClientConnection, path: str
    ) -> AsyncIterator[tuple[SFTPClient, Callable[[], None]]]:
        """The device's files, for PIECE_S seconds and as many again at each call; errors name the path."""
        import asyncssh

        sftp = None
        try:
            async with self._within(PIECE_S, f"no piece of {path} came through in") as limit:
                sftp = await self._start_sftp(connection)
                yield sftp, lambda: limit.reschedule(asyncio.get_running_loop().time() + PIECE_S)
        except asyncssh.SFTPError as error:
            if isinstance(error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection):
                raise
            raise DeviceError(f"the device refused a file: {error.reason}", where=self._where(path)) from None
        finally:
            if sftp is not None:
                sftp.exit()

    async def _start_sftp(self, connection: SSHClientConnection) -> SFTPClient:
        import asyncssh

        try:
            return await connection.start_sftp_client()
        except (asyncssh.SFTPError, asyncssh.ChannelOpenError) as error:
            raise DeviceError(
                f"the SSH server moves no files by SFTP: {error.reason}",
                where=self._way,
                todo="install its SFTP server there, and let the files that the user's shell reads print nothing",
            ) from None

    def _where(self, path: str) -> str:
        return f"{self._way}: {path}"


def _command(mark: str) -> str:
    """For a login shell of any kind: have `sh` read a script that ends in the mark, say the mark to both outputs, and
    run it without input. Of a script that came in part nothing is run.
    """
    return (
        f"exec sh -c 's=$(cat); case $s in *{mark}) printf %s {mark}; printf %s {mark} >&2; "
        f'exec </dev/null; eval "${{s%{mark}}}";; esac\''
    )


def _number(name: str) -> int:
    """Of a signal by SSH's name for it; 0 where this machine has none of that name."""
    found = signal.Signals.__members__.get(f"SIG{name}")
    return 0 if found is None else found.value


async def _free_bytes(sftp: SFTPClient, path: str) -> int | None:
    """Of the file system that a file lies in; None where that has no blocks, or the server doesn't tell."""
    from asyncssh import SFTPError

    try:
        found = await sftp.statvfs(PurePosixPath(path).parent)
    except SFTPError:
        return None
    return found.bavail * found.frsize if found.blocks else None


class _Thread:
    """An event loop of its own, so that keep-alives are answered between calls."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_tell)
        self._thread = threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Found]) -> Found:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # where Ctrl-C ended the waiting

    def end(self) -> None:
        self.run(_end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_tasks() -> None:
    """Those that the library left, as of a jump's connection that closes."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody waited for, but not what each of many requests says of a lost connection: the call tells it once."""
    import asyncssh

    if not isinstance(context.get("exception"), asyncssh.Error | OSError):
        loop.default_exception_handler(context)
