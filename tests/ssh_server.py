"""OpenSSH's server for the user of this process, and a line to it that breaks."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from slmc.devices.ssh import SshTransport

LIMIT_S = 30
MEGABYTE = 1 << 20


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path], check=True)
    return path


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@dataclass
class Server:
    """OpenSSH's, for the user of this process alone."""

    folder: Path
    settings: tuple[str, ...] = ()
    host_key: str = "host_key"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        lines = [
            f"ListenAddress 127.0.0.1:{self.port}",
            f"HostKey {self.folder / self.host_key}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"PidFile {self.folder / 'pid'}",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "MaxStartups 100",
            *self.settings,
        ]
        if not any(line.startswith("Subsystem") for line in self.settings):
            lines.append("Subsystem sftp internal-sftp")
        config = self.folder / f"sshd_config_{self.port}"
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([sshd(), "-D", "-e", "-f", config], stderr=log, stdin=subprocess.DEVNULL)
        wait_for(self._answers, "sshd does not answer")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as asked:
            return asked.recv(4) == b"SSH-"
        return False

    def connections(self) -> list[psutil.Process]:
        """The server's processes for them."""
        assert self.process is not None
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    found.append(process)
        return found

    def cut(self) -> None:
        """As where the device falls off the network: what it runs goes on."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        for process in self.connections():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.cut()
            self.process.kill()
            self.process.wait()


class Wire:
    """A line to a server, which can break after so many bytes."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._left: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def break_after(self, count: int | None) -> None:
        """Of both directions together; None: never."""
        self._left = count

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._to)) as far:
            back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
            back.start()
            self._carry(near, far)
            back.join()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                if self._left is not None:
                    content = content[: self._left]
                    self._left -= len(content)
                sink.sendall(content)
                if self._left == 0:
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("not run: needs sshd, Debian's openssh-server")
    return found


def know(folder: Path, port: int, host_key: str = "host_key") -> None:
    kind, key, *_ = (folder / f"{host_key}.pub").read_text().split()
    with (folder / "known_hosts").open("a") as file:
        file.write(f"[127.0.0.1]:{port} {kind} {key}\n")


def transport_to(folder: Path, port: int, key: str = "key") -> SshTransport:
    return SshTransport("127.0.0.1", getpass.getuser(), port, folder / key, folder / "known_hosts")
