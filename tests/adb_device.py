"""Emulated Android phones for the real `adb`: adbd's protocol and services over a sandbox of this machine, with faults.

A script's /data/local/tmp and /sdcard are folders of the sandbox, and so are the files of /proc and /sys that tell of a
phone. The text of scripts is changed for that, their output is not. `getprop`, `dumpsys`, `df` and `uname` are the
phone's, other programs this machine's; a phone may have mksh and toybox instead, where they are there, as Android does.
Programs for arm64 run in qemu. A phone's limit of storage holds for what is sent by adb, not for what its programs
write.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
import pytest

from .adb_services import Files, serve_script
from .adb_wire import UNCHECKED, Fuse, Stream, Terms, Wire

STORAGE = "/data/local/tmp"
FEATURES = ("shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_mkdir", "apex", "sendrecv_v2")
PROPERTIES: Mapping[str, str] = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.product.name": "shiba",
    "ro.product.device": "shiba",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "google/shiba/shiba:14/UD1A.231105.004/11010374:user/release-keys",
    "ro.product.cpu.abilist": "arm64-v8a",
}
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 3721000
  status: 2
  health: 2
  present: true
  level: {level}
  scale: 100
  voltage: 4213
  temperature: {tenths}
  technology: Li-ion
"""
THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
ThermalStatusListeners:
	callbacks: 2
	killed: false
	broadcasts count: -1
Thermal Status: {status}
Cached temperatures:
	Temperature{{mValue=31.2, mType=3, mName=VIRTUAL-SKIN, mStatus=0}}
HAL Ready: true
HAL connection:
	ThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
	Temperature{{mValue=41.0, mType=0, mName=BIG, mStatus=0}}
	Temperature{{mValue=30.1, mType=2, mName=battery, mStatus=0}}
	Temperature{{mValue={skin}, mType=3, mName=VIRTUAL-SKIN, mStatus={status}}}
Current cooling devices from HAL:
	CoolingDevice{{mValue=0, mType=2, mName=thermal-cpufreq-0}}
"""
_STUBS = {
    "getprop": """\
if [ $# = 0 ]; then exec sed 's/\\([^=]*\\)=\\(.*\\)/[\\1]: [\\2]/' "$SLM_PHONE/properties"; fi
sed -n "s/^$1=//p" "$SLM_PHONE/properties"
""",
    "dumpsys": """\
cat "$SLM_PHONE/dumpsys/$1" 2>/dev/null || echo "Can't find service: $1"
""",
    "df": """\
limit=$(cat "$SLM_PHONE/limit") used=$(($(du -sk "$SLM_PHONE/tmp" | cut -f 1)))
echo "Filesystem     1024-blocks    Used Available Capacity Mounted on"
echo "/dev/block/dm-48 $((limit / 1024)) $used $((limit / 1024 > used ? limit / 1024 - used : 0)) 50% /data"
""",
    "uname": """\
case "$1" in -m) echo aarch64 ;; -r) echo 5.15.110-android14-11 ;; -s|"") echo Linux ;;
*) echo "Linux localhost 5.15.110-android14-11 #1 SMP PREEMPT aarch64 Toybox" ;; esac
""",
}
_CLOCKS = {"cpuinfo_max_freq": "2367000", "scaling_max_freq": "2367000", "scaling_cur_freq": "1704000"}
_ELSEWHERE = ("dd", "tr")
"""What Android's toybox has and others' may lack."""


def android_tools() -> str | None:
    """What Android's shell and tools need that is not here; None where all is."""
    missing = [name for name in ("mksh", "toybox") if shutil.which(name) is None]
    return " and ".join(missing) or None


@dataclass(frozen=True)
class Emulator:
    """Runs programs for arm64."""

    program: str
    preloaded: Path
    """What makes the phone's shell and tools use it."""
    cpu: str = "max"


def arm64_emulator(zig: Callable[[Sequence[str], str], None], folder: Path) -> Emulator:
    """Skips the test where there is none."""
    program = shutil.which("qemu-aarch64-static")
    if program is None:
        pytest.skip("not run: needs qemu-aarch64-static")
    source, library = Path(__file__).parent / "native" / "arm64_exec.c", folder / "arm64_exec.so"
    zig(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], str(source))
    return Emulator(program, library)


class Phone:
    """One phone, there as soon as it is made. All calls are for any thread. `storage` is in bytes."""

    def __init__(
        self,
        folder: Path,
        *,
        features: tuple[str, ...] = FEATURES,
        version: int = UNCHECKED,
        max_data: int = 1 << 20,
        trusted: bool = True,
        storage: int = 16 << 30,
        android: bool = False,
        emulator: Emulator | None = None,
        properties: Mapping[str, str] = PROPERTIES,
        port: int = 0,
    ) -> None:
        self._folder = folder
        self._features = features
        self._emulator = emulator
        self._trusted = trusted
        self._shell = shutil.which("mksh" if android else "sh") or "/bin/sh"
        told = "".join(f"{name}={properties[name]};" for name in properties if name.startswith("ro.product."))
        self._terms = Terms(f"device::{told}features={','.join(features)}".encode(), version, max_data)
        self._fuse = Fuse()
        self._wires: list[Wire] = []
        self._changing = threading.RLock()
        """Held by whoever takes it off its network or brings it back."""
        self._listener: socket.socket | None = None
        self._return: threading.Timer | None = None
        self._place = _bound(port)
        """Keeps its port while it is away: another program's connection could have it."""
        self.cuts = 0
        """How often it was lost at random."""
        self.port = int(self._place.getsockname()[1])
        self._lay_out(properties, android)
        self.limit(storage)
        self.heat()
        self.charge()
        self.come_back()

    @property
    def serial(self) -> str:
        """By which adb knows it once it is connected."""
        return f"127.0.0.1:{self.port}"

    @property
    def storage(self) -> Path:
        """What scripts see as /data/local/tmp."""
        return self._folder / "tmp"

    @property
    def shared(self) -> Path:
        """What scripts see as /sdcard."""
        return self._folder / "sdcard"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self.go_offline()
        self._kill()
        self._place.close()

    # ---- What happens to it -----------------------------------------------------------------------------------------

    def lose(self, after: int | None = None) -> None:
        """Lose the connection now, or in the middle of what goes on when so many bytes have gone to or from it."""
        if after is None:
            self._cut()
        else:
            once = iter([after])
            self._fuse.set(lambda: next(once, None))

    def lose_at_random(self, seed: int, mean: int) -> None:
        """Again and again, after `mean` bytes on average, the same with the same seed."""
        drawn = random.Random(seed)

        def draw() -> int:
            self.cuts += 1
            return int(drawn.expovariate(1 / mean))

        self._fuse.set(draw)
        self.cuts -= 1  # the first was drawn for nothing

    def stay(self) -> None:
        """Connected from now on, but for what is done to it."""
        self._fuse.set(lambda: None)

    def freeze(self) -> None:
        """Connected, and says nothing."""
        self._fuse.awake.clear()

    def thaw(self) -> None:
        self._fuse.awake.set()

    def go_offline(self) -> None:
        """Until it is brought back, whatever was to bring it back before."""
        with self._changing:
            if self._return is not None:
                self._return.cancel()
                self._return = None
            listener, self._listener = self._listener, None
            if listener is not None:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()
            self._cut()

    def come_back(self) -> None:
        """Listen, at the port that it had before."""
        with self._changing:
            if self._listener is not None:
                return
            self._listener = _bound(self.port)
            self._listener.listen()
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def be_offline(self, seconds: float) -> None:
        with self._changing:
            self.go_offline()
            timer = self._return = threading.Timer(seconds, lambda: self._come_back_by(timer))
            timer.daemon = True
            timer.start()

    def reboot(self, seconds: float = 0.5) -> None:
        """All its processes are killed; what it stores stays."""
        with self._changing:
            self.go_offline()
            self._kill()
            self.be_offline(seconds)

    def trust(self) -> None:
        """Its owner accepts the computer's key."""
        self._trusted = True
        for wire in self._wires:
            wire.trust()

    def limit(self, storage: int) -> None:
        """How many bytes it can store, with those that it does."""
        self._storage = storage
        (self._folder / "limit").write_text(str(storage))

    def heat(self, status: int = 0, skin: float = 32.5) -> None:
        """Thermal status from 0 to 6, and degrees Celsius; by default it is cool."""
        self.dump("thermalservice", THERMAL.format(status=status, skin=skin))

    def charge(self, level: int = 82, celsius: float = 28.1) -> None:
        self.dump("battery", BATTERY.format(level=level, tenths=round(celsius * 10)))

    def dump(self, service: str, text: str) -> None:
        """What `dumpsys` says of a service."""
        path = self._folder / "dumpsys" / service
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)

    @property
    def connected(self) -> bool:
        return bool(self._wires)

    def processes(self) -> list[psutil.Process]:
        """That were started on it, however long ago."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLM_PHONE") == str(self._folder):
                    found.append(process)
        return found

    # ---- Its inside -------------------------------------------------------------------------------------------------

    def _lay_out(self, properties: Mapping[str, str], android: bool) -> None:
        for name in ("tmp", "sdcard", "bin", "dumpsys", "cpu", "thermal", "power_supply"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        (self._folder / "meminfo").write_text("MemTotal:        7724484 kB\nMemFree:          356912 kB\n")
        (self._folder / "loadavg").write_text("0.80 1.10 1.20 2/3456 12345\n")
        for core in range(8):
            clocks = self._folder / "cpu" / f"cpu{core}" / "cpufreq"
            clocks.mkdir(parents=True)
            for name, value in _CLOCKS.items():
                (clocks / name).write_text(f"{value}\n")
        programs = self._folder / "bin"
        if android:
            _link_toybox(programs)
        for name, script in _STUBS.items():
            stub = programs / name
            stub.unlink(missing_ok=True)
            stub.write_text(f"#!/bin/sh\n{script}")
            stub.chmod(0o755)
        self._path = str(programs) if android else f"{programs}:{os.environ['PATH']}"
        places = {STORAGE: "tmp", "/sdcard": "sdcard", "/proc/meminfo": "meminfo", "/proc/loadavg": "loadavg"}
        systems = {"/sys/devices/system/cpu": "cpu", "/sys/class/thermal": "thermal"}
        systems["/sys/class/power_supply"] = "power_supply"
        self._places = {theirs: str(self._folder / ours) for theirs, ours in (places | systems).items()}
        self._theirs = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, self._places))})(?![\w.-])")

    def _translated(self, script: str) -> str:
        return self._theirs.sub(lambda found: self._places[found[0]], script)

    def _here(self, path: str) -> Path:
        """Raises PermissionError for what is outside /data/local/tmp and /sdcard."""
        place = Path(self._translated(path))
        if not any(place.resolve().is_relative_to(one.resolve()) for one in (self.storage, self.shared)):
            raise PermissionError(13, "Permission denied")
        return place

    def _room(self) -> int:
        used = sum(path.lstat().st_size for path in self.storage.rglob("*") if not path.is_dir())
        return self._storage - used

    def _serve(self, stream: Stream, name: str) -> None:
        """A service that it lacks is left unanswered: the stream is closed."""
        service, _, argument = name.partition(":")
        kind, *options = service.split(",")
        if kind == "sync":
            Files(stream, self._here, self._room).serve()
        elif kind in ("shell", "exec") and ("v2" not in options or "shell_v2" in self._features):
            packets = "v2" in options
            serve_script(stream, lambda: self._start(argument, apart=packets), packets)

    def _start(self, script: str, apart: bool) -> subprocess.Popen[bytes]:
        environment = {"PATH": self._path, "HOME": "/", "TMPDIR": str(self.storage), "SLM_PHONE": str(self._folder)}
        if self._emulator is not None:
            environment |= {"LD_PRELOAD": str(self._emulator.preloaded), "SLM_QEMU": self._emulator.program}
            environment |= {"QEMU_CPU": self._emulator.cpu}
        return subprocess.Popen(
            [self._shell, "-c", self._translated(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            env=environment,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )

    def _come_back_by(self, timer: threading.Timer) -> None:
        with self._changing:
            if self._return is timer:  # else something else has happened to it since
                self.come_back()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                wire = Wire(connection, self._terms, self._fuse, self._serve, self._trusted)
                with self._changing:
                    if self._listener is not listener:  # it went offline meanwhile
                        wire.cut()
                        return
                    self._wires.append(wire)
                threading.Thread(target=self._run, args=(wire,), daemon=True).start()

    def _run(self, wire: Wire) -> None:
        wire.run()
        with suppress(ValueError):
            self._wires.remove(wire)

    def _cut(self) -> None:
        for wire in list(self._wires):
            wire.cut()

    def _kill(self) -> None:
        while left := self.processes():
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=1)


def _bound(port: int) -> socket.socket:
    """To a port that several may be bound to, while one of them listens."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    return found


def _link_toybox(folder: Path) -> None:
    toybox, shell = shutil.which("toybox"), shutil.which("mksh")
    assert toybox is not None
    assert shell is not None
    for name in subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split():
        (folder / name).symlink_to(toybox)
    for name in _ELSEWHERE:
        if not (folder / name).exists():
            (folder / name).symlink_to(shutil.which(name) or "/bin/false")
    (folder / "sh").symlink_to(shell)


class AdbServer:
    """An adb server apart from the user's: on a port of its own, with keys of its own, looking for no other devices."""

    def __init__(self, program: str, folder: Path, port: int = 0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            self.port = int(probe.getsockname()[1])
        self.address = ("127.0.0.1", self.port)
        folder.mkdir(exist_ok=True)
        environment = {"HOME": str(folder), "ANDROID_SDK_HOME": str(folder), "TMPDIR": str(folder), "ADB_MDNS": "0"}
        environment["ADB_LOCAL_TRANSPORT_MAX_PORT"] = "5553"  # looks for emulators up to there
        self._environment = {**os.environ, **environment, "ANDROID_ADB_SERVER_PORT": str(self.port)}
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "adb.log"
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers."""
        command = [self._program, "-P", str(self.port), "nodaemon", "server"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        limit = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(self.address, 5) as asking:
                asking.sendall(b"000chost:version")
                if asking.recv(4) == b"OKAY":
                    return
            assert time.monotonic() < limit, self._log.read_text()
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def revive(self) -> bool:
        """Start it again if it has died, as a farm's service would; whether it had."""
        died = self._process is not None and self._process.poll() is not None
        if died:
            self.start()
        return died

    def adb(
        self, *arguments: str, serial: str | None = None, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """What the command line says."""
        chosen = [] if serial is None else ["-s", serial]
        command = [self._program, "-P", str(self.port), *chosen, *arguments]
        return subprocess.run(
            command, env=self._environment, input=stdin or b"", capture_output=True, check=False, timeout=120
        )
