"""Phones by the real adb: its server between the transport and emulated phones, which tests/adb_device.py makes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from slmc.backends.tvm.library import zig_tools
from slmc.devices import adb
from slmc.devices.adb import AdbTransport, Attached, attached
from slmc.devices.android import Android
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError

from ..adb_device import FEATURES, STORAGE, AdbServer, Emulator, Phone, android_tools, arm64_emulator

pytestmark = pytest.mark.build
adbutils = pytest.importorskip("adbutils", reason="not run: needs slmc[farm]")

Make = Callable[..., Phone]
Reach = Callable[[Phone], AdbTransport]
BIG = 40 << 20


def program(kind: str) -> str | None:
    """The system's adb, and the newer one that comes with adbutils for some systems."""
    if kind == "system":
        return shutil.which("adb")
    found = Path(adbutils.__file__).parent / "binaries" / "adb"
    return str(found) if found.exists() else None


@pytest.fixture(scope="module", params=["system", "adbutils"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    found = program(request.param)
    if found is None:
        pytest.skip("not run: needs adb")
    with AdbServer(found, tmp_path_factory.mktemp("adb")) as server:
        yield server


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Phone] = []

    def phone(**options: object) -> Phone:
        made.append(Phone(tmp_path / f"phone{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield phone
    for one in made:
        one.__exit__()


@pytest.fixture(params=["this machine's tools", "Android's tools"])
def phone(make: Make, request: pytest.FixtureRequest) -> Phone:
    android = request.param.startswith("Android")
    if android and (missing := android_tools()):
        pytest.skip(f"not run: needs {missing}")
    return make(android=android)


@pytest.fixture
def reach(server: AdbServer) -> Reach:
    return lambda phone: AdbTransport(phone.serial, server.address)


def again(call: Callable[[], object]) -> int:
    """Call until it works: how often the connection was lost. As those who use a transport do."""
    for lost in range(200):
        try:
            call()
        except LostConnection:
            time.sleep(0.02)
        else:
            return lost
    raise AssertionError("lost for good")


# ---- Scripts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "text", "errors"),
    [
        ("echo one; echo two >&2; exit 7", 7, "one\n", "two\n"),
        ("true", 0, "", ""),
        ("kill -9 $$", 128 + signal.SIGKILL, "", ""),
        ("cat; echo done", 0, "done\n", ""),
        ("printf 'a\\r\\nb\\377c\\n'", 0, "a\r\nb\ufffdc\n", ""),
        ("echo 'it'\\''s' \"$((6 * 7))\" # a comment", 0, "it's 42\n", ""),
        ("for i in 1 2; do\n  echo $i\ndone", 0, "1\n2\n", ""),
        ("echo ⚙ | tee /dev/stderr", 0, "⚙\n", "⚙\n"),
        ("", 0, "", ""),
    ],
)
def test_a_script_s_output_errors_and_code(
    phone: Phone, reach: Reach, script: str, code: int, text: str, errors: str
) -> None:
    output = reach(phone).execute(script)
    assert (output.code, output.text, output.errors) == (code, text, errors)


def test_a_command_that_is_not_there(phone: Phone, reach: Reach) -> None:
    output = reach(phone).execute("nonesuch --help")
    assert output.code == 127
    assert "nonesuch" in output.errors


def test_much_output_comes_whole(phone: Phone, reach: Reach) -> None:
    output = reach(phone).execute("seq 1 400000; seq 1 200000 >&2")
    assert output.text == "".join(f"{number}\n" for number in range(1, 400001))
    assert output.errors == "".join(f"{number}\n" for number in range(1, 200001))


def test_output_without_end_is_stopped(phone: Phone, reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "OUTPUT", 1 << 20)
    with pytest.raises(DeviceError, match="writes more than 1 MiB"):
        reach(phone).execute("yes")
    assert reach(phone).execute("echo on").text == "on\n"


def test_long_scripts(phone: Phone, reach: Reach) -> None:
    transport = reach(phone)
    assert transport.execute(f"echo {'x' * 60000} | wc -c").text.strip() == "60001"
    with pytest.raises(DeviceError, match="a script of 7"):
        transport.execute("#" * 70000)


@pytest.mark.parametrize("script", ["echo a\0b", "echo \ud800"])
def test_text_that_a_shell_can_t_hold_is_refused(phone: Phone, reach: Reach, script: str) -> None:
    with pytest.raises(DeviceError, match="Unicode text without NUL"):
        reach(phone).execute(script)


def test_what_was_started_runs_on(phone: Phone, reach: Reach) -> None:
    transport = reach(phone)
    # Redirecting the parentheses would not do: Android's mksh then keeps what it had, and adbd waits for all that could
    # still write.
    transport.execute(f"(exec > /dev/null 2>&1 < /dev/null; trap '' HUP; sleep 1; echo late > {STORAGE}/late) &")
    assert not (phone.storage / "late").exists()
    transport.close()
    phone.lose()
    running = phone.processes()
    assert running
    psutil.wait_procs(running, timeout=20)
    assert (phone.storage / "late").read_text() == "late\n"


def test_a_command_that_takes_too_long(phone: Phone, reach: Reach) -> None:
    transport = reach(phone)
    with pytest.raises(DeviceError, match="took longer than 1 s") as raised:
        transport.execute("echo start; while true; do echo on; sleep 0.1; done", 1)
    assert not isinstance(raised.value, LostConnection)
    assert transport.execute("echo on").text == "on\n"


# ---- Files ----------------------------------------------------------------------------------------------------------


def test_a_big_file_comes_back_as_it_was(phone: Phone, reach: Reach, tmp_path: Path) -> None:
    content = random.Random(3).randbytes(BIG)
    transport, back = reach(phone), tmp_path / "back"
    transport.send(content, f"{STORAGE}/big")
    assert transport.execute(f"sha256sum < {STORAGE}/big").text.split()[0] == hashlib.sha256(content).hexdigest()
    transport.fetch(f"{STORAGE}/big", back)
    assert back.read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, adb.PIECE - 1, adb.PIECE, adb.PIECE + 1, 3 * adb.PIECE])
def test_files_of_any_size_take_the_place_of_others(phone: Phone, reach: Reach, tmp_path: Path, size: int) -> None:
    transport, content = reach(phone), os.urandom(size)
    transport.send(b"longer" * adb.PIECE, f"{STORAGE}/file")
    transport.send(content, f"{STORAGE}/file")
    transport.fetch(f"{STORAGE}/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


HOSTILE = [
    "a b",
    "-rf",
    'it\'s; "so"',
    "$(touch taken)`touch taken`",
    "comma,33188",
    "new\nline",
    "..name",
    "ünïcode ⚙",
    "x" * 255,
    "*",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_names(phone: Phone, reach: Reach, tmp_path: Path, name: str) -> None:
    transport = reach(phone)
    transport.send(b"content", f"{STORAGE}/{name}")
    assert [path.name for path in phone.storage.iterdir()] == [name]
    transport.fetch(f"{STORAGE}/{name}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 256, "too long"),
        ("folder", "Is a directory"),
        ("a\0b", "NUL"),
        ("\udcff", "Unicode"),
        ("f/on", "Not a dir|exists"),
    ],
)
def test_a_name_that_can_t_be_written(phone: Phone, reach: Reach, name: str, said: str) -> None:
    (phone.storage / "folder").mkdir()
    (phone.storage / "f").write_bytes(b"")
    with pytest.raises(DeviceError, match=said) as raised:
        reach(phone).send(b"content", f"{STORAGE}/{name}")
    assert not isinstance(raised.value, LostConnection)


@pytest.mark.parametrize(
    ("path", "said"),
    [(f"{STORAGE}/none", "No such file"), (f"{STORAGE}/folder", "directory"), ("/data/secret", "Permission denied")],
)
def test_what_can_t_be_fetched_leaves_nothing(phone: Phone, reach: Reach, tmp_path: Path, path: str, said: str) -> None:
    (phone.storage / "folder").mkdir()
    (tmp_path / "to").write_text("of before")
    with pytest.raises(DeviceError, match=said):
        reach(phone).fetch(path, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_place_here_that_can_t_be_written(phone: Phone, reach: Reach, tmp_path: Path) -> None:
    (phone.storage / "file").write_bytes(b"content")
    with pytest.raises(DeviceError, match="can't be written here"):
        reach(phone).fetch(f"{STORAGE}/file", tmp_path / "none" / "to")


def test_full_storage_is_told(make: Make, reach: Reach) -> None:
    phone = make(storage=4 << 20)
    transport = reach(phone)
    with pytest.raises(DeviceError, match="No space left on device") as raised:
        transport.send(bytes(32 << 20), f"{STORAGE}/big")
    assert raised.value.todo == "free some storage on the device"
    transport.send(bytes(3 << 20), f"{STORAGE}/small")
    phone.limit(64 << 20)
    transport.send(bytes(32 << 20), f"{STORAGE}/big")
    assert {path.stat().st_size for path in phone.storage.iterdir()} == {3 << 20, 32 << 20}


# ---- Lost phones ----------------------------------------------------------------------------------------------------

CONTENT = random.Random(4).randbytes(3 << 20)
CALLS: dict[str, Callable[[AdbTransport, Path], object]] = {
    "execute": lambda transport, _: transport.execute("seq 1 100000"),
    "send": lambda transport, _: transport.send(CONTENT, f"{STORAGE}/sent"),
    "fetch": lambda transport, folder: transport.fetch(f"{STORAGE}/there", folder / "back"),
}


@pytest.mark.parametrize("after", [0, 40, 500, 200_000])
@pytest.mark.parametrize("call", CALLS)
def test_a_connection_lost_in_the_middle(make: Make, reach: Reach, tmp_path: Path, call: str, after: int) -> None:
    phone = make()
    transport = reach(phone)
    (phone.storage / "there").write_bytes(CONTENT)
    transport.execute("true")
    phone.lose(after)
    with pytest.raises(LostConnection):
        CALLS[call](transport, tmp_path)
    assert not (tmp_path / "back").exists()
    assert again(lambda: CALLS[call](transport, tmp_path)) < 100
    if call == "send":
        assert (phone.storage / "sent").read_bytes() == CONTENT
    elif call == "fetch":
        assert (tmp_path / "back").read_bytes() == CONTENT


def test_a_connection_lost_between_calls(make: Make, reach: Reach) -> None:
    phone = make()
    transport = reach(phone)
    for _ in range(3):
        transport.execute("true")
        phone.lose()
        again(lambda: transport.execute("true"))


@pytest.mark.parametrize("seed", [1, 2])
def test_work_goes_on_over_a_connection_that_is_lost_again_and_again(
    make: Make, reach: Reach, tmp_path: Path, seed: int
) -> None:
    phone = make()
    transport, pieces = reach(phone), [os.urandom(200_000) for _ in range(12)]
    phone.lose_at_random(seed, 300_000)
    lost = 0
    for number, piece in enumerate(pieces):
        lost += again(lambda: transport.send(piece, f"{STORAGE}/{number}"))  # noqa: B023
    for number in range(len(pieces)):
        lost += again(lambda: transport.fetch(f"{STORAGE}/{number}", tmp_path / f"{number}"))  # noqa: B023
    assert lost > 3
    phone.stay()
    assert [(tmp_path / f"{number}").read_bytes() for number in range(12)] == pieces


def test_a_restart_ends_what_runs_and_keeps_what_is_stored(make: Make, reach: Reach) -> None:
    phone = make()
    transport = reach(phone)
    transport.send(b"content", f"{STORAGE}/file")
    transport.execute("(exec > /dev/null 2>&1 < /dev/null; trap '' HUP; sleep 60) &")
    assert phone.processes()
    threading.Timer(0.3, phone.reboot, [0.3]).start()
    with pytest.raises(LostConnection):
        transport.execute("sleep 60")
    again(lambda: transport.execute("true"))
    assert transport.execute(f"cat {STORAGE}/file").text == "content"
    assert not phone.processes()


def test_a_phone_that_is_not_there_for_a_while(make: Make, server: AdbServer, reach: Reach) -> None:
    phone = make()
    transport = reach(phone)
    phone.go_offline()
    with pytest.raises(LostConnection, match="refused") as raised:
        transport.execute("true")
    assert raised.value.todo is not None
    assert phone.serial in str(raised.value)
    phone.come_back()
    assert transport.execute("echo on").text == "on\n"
    phone.be_offline(0.5)
    assert again(lambda: transport.execute("true")) > 0


def test_a_phone_that_says_nothing(make: Make, reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILENT_S", "ALIVE_S"):
        monkeypatch.setattr(adb, name, 1.0)
    phone = make()
    transport = reach(phone)
    transport.execute("true")
    threading.Timer(0.3, phone.freeze).start()
    with pytest.raises(LostConnection):
        transport.execute("sleep 1; echo late", 2)
    with pytest.raises(LostConnection):
        transport.send(b"content", f"{STORAGE}/file")
    phone.thaw()
    again(lambda: transport.execute("true"))


def test_a_server_that_is_gone(make: Make, server: AdbServer, reach: Reach) -> None:
    phone = make()
    transport = reach(phone)
    transport.execute("true")
    threading.Timer(0.3, server.stop).start()
    with pytest.raises(LostConnection):
        transport.execute("sleep 60")
    try:
        with pytest.raises(LostConnection, match="no adb server") as raised:
            transport.execute("true")
        assert raised.value.todo == f"`adb -P {server.port} start-server` on that machine"
        with pytest.raises(LostConnection, match="no adb server"):
            attached(server.address)
    finally:
        server.start()
    assert transport.execute("echo on").text == "on\n"


# ---- Which phones ---------------------------------------------------------------------------------------------------


def test_phones_are_listed_with_what_makes_them_usable(make: Make, server: AdbServer, reach: Reach) -> None:
    ready, locked, lost = make(), make(trusted=False), make()
    for phone in (ready, lost):
        reach(phone).execute("true")
    with pytest.raises(DeviceError, match="unauthorized") as raised:
        reach(locked).execute("true")
    assert not isinstance(raised.value, LostConnection)
    assert raised.value.todo is not None
    assert "allow USB debugging" in raised.value.todo
    lost.go_offline()

    found = {one.serial: one for one in attached(server.address)}
    assert found[ready.serial] == Attached(ready.serial, "device", None)
    assert (found[locked.serial].state, found[locked.serial].todo) == ("unauthorized", raised.value.todo)
    assert lost.serial not in found or found[lost.serial].todo

    locked.trust()
    assert reach(locked).execute("echo on").text == "on\n"


def test_a_serial_that_no_phone_has(server: AdbServer) -> None:
    with pytest.raises(LostConnection, match="'39V4C19114019806' not found") as raised:
        AdbTransport("39V4C19114019806", server.address).execute("true")
    assert raised.value.todo is not None
    assert "USB debugging" in raised.value.todo


def test_phones_before_android_7_are_refused(make: Make, reach: Reach) -> None:
    phone = make(features=("cmd",), version=0x01000000, max_data=4096)
    with pytest.raises(DeviceError, match="Android 7"):
        reach(phone).execute("true")


def test_phones_of_the_old_protocol(make: Make, server: AdbServer, reach: Reach, tmp_path: Path) -> None:
    phone = make(features=("shell_v2",), version=0x01000000, max_data=4096)
    transport = reach(phone)
    transport.send(CONTENT, f"{STORAGE}/file")
    transport.fetch(f"{STORAGE}/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_many_phones_at_once(make: Make, reach: Reach) -> None:
    phones = [make() for _ in range(12)]
    said: dict[int, str] = {}

    def work(number: int) -> None:
        transport = reach(phones[number])
        transport.send(str(number).encode() * 100_000, f"{STORAGE}/file")
        said[number] = transport.execute(f"tail -c 1 {STORAGE}/file; wc -c < {STORAGE}/file").text

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(phones))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: f"{str(number)[-1]}{len(str(number)) * 100_000}\n" for number in range(12)}


# ---- What they are --------------------------------------------------------------------------------------------------


def test_an_android_phone_tells_of_itself(phone: Phone, reach: Reach) -> None:
    transport = reach(phone)

    def ask(script: str) -> str:
        output = transport.execute(script)
        assert output.code == 0, output.errors
        return output.text

    facts = Android().facts(ask)
    assert (facts.model, facts.machine) == ("Google Pixel 8", "aarch64")
    assert facts.memory_bytes == 7724484 * 1024
    phone.limit(1 << 30)
    state = Android().state(ask, STORAGE)
    assert 0.99 < state.free_bytes / (1 << 30) <= 1
    assert (state.clock, state.thermal, state.temperature) == (1.0, "none", 32.5)
    assert (state.battery, state.charging) == (0.82, True)
    assert state.charge is not None
    assert (state.charge.count, state.charge.unit_j) == (3_721_000, pytest.approx(0.0036 * 4.213))
    phone.heat(4, 47.0)
    state = Android().state(ask, STORAGE)
    assert (state.thermal, state.temperature) == ("critical", 47.0)


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> tuple[Emulator, bytes]:
    """The emulator, and a program that says how it was started."""
    source, program = Path(__file__).parents[1] / "native" / "arm64_say.c", tmp_path_factory.mktemp("arm64") / "say"
    with zig_tools() as zig:
        emulator = arm64_emulator(zig, program.parent)
        flags = ["-target", "aarch64-linux-none", "-O1", "-nostdlib", "-static", "-fno-stack-protector"]
        zig(["cc", *flags, "-fno-sanitize=all", str(source), "-o", str(program)], str(source))
    return emulator, program.read_bytes()


@pytest.mark.parametrize("android", [False, True])
def test_programs_for_phones_run(make: Make, reach: Reach, arm64: tuple[Emulator, bytes], android: bool) -> None:
    emulator, program = arm64
    if android and (missing := android_tools()):
        pytest.skip(f"not run: needs {missing}")
    transport = reach(make(android=android, emulator=emulator))
    transport.send(program, f"{STORAGE}/say")
    assert transport.execute(f"cd {STORAGE} && ./say").code == 126  # no program yet
    transport.execute(f"chmod 755 {STORAGE}/say")
    for start in ("", "exec ", "nohup ", "env X=1 ", "setsid ", "timeout 60 "):
        output = transport.execute(f"cd {STORAGE} && {start}./say 'two words' '$x'")
        assert output.text == "./say two words $x aarch64 ", (start, output.errors)
        assert output.code == 3


# ---- The emulated phone itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [FEATURES, ("shell_v2", "cmd", "stat_v2"), ("shell_v2",)])
def test_adb_s_own_commands_work_on_the_emulated_phone(
    make: Make, server: AdbServer, tmp_path: Path, features: tuple[str, ...]
) -> None:
    phone, here = make(features=features), tmp_path / "here"
    here.write_bytes(CONTENT)
    assert b"connected to" in server.adb("connect", phone.serial).stdout
    pushed = server.adb("push", str(here), f"{STORAGE}/made/there", serial=phone.serial)
    assert pushed.returncode == 0, pushed.stderr
    assert (phone.storage / "made" / "there").read_bytes() == CONTENT
    assert server.adb("pull", STORAGE, str(tmp_path / "back"), serial=phone.serial).returncode == 0
    assert (tmp_path / "back" / "made" / "there").read_bytes() == CONTENT
    assert server.adb("exec-out", f"cat {STORAGE}/made/there", serial=phone.serial).stdout == CONTENT
    counted = server.adb("shell", "wc -c; exit 5", serial=phone.serial, stdin=CONTENT)
    assert (counted.returncode, counted.stdout.strip()) == (5, str(len(CONTENT)).encode())
    phone.limit(1 << 20)
    refused = server.adb("push", str(here), f"{STORAGE}/more", serial=phone.serial)
    assert refused.returncode != 0
    assert b"No space left on device" in refused.stderr + refused.stdout
