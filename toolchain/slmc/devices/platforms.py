"""Which system answers a shell."""

from __future__ import annotations

from slmc.devices.android import Android
from slmc.devices.asking import Ask, Platform
from slmc.devices.linux import Linux
from slmc.devices.macos import MacOS
from slmc.errors import DeviceError

_KNOWN: dict[str, type[Platform]] = {"Android": Android, "Linux": Linux, "Darwin": MacOS}
_NAME = "if [ -e /system/build.prop ] || command -v getprop > /dev/null; then echo Android; else uname -s; fi"


def platform_of(ask: Ask) -> Platform:
    """Raises DeviceError for a system that nothing here is made for."""
    name = ask(_NAME).strip()
    if name not in _KNOWN:
        raise DeviceError(f"a device of the system {name!r}", expected=", ".join(_KNOWN))
    return _KNOWN[name]()
