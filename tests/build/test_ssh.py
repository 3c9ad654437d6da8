"""The way over SSH, to a server on this machine."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from slmc.devices import ssh_connection
from slmc.devices.device import File
from slmc.devices.posix import PosixDevice
from slmc.devices.ssh import PIECE, SshTransport
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError

pytestmark = [pytest.mark.build, pytest.mark.skipif(sys.platform != "linux", reason="not run: needs Linux")]
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


def know(folder: Path, port: int, host_key: str = "host_key") -> None:
    kind, key, *_ = (folder / f"{host_key}.pub").read_text().split()
    with (folder / "known_hosts").open("a") as file:
        file.write(f"[127.0.0.1]:{port} {kind} {key}\n")


def transport_to(folder: Path, port: int, key: str = "key") -> SshTransport:
    return SshTransport("127.0.0.1", getpass.getuser(), port, folder / key, folder / "known_hosts")


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


# ---- Lost connections ------------------------------------------------------------------------------------------------


def test_nobody_answers(home: Path, tmp_path: Path) -> None:
    transport = SshTransport("127.0.0.1", None, free_port(), None, tmp_path / "known_hosts")
    with pytest.raises(LostConnection, match="can't be reached"):
        transport.execute("true")
    transport.close()


@pytest.mark.usefixtures("home")
def test_a_name_of_nobody() -> None:
    transport = SshTransport("no-such-device.invalid")
    with pytest.raises(LostConnection, match="can't be reached"):
        transport.execute("true")
    transport.close()


@pytest.mark.usefixtures("home")
def test_somebody_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connection, "CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = SshTransport("127.0.0.1", None, silent.getsockname()[1])
        with pytest.raises(LostConnection, match="can't be reached"):
            transport.execute("true")
        transport.close()


def test_a_dead_peer_is_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connection, "KEEPALIVE_S", 0.3)
    transport = transport_to(server.folder, server.port)
    assert transport.execute("true").code == 0
    server.signal(signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(LostConnection):
        transport.execute("true")
    assert time.monotonic() - start < 10
    assert transport.execute("echo again").text == "again\n"
    transport.close()


@pytest.mark.parametrize("broken", ["kill", "restart"])
def test_a_connection_that_broke_between_calls(server: Server, transport: SshTransport, broken: str) -> None:
    assert transport.execute("true").code == 0
    if broken == "restart":
        server.stop()
        server.start()
    else:
        server.cut()
    with contextlib.suppress(LostConnection):
        assert transport.execute("echo again").text == "again\n"
    assert transport.execute("echo again").text == "again\n"


def test_a_server_that_dies_in_the_middle_of_each_call(server: Server, transport: SshTransport, tmp_path: Path) -> None:
    content = os.urandom(64 * MEGABYTE)
    (tmp_path / "there").write_bytes(content)

    def in_the_middle(call: Callable[[], object], begun: Callable[[], object]) -> None:
        assert transport.execute("true").code == 0
        cutter = threading.Thread(target=lambda: (wait_for(begun, "not begun"), server.cut()))
        cutter.start()
        with pytest.raises(LostConnection):
            call()
        cutter.join()

    begun, sent, back = tmp_path / "begun", tmp_path / "sent", tmp_path / "back"
    in_the_middle(lambda: transport.execute(f"echo half; touch {begun}; sleep 20"), begun.exists)
    in_the_middle(lambda: transport.send(content, str(sent)), lambda: sent.exists() and sent.stat().st_size > MEGABYTE)
    in_the_middle(
        lambda: transport.fetch(str(tmp_path / "there"), back), lambda: back.exists() and back.stat().st_size > 0
    )
    assert not back.exists()
    transport.send(content, str(sent))
    assert sent.read_bytes() == content


def test_a_line_that_breaks_after_any_number_of_bytes(
    wire: Wire, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call says that the connection was lost, or has done all of its work; and the next works."""
    transport = transport_to(server.folder, wire.port)
    content = os.urandom(300_000)
    there, sent, back = (server.folder / name for name in ("there", "sent", "back"))
    there.write_bytes(content)
    numbers = "".join(f"{number}\n" for number in range(1, 5001))

    def check_execute() -> None:
        output = transport.execute("seq 5000; echo done >&2; exit 5")
        assert (output.code, output.text, output.errors) == (5, numbers, "done\n")

    def check_send() -> None:
        transport.send(content, str(sent))
        assert sent.read_bytes() == content

    def check_fetch() -> None:
        back.unlink(missing_ok=True)
        try:
            transport.fetch(str(there), back)
        except LostConnection:
            assert not back.exists()
            raise
        assert back.read_bytes() == content

    lost = 0
    for check, least in ((check_execute, 20_000), (check_send, 300_000), (check_fetch, 300_000)):
        for count in (1, 100, 200, 500, 1000, least // 2, *range(least, least + 6000, 1000)):
            wire.break_after(None)
            check()
            wire.break_after(count)
            try:
                check()
            except LostConnection:
                lost += 1
    assert lost > 20
    wire.break_after(None)
    transport.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]  # nobody else tells of it


def test_no_part_of_a_script_is_run(wire: Wire, server: Server) -> None:
    transport = transport_to(server.folder, wire.port)
    mark = server.folder / "ran"
    script = f"touch {mark}\n" + "true # a line that goes on\n" * 6_000
    for count in (2_000, 50_000, 150_000):
        wire.break_after(None)
        assert transport.execute("true").code == 0
        wire.break_after(count)
        with pytest.raises(LostConnection):
            transport.execute(script)
        wire.break_after(None)
        assert transport.execute("true").code == 0
        assert not mark.exists()
    transport.execute(script)
    assert mark.exists()
    transport.close()


def test_a_transport_that_was_closed_connects_anew(transport: SshTransport) -> None:
    for _ in range(2):
        assert transport.execute("echo on").text == "on\n"
        transport.close()
        transport.close()


# ---- A device of it --------------------------------------------------------------------------------------------------


def test_a_device_over_a_line_that_breaks(wire: Wire, server: Server, tmp_path: Path) -> None:
    """Files arrive, a program starts once and goes on while there is no connection, its result comes back."""
    root, begun, counted = tmp_path / "root é", tmp_path / "begun", tmp_path / "counted"
    program, weights = tmp_path / "program", tmp_path / "weights"
    program.write_text(
        f"#!/bin/sh\ncd '{root}/job'; echo one >> {counted}; touch {begun}; cat > /dev/null\n"
        "while [ ! -e ../go ]; do sleep 0.1; done; sha256sum < data/weights > result\n"
    )
    weights.write_bytes(os.urandom(9 * MEGABYTE))
    transport = transport_to(server.folder, wire.port)
    device = PosixDevice("board", transport, str(root))
    assert device.probe().cores == os.cpu_count()
    assert device.state().free_bytes > 0
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (program, weights)}
    files = {"program": File(program, digests[program]), "data/weights": File(weights, digests[weights])}

    wire.break_after(4 * MEGABYTE)
    mended = threading.Timer(2, lambda: wire.break_after(None))
    mended.start()
    device.push(files)
    mended.join()
    assert (root / "job" / "data" / "weights").read_bytes() == weights.read_bytes()

    def interrupt() -> None:
        wait_for(begun.exists, "the program was not started")
        server.cut()
        (root / "go").touch()

    cutter = threading.Thread(target=interrupt)
    cutter.start()
    assert device.run(["program"], "result", timeout_s=60) is None
    cutter.join()
    assert counted.read_text() == "one\n"
    device.pull("result", tmp_path / "result")
    assert (tmp_path / "result").read_text().split()[0] == digests[weights]
    device.clear()
    assert not (root / "files").exists()


def test_a_device_tells_how_a_program_died(transport: SshTransport, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho why >&2; kill -9 $$\n")
    device = PosixDevice("board", transport, str(tmp_path / "root"))
    device.push({"program": File(program, hashlib.sha256(program.read_bytes()).hexdigest())})
    failure = device.run(["program"], "result", timeout_s=60)
    assert failure is not None
    assert "SIGKILL" in failure.what
    assert failure.stderr == "why"
    device.clear()
