"""What asks a device, by how a farm file writes it.

A place that is handed all of a night at once is one more `Asker` and one more line here. What it runs may be the same
code: `device_farm.session` asks a phone on a cable wherever it is started, and tells it in files.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from slmc import digest
from slmc.backends.tvm.stored import stored_runner
from slmc.devices.opening import open_device
from slmc.farm.asking import Asker, DeviceAsker
from slmc.store import Store

DEVICE_FARM = "aws-device-farm:"


def open_asker(name: str, at: str, store: Store, folder: Path) -> Asker:
    """`folder` is kept from night to night. Raises InputError for what is no device, LostConnection where it can't be
    reached.
    """
    runner = partial(stored_runner, store)
    if not at.startswith(DEVICE_FARM):
        return DeviceAsker(open_device(at, name=name), runner)
    from slmc.farm.device_farm.asker import DeviceFarmAsker, check_arn, project_arn
    from slmc.farm.device_farm.service import connect

    device, project = check_arn(at.removeprefix(DEVICE_FARM), "device"), project_arn()
    own = folder / "device-farm" / digest.of_value([project, device])
    return DeviceFarmAsker(name, device, connect(project), own, runner)
