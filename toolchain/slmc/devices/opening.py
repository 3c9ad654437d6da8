"""A device by how it is written on a command line or in a farm file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from slmc.devices.adb import AdbTransport
from slmc.devices.apple import AppleDevice
from slmc.devices.device import Device
from slmc.devices.devicectl import Devicectl
from slmc.devices.local import LocalTransport
from slmc.devices.patience import PATIENCE_S
from slmc.devices.posix import PosixDevice
from slmc.devices.runner_app import VARIABLE, read_app
from slmc.devices.ssh import SshTransport
from slmc.devices.transport import Transport
from slmc.errors import DeviceError, InputError

FORMS = "local, ssh:[USER@]HOST[:PORT], adb:SERIAL or apple:UDID"
ADB_PORT = "ANDROID_ADB_SERVER_PORT"
"""As adb's own programs know it: where the server listens that has the phones."""
_SSH = re.compile(r"(?:(?P<user>[^@]+)@)?(?:\[(?P<literal>[^]]+)\]|(?P<host>[^:@\[\]]+))(?::(?P<port>\d{1,5}))?")
_UDID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]*")
_ANDROID_ROOT = "/data/local/tmp/slmc"
"""Where adb's shell may write and run programs."""


def open_device(written: str, *, name: str | None = None, patience_s: float = PATIENCE_S) -> Device:
    """Raises InputError for what is no device, LostConnection where it can't be reached."""
    kind, _, udid = written.partition(":")
    if kind == "apple" and _UDID.fullmatch(udid):
        built = os.environ.get(VARIABLE)
        app = read_app(None if built is None else Path(built))
        return AppleDevice(name or written, Devicectl(udid), app, patience_s=patience_s)
    transport, root = _way(written)
    return PosixDevice(name or written, transport, root, patience_s=patience_s)


def adb_server() -> tuple[str, int]:
    return "127.0.0.1", int(os.environ.get(ADB_PORT, "5037"))


def _way(written: str) -> tuple[Transport, str]:
    """The way to it, and its folder."""
    kind, _, rest = written.partition(":")
    if written == "local":
        return LocalTransport(), str(_cache() / "slmc-device")
    if kind == "adb" and rest:
        return AdbTransport(rest, adb_server()), _ANDROID_ROOT
    if kind == "ssh" and (found := _SSH.fullmatch(rest)):
        port = None if found["port"] is None else int(found["port"])
        transport = SshTransport(found["literal"] or found["host"], found["user"], port)
        try:
            return transport, _home(transport)
        except BaseException:
            transport.close()
            raise
    raise InputError(f"{written!r} is no device", expected=FORMS)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _home(transport: Transport) -> str:
    """A folder of the user's own on the other machine."""
    found = transport.execute('printf %s "${XDG_CACHE_HOME:-$HOME/.cache}"')
    if found.code or not found.text.startswith("/"):
        raise DeviceError(
            f"no folder for files: {found.text!r}", where=transport.address, expected="HOME or XDG_CACHE_HOME set there"
        )
    return f"{found.text}/slmc-device"
