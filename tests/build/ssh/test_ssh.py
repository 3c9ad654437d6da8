"""Scripts and files over SSH, by a server on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slmc.devices.ssh import PIECE, SshTransport
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError

from ...ssh_server import MEGABYTE, Server, transport_to

pytestmark = [pytest.mark.build, pytest.mark.skipif(sys.platform != "linux", reason="not run: needs Linux")]


# ---- Scripts ---------------------------------------------------------------------------------------------------------


def test_a_script_has_its_code_and_both_outputs(transport: SshTransport) -> None:
    output = transport.execute("echo one; echo two >&2; exit 7")
    assert (output.code, output.text, output.errors) == (7, "one\n", "two\n")
    assert transport.execute("true").code == 0
    assert transport.execute("no-such-program").code == 127


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "ABRT"])
def test_a_signal_is_told_as_a_shell_tells_it(transport: SshTransport, name: str) -> None:
    assert transport.execute(f"ulimit -c 0; kill -{name} $$").code == 128 + signal.Signals[f"SIG{name}"]


def test_a_script_has_no_input(transport: SshTransport) -> None:
    assert transport.execute("cat; echo end").text == "end\n"


def test_bytes_that_are_no_text_are_replaced_one_by_one(transport: SshTransport) -> None:
    written = bytes(range(256))
    output = transport.execute("printf '" + "".join(f"\\{byte:03o}" for byte in written) + "'")
    assert output.text == written.decode(errors="replace")


def test_much_output_comes_whole(transport: SshTransport) -> None:
    output = transport.execute("seq 1000000; seq 300000 >&2")
    assert output.text == "".join(f"{number}\n" for number in range(1, 1_000_001))
    assert output.errors == "".join(f"{number}\n" for number in range(1, 300_001))


SCRIPTS = {
    "quotes": """printf '%s|' 'a'"'"'b' "c\\"d" '\\' '\\\\' '$HOME' '`x`' '!' '*' '~' "é ß 漢 🙂"\n""",
    "lines": "x='first\n\n  second'\nprintf '%s' \"$x\"\n\n",
    "here": "cat <<'END'\n$HOME `x` \\ 'y'\nEND\n",
    "expansions": 'x=$(printf "%s" "${UNSET:-a b}"); set -- 1 2 3; printf "%s %d" "$x" $#',
    "long": "printf '%s' '" + "0123456789é" * 10_000 + "'",
}


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_the_login_shell_does_not_matter(serve: Callable[..., Server], shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"not run: needs {shell}")
    server = serve(f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"')
    transport = transport_to(server.folder, server.port)
    for name, script in SCRIPTS.items():
        wanted = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True).stdout.decode()
        output = transport.execute(script)
        assert (output.code, output.text, output.errors) == (0, wanted, ""), name
    assert transport.execute("kill -9 $$").code == 128 + 9
    transport.close()


def test_what_a_shell_says_as_it_starts_is_left_out(serve: Callable[..., Server]) -> None:
    server = serve('ForceCommand echo welcome; echo careful >&2; eval "$SSH_ORIGINAL_COMMAND"')
    output = (transport := transport_to(server.folder, server.port)).execute("echo said; exit 3")
    assert (output.code, output.text, output.errors) == (3, "said\n", "")
    transport.close()


def test_a_server_that_runs_something_else_is_told(serve: Callable[..., Server]) -> None:
    server = serve("ForceCommand echo This account is not available.; exit 1")
    with pytest.raises(DeviceError, match=r"'This account is not available\.'") as raised:
        (transport := transport_to(server.folder, server.port)).execute("true")
    assert not isinstance(raised.value, LostConnection)
    transport.close()


def test_a_command_that_takes_too_long(transport: SshTransport) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"longer than 0\.5 s") as raised:
        transport.execute("sleep 20", timeout_s=0.5)
    assert time.monotonic() - start < 5
    assert not isinstance(raised.value, LostConnection)
    assert transport.execute("echo on").text == "on\n"


def test_ctrl_c_ends_the_waiting(transport: SshTransport) -> None:
    assert transport.execute("true").code == 0
    pressed = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        transport.execute("sleep 20")
    pressed.join()
    assert transport.execute("echo on").text == "on\n"


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_big_files_arrive_as_they_were(transport: SshTransport, tmp_path: Path) -> None:
    content = os.urandom(30 * MEGABYTE + 12345)
    there, back = tmp_path / "there é 'x'", tmp_path / "back"
    transport.send(content, str(there))
    assert there.read_bytes() == content
    transport.fetch(str(there), back)
    assert back.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\x00", bytes(range(256)) * 3, b"x" * PIECE])
def test_a_file_is_written_over(transport: SshTransport, tmp_path: Path, content: bytes) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(b"longer than what comes next" * 100)
    back.write_bytes(b"old")
    transport.send(content, str(there))
    transport.fetch(str(there), back)
    assert (there.read_bytes(), back.read_bytes()) == (content, content)


def test_files_of_the_system_have_no_size(transport: SshTransport, tmp_path: Path) -> None:
    transport.fetch("/proc/version", tmp_path / "version")
    assert (tmp_path / "version").read_bytes() == Path("/proc/version").read_bytes()


def test_a_file_that_is_not_there(transport: SshTransport, tmp_path: Path) -> None:
    (tmp_path / "back").write_text("of an earlier time")
    with pytest.raises(DeviceError, match="No such file") as raised:
        transport.fetch(str(tmp_path / "none"), tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert str(tmp_path / "none") in str(raised.value)
    with pytest.raises(DeviceError, match="No such file"):
        transport.send(b"x", str(tmp_path / "none" / "file"))


def test_what_the_system_refuses(transport: SshTransport, tmp_path: Path) -> None:
    path = "/proc/version" if os.getuid() == 0 else "/etc/passwd"
    with pytest.raises(DeviceError, match=r"(?i)denied|failure") as raised:
        transport.send(b"x", path)
    assert not isinstance(raised.value, LostConnection)
    with pytest.raises(DeviceError, match=r"(?i)failure"):
        transport.fetch(str(tmp_path), tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with pytest.raises(DeviceError, match="on this machine"):
        transport.fetch("/etc/passwd", tmp_path / "none" / "back")
    assert transport.execute("echo on").text == "on\n"


def test_a_full_device(transport: SshTransport, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("not run: needs root, to mount a small file system")
    try:
        with pytest.raises(DeviceError, match="No space left on the device") as raised:
            transport.send(bytes(2 * MEGABYTE), str(folder / "file"))
        assert "free some storage" in str(raised.value)
        (folder / "file").unlink()
        transport.send(b"small", str(folder / "file"))
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_file_that_can_not_be_written_for_another_reason(transport: SshTransport) -> None:
    with pytest.raises(DeviceError, match=r"(?i)failure"):
        transport.send(b"x" * 100_000, "/dev/full")


def test_a_server_without_sftp(serve: Callable[..., Server]) -> None:
    server = serve("Subsystem sftp /no/such/program")
    transport = transport_to(server.folder, server.port)
    with pytest.raises(DeviceError, match="no files by SFTP") as raised:
        transport.send(b"x", "/tmp/x")
    assert not isinstance(raised.value, LostConnection)
    assert transport.execute("echo on").text == "on\n"
    transport.close()
