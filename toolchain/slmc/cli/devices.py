"""`slmc devices`: what is attached or named, its state, and whether bundles can be run on it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.markup import escape

from slmc.backends.tvm.runner_project import write_project
from slmc.cli.common import as_json, open_store, print_json, store_option
from slmc.console import out, table
from slmc.devices.adb import attached
from slmc.devices.device import Facts, State
from slmc.devices.devicectl import listed
from slmc.devices.opening import adb_server, open_device
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError, MissingToolError, SlmcError
from slmc.farm.opening import DEVICE_FARM
from slmc.on_device import triple_of


@dataclass(frozen=True)
class Seen:
    device: str
    facts: Facts | None
    state: State | None
    runs: str | None
    """The triple of the runner that it is sent; None where there is none for it."""
    problem: str
    todo: str
    said: str = ""
    """By the farm that has it, where it can't be asked itself."""


@click.command("devices")
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@click.option(
    "--runner-app",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Write the Xcode project of the app that iPhones need, and end.",
)
@store_option
@as_json
def command(devices: Sequence[str], runner_app: Path | None, store_folder: Path | None, as_json: bool) -> None:
    """Ask each DEVICE of itself: local, ssh:[USER@]HOST[:PORT], adb:SERIAL or apple:UDID; AWS of aws-device-farm:ARN.

    Without any: this machine, every phone that the adb server knows, and on a Mac every iPhone and iPad that devicectl
    lists. Ends with exit code 22 where a named one can't be used.
    """
    if runner_app is not None:
        write_project(open_store(store_folder), runner_app)
        out.print(f"runner app   {escape(str(runner_app))}: see README.md there")
        return
    seen = [_look(name) for name in devices] if devices else [_look("local"), *_phones(), *_apples()]
    if as_json:
        print_json([_plain(one) for one in seen])
    else:
        _show(seen)
    broken = [one for one in seen if one.problem]
    if devices and broken:
        raise DeviceError(f"{len(broken)} of {len(seen)} devices can't be used", where=broken[0].device)


def _look(name: str) -> Seen:
    if name.startswith(DEVICE_FARM):
        return _look_there(name)
    try:
        with closing(open_device(name, patience_s=0)) as device:
            facts, state = device.probe(), device.state()
    except (DeviceError, MissingToolError) as error:
        return _not_seen(name, error)
    try:
        return Seen(name, facts, state, triple_of(facts), "", "")
    except InputError as error:
        return Seen(name, facts, state, None, error.what, f"expected: {error.expected}")


def _look_there(name: str) -> Seen:
    from slmc.farm.device_farm.asker import check_arn
    from slmc.farm.device_farm.service import connect

    arn = check_arn(name.removeprefix(DEVICE_FARM), "device")
    try:
        device = connect("").device(arn)
    except (DeviceError, MissingToolError) as error:
        return _not_seen(name, error)
    return Seen(name, None, None, None, "", "", f"{device.name}, {device.platform} {device.os}, {device.availability}")


def _not_seen(name: str, error: SlmcError) -> Seen:
    return Seen(name, None, None, None, error.what, error.todo or "")


def _phones() -> list[Seen]:
    """None where no adb server runs: then there is nothing to say of phones."""
    try:
        known = attached(adb_server())
    except LostConnection:
        return []
    except MissingToolError as error:
        return [_not_seen("adb", error)]
    return [
        _look(f"adb:{phone.serial}")
        if phone.todo is None
        else Seen(f"adb:{phone.serial}", None, None, None, phone.state, phone.todo)
        for phone in known
    ]


def _apples() -> list[Seen]:
    """None without Xcode's tools: then there is nothing to say of iPhones."""
    if shutil.which("xcrun") is None:
        return []
    try:
        known = listed()
    except (DeviceError, MissingToolError) as error:
        return [_not_seen("apple", error)]
    return [
        Seen(f"apple:{one.udid}", None, None, None, one.problem, one.todo) if one.problem else _apple(one.udid)
        for one in known
    ]


def _apple(udid: str) -> Seen:
    """Without the runner app a phone is there, and tells nothing."""
    try:
        return _look(f"apple:{udid}")
    except InputError as error:
        return _not_seen(f"apple:{udid}", error)


def _plain(one: Seen) -> dict[str, object]:
    told = {
        name: None if found is None else found.model_dump()
        for name, found in (("facts", one.facts), ("state", one.state))
    }
    return asdict(one) | told


def _show(seen: Sequence[Seen]) -> None:
    columns = ("device", "model", "system", "cores", "memory", "free", "load", "heat", "battery", "runs")
    rows = table(*columns)
    for one in seen:
        if one.said:
            rows.add_row(escape(one.device), escape(one.said))
            continue
        if one.facts is None or one.state is None:
            rows.add_row(escape(one.device), f"[red]{escape(one.problem)}[/]", escape(one.todo))
            continue
        facts, state = one.facts, one.state
        rows.add_row(
            escape(one.device),
            escape(facts.model),
            escape(facts.os),
            str(facts.cores),
            _gigabytes(facts.memory_bytes),
            _gigabytes(state.free_bytes),
            "-" if state.load is None else f"{state.load:.2f}",
            _heat(state),
            _battery(state),
            one.runs or f"[red]{escape(one.problem)}[/]",
        )
    out.print(rows)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _heat(state: State) -> str:
    told = [] if state.temperature is None else [f"{state.temperature:.0f} °C"]
    if state.thermal is not None:
        told.append(state.thermal)
    if state.clock is not None and state.clock < 1:
        told.append(f"clock at {state.clock:.0%}")
    return ", ".join(told) or "-"


def _battery(state: State) -> str:
    if state.battery is None:
        return "-"
    return f"{state.battery:.0%}" + (", charging" if state.charging else "")
