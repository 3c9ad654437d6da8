"""What the way over SSH takes, and how it speaks to a shell; tests/build/test_ssh.py has a server."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from slmc.devices import ssh
from slmc.devices.ssh import SshTransport
from slmc.devices.ssh_connection import Way, parse_jump, reason_of
from slmc.errors import DeviceError, InputError

MARK = "0123456789abcdef" * 2


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "two words", "me@board", "a\nb", " board"])
def test_a_host_that_is_no_name(host: str) -> None:
    with pytest.raises(InputError, match="the host"):
        SshTransport(host)


@pytest.mark.parametrize(
    ("transport", "address"),
    [
        (SshTransport("board"), "ssh board"),
        (SshTransport("10.0.0.7", "pi"), "ssh pi@10.0.0.7"),
        (SshTransport("fe80::1", "pi", 2222, Path("key"), Path("hosts")), "ssh -p 2222 pi@fe80::1"),
    ],
)
def test_an_address_is_a_command(transport: SshTransport, address: str) -> None:
    assert transport.address == address
    transport.close()


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("gate", Way("gate")),
        (" me@Gate:2222 ", Way("Gate", "me", 2222)),
        ("ssh://me@gate:22", Way("gate", "me", 22)),
        ("me@[fe80::1]:2222", Way("fe80::1", "me", 2222)),
        ("[::1]", Way("::1")),
    ],
)
def test_a_jump(text: str, way: Way) -> None:
    assert parse_jump(text) == way


@pytest.mark.parametrize("text", ["", "me@", "gate:", "gate:x", "a@b@c", "fe80::1", "http://gate"])
def test_a_jump_that_is_none(text: str) -> None:
    with pytest.raises(DeviceError, match="ProxyJump") as raised:
        parse_jump(text)
    assert repr(text) in str(raised.value)


def said(content: bytes) -> tuple[int, bytes, bytes]:
    done = subprocess.run(["sh", "-c", ssh._command(MARK)], input=content, capture_output=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def test_a_script_that_came_whole_is_run_after_the_mark() -> None:
    mark = MARK.encode()
    assert said(b"cat; echo out; echo err >&2; exit 5" + mark) == (5, mark + b"out\n", mark + b"err\n")
    assert said(b"cat <<'END'\n$x \\ 'y'\n\nEND\n\n" + mark) == (0, mark + b"$x \\ 'y'\n\n", mark)
    assert said(mark) == (0, mark, mark)


@pytest.mark.parametrize("part", [b"", b"echo x", b"echo x\n" + MARK.encode()[:-1], MARK.encode() + b"echo x"])
def test_a_script_that_came_in_part_is_not_run(part: bytes) -> None:
    assert said(part) == (0, b"", b"")


def test_signals_are_numbers() -> None:
    assert ssh._number("KILL") == signal.SIGKILL
    assert ssh._number("NONE@example.org") == 0


def test_an_error_says_something() -> None:
    assert reason_of(TimeoutError()) == "no answer in time"
    assert reason_of(ConnectionResetError()) == "ConnectionResetError"
    assert reason_of(OSError("two\nlines")) == "two lines"
