"""Emulated phones behind an adb server of their own, as the tests have them, until Ctrl-C: for `emulated-farm.yaml`.

They speak adbd's protocol, have Android's shell and tools, and run arm64 programs under qemu. No speed of theirs means
anything.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.adb_device import AdbServer, Phone, arm64_emulator

from slmc.backends.tvm.library import zig_tools
from slmc.devices.opening import ADB_PORT

SERVER, PHONES = 16800, (16801, 16802)
"""Ports, as in the farm file."""
NEEDED = {"adb": "adb", "mksh": "mksh", "toybox": "toybox", "qemu-aarch64-static": "qemu-user-static"}
"""Programs, and Debian's packages that have them."""


def main() -> None:
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if missing:
        sys.exit(f"install {' '.join(missing)}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with zig_tools() as zig:
            emulator = arm64_emulator(zig, folder)
        stack.enter_context(AdbServer("adb", folder / "adb", SERVER))
        for port in PHONES:
            stack.enter_context(Phone(folder / str(port), android=True, emulator=emulator, port=port))
            print(f"adb:127.0.0.1:{port}", flush=True)
        print(f"{ADB_PORT}={SERVER} slmc nightly recipes/emulated-farm.yaml --limit 300", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
