"""Connections over SSH that are lost, and a device behind one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slmc.devices import ssh_connection
from slmc.devices.device import File
from slmc.devices.posix import PosixDevice
from slmc.devices.ssh import SshTransport
from slmc.devices.transport import LostConnection

from ...ssh_server import MEGABYTE, Server, Wire, free_port, transport_to, wait_for

pytestmark = [pytest.mark.build, pytest.mark.skipif(sys.platform != "linux", reason="not run: needs Linux")]


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
