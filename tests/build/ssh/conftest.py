"""A server, and ways to it, for all tests of SSH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slmc.devices.ssh import SshTransport

from ...ssh_server import Server, Wire, know, make_key, sshd, transport_to


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of nobody: no settings, no keys, no agent."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture
def serve(tmp_path: Path, home: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that have the key `key` authorized; `known_hosts` knows them."""
    sshd()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd shuts itself in
    make_key(tmp_path / "host_key")
    shutil.copyfile(make_key(tmp_path / "key").with_suffix(".pub"), tmp_path / "authorized_keys")
    started: list[Server] = []

    def start(*settings: str) -> Server:
        server = Server(tmp_path, settings)
        started.append(server)
        server.start()
        know(tmp_path, server.port)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def transport(server: Server) -> Iterator[SshTransport]:
    made = transport_to(server.folder, server.port)
    yield made
    made.close()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    made = Wire(server.port)
    know(server.folder, made.port)
    yield made
    made.close()
