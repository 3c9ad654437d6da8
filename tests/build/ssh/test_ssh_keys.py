"""Who is let in over SSH, which hosts are known, and what a user has set."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slmc.devices.ssh import SshTransport
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError

from ...ssh_server import LIMIT_S, Server, know, make_key, transport_to, wait_for

pytestmark = [pytest.mark.build, pytest.mark.skipif(sys.platform != "linux", reason="not run: needs Linux")]


# ---- Keys ------------------------------------------------------------------------------------------------------------


def refusal(transport: SshTransport) -> str:
    """What a call says that is not to be tried again."""
    start = time.monotonic()
    with pytest.raises(DeviceError) as raised:
        transport.execute("true")
    transport.close()
    assert not isinstance(raised.value, LostConnection), raised.value
    assert time.monotonic() - start < LIMIT_S / 2
    return str(raised.value)


def fingerprint(folder: Path, host_key: str = "host_key") -> str:
    told = subprocess.run(["ssh-keygen", "-lf", folder / f"{host_key}.pub"], capture_output=True, text=True, check=True)
    return told.stdout.split()[1]


@pytest.mark.parametrize("content", [None, "", "# nobody\n", "[127.0.0.1]:1 ssh-ed25519 AAAA\n"])
def test_an_unknown_host(server: Server, content: str | None) -> None:
    file = server.folder / "other"
    if content is not None:
        file.write_text(content)
    said = refusal(SshTransport("127.0.0.1", None, server.port, server.folder / "key", file))
    assert f"the host key of [127.0.0.1]:{server.port} is not known" in said
    assert str(file) in said
    assert said.count(fingerprint(server.folder)) == 2
    assert (file.read_text() if file.exists() else None) == content  # nothing is added in silence


def test_a_host_that_is_another_now(server: Server) -> None:
    file = server.folder / "known_hosts"
    make_key(server.folder / "old_key")
    file.write_text("")
    know(server.folder, server.port, "old_key")
    before = file.read_text()
    said = refusal(transport_to(server.folder, server.port))
    assert f"the host key of [127.0.0.1]:{server.port} is not the known one" in said
    assert str(file) in said
    assert "ssh-keygen -R" in said
    assert fingerprint(server.folder) in said
    assert file.read_text() == before


def test_a_host_whose_kind_of_key_is_another_now(server: Server) -> None:
    (server.folder / "known_hosts").write_text("")
    make_key(server.folder / "old_key", kind="rsa")
    know(server.folder, server.port, "old_key")
    said = refusal(transport_to(server.folder, server.port))
    assert "is not the known one" in said
    assert str(server.folder / "known_hosts") in said


def test_a_host_whose_key_was_revoked(server: Server) -> None:
    with (server.folder / "known_hosts").open("a") as file:
        file.write("@revoked * " + (server.folder / "host_key.pub").read_text())
    assert "revoked" in refusal(transport_to(server.folder, server.port))


def test_hashed_names_and_authorities_are_known(server: Server) -> None:
    file = server.folder / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert file.read_text().startswith("|1|")
    transport = transport_to(server.folder, server.port)
    assert transport.execute("echo hashed").text == "hashed\n"
    transport.close()


def test_a_damaged_list_of_hosts_is_named(server: Server) -> None:
    (server.folder / "known_hosts").write_text("nonsense\n")
    assert str(server.folder / "known_hosts") in refusal(transport_to(server.folder, server.port))


def test_a_key_that_is_not_accepted(server: Server) -> None:
    make_key(server.folder / "stranger")
    said = refusal(transport_to(server.folder, server.port, "stranger"))
    assert "no key was accepted" in said
    assert "authorized_keys" in said


def test_a_password_is_never_given(serve: Callable[..., Server]) -> None:
    server = serve("PubkeyAuthentication no", "PasswordAuthentication yes", "KbdInteractiveAuthentication yes")
    assert "no key was accepted" in refusal(transport_to(server.folder, server.port))


def test_too_many_keys(serve: Callable[..., Server], home: Path) -> None:
    server = serve("MaxAuthTries 1")
    for kind in ("rsa", "ecdsa", "ed25519"):
        make_key(home / ".ssh" / f"id_{kind}", kind=kind)
    said = refusal(SshTransport("127.0.0.1", getpass.getuser(), server.port, None, server.folder / "known_hosts"))
    assert "no key was accepted" in said


def test_a_key_that_is_not_there_or_is_none(server: Server) -> None:
    assert str(server.folder / "none") in refusal(transport_to(server.folder, server.port, "none"))
    (server.folder / "damaged").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n")
    said = refusal(transport_to(server.folder, server.port, "damaged"))
    assert "c2VjcmV0" not in said


@pytest.fixture
def agent(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    place = server.folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL)
    wait_for(place.exists, "no agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
    yield
    process.terminate()
    process.wait()


@pytest.mark.usefixtures("agent")
def test_a_key_with_a_passphrase_is_used_through_the_agent(server: Server) -> None:
    key = make_key(server.folder / "locked", passphrase="secret word")
    (server.folder / "authorized_keys").write_text((server.folder / "locked.pub").read_text())
    said = refusal(transport_to(server.folder, server.port, "locked"))
    assert "ssh-add" in said
    assert "secret word" not in said
    asked = server.folder / "ask"
    asked.write_text("#!/bin/sh\necho 'secret word'\n")
    asked.chmod(0o755)
    told = os.environ | {"SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", key], env=told, check=True, stdin=subprocess.DEVNULL)
    for name in ("locked", None):
        transport = SshTransport(
            "127.0.0.1", None, server.port, name and server.folder / name, server.folder / "known_hosts"
        )
        assert transport.execute("echo in").text == "in\n"
        transport.close()


@pytest.mark.parametrize("kind", ["none", "silent"])
def test_an_agent_that_is_gone_is_done_without(server: Server, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    place = server.folder / "gone"
    with socket.socket(socket.AF_UNIX) as left:
        if kind == "silent":
            left.bind(str(place))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        transport = transport_to(server.folder, server.port)
        assert transport.execute("echo in").text == "in\n"
        transport.close()


# ---- Settings --------------------------------------------------------------------------------------------------------


def test_settings_of_a_host_are_honoured(server: Server, home: Path) -> None:
    settings = home / ".ssh" / "config"
    (home / ".ssh" / "known_hosts").write_text((server.folder / "known_hosts").read_text())
    settings.write_text(
        f"Host board\n HostName 127.0.0.1\n Port {server.port}\n User {getpass.getuser()}\n"
        f" IdentityFile {server.folder / 'key'}\n RequestTTY force\n RemoteCommand echo other\n ForwardAgent yes\n"
    )
    transport = SshTransport("board", known_hosts=Path("~/.ssh/known_hosts"))
    assert transport.address == "ssh board"
    output = transport.execute("echo out; echo err >&2; tty")
    assert (output.code, output.text, output.errors) == (1, "out\nnot a tty\n", "err\n")
    transport.close()


def test_settings_can_not_switch_the_look_at_host_keys_off(server: Server, home: Path) -> None:
    (home / ".ssh" / "config").write_text("Host *\n UserKnownHostsFile none\n StrictHostKeyChecking no\n")
    said = refusal(SshTransport("127.0.0.1", None, server.port, server.folder / "key"))
    assert "is not known" in said
    assert str(home / ".ssh" / "known_hosts") in said


def test_damaged_settings_are_told(server: Server, home: Path) -> None:
    (home / ".ssh" / "config").write_text("Port many\n")
    assert "~/.ssh/config" in refusal(SshTransport("127.0.0.1", None, None, server.folder / "key"))


def jumps(server: Server, home: Path, known: bool = True) -> None:
    (home / ".ssh" / "known_hosts").write_text((server.folder / "known_hosts").read_text())
    one = f" HostName 127.0.0.1\n Port {server.port}\n IdentityFile {server.folder / 'key'}\n"
    unknown = "" if known else f" UserKnownHostsFile {server.folder / 'none'}\n"
    (home / ".ssh" / "config").write_text(
        f"Host gate\n{one}{unknown}Host inner\n{one}Host board\n ProxyJump {getpass.getuser()}@gate,inner\n{one}"
        f"Host far\n ProxyJump board\n{one}Host *\n ProxyJump none\n"
    )


@pytest.mark.parametrize(("host", "connections"), [("inner", 1), ("board", 3), ("far", 4)])
def test_jumps(server: Server, home: Path, host: str, connections: int) -> None:
    jumps(server, home)
    transport = SshTransport(host)
    assert transport.execute("echo behind").text == "behind\n"
    told = (server.folder / "log").read_text().count("Accepted publickey")
    assert told == connections
    transport.close()
    wait_for(lambda: not server.connections(), "a jump was left open")


def test_a_jump_for_all_hosts_is_not_jumped_to(server: Server, home: Path) -> None:
    jumps(server, home)
    config = home / ".ssh" / "config"
    config.write_text(config.read_text().replace("ProxyJump none", "ProxyJump gate"))
    transport = SshTransport("inner")
    assert transport.execute("echo behind").text == "behind\n"
    assert (server.folder / "log").read_text().count("Accepted publickey") == 2
    transport.close()


def test_a_jump_is_looked_at_as_closely(server: Server, home: Path) -> None:
    jumps(server, home, known=False)
    said = refusal(SshTransport("board"))
    assert "is not known" in said
    assert str(server.folder / "none") in said
