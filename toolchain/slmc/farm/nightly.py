"""A night: every recipe built for every target and backend of the farm's devices, and asked on each of them.

    FOLDER/bundles/NAME              what was built
    FOLDER/nights/ID/night.json      when it began; the same night goes on from where it was stopped
    FOLDER/nights/ID/RECIPE-BACKEND@DEVICE.json    a run that is done
    FOLDER/nights/ID/@DEVICE.json    what the frozen control said of the device, before any run there
    FOLDER/devices/DIGEST.lock       held by whoever asks the device of that address

A device does one thing at a time, in a thread of its own, so that a slow one holds up no other. Where its control
fails, no bundle is asked there: whatever it said of one would be the device's fault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from pydantic import AwareDatetime

from slmc import console, digest
from slmc.bundle.verify import verify
from slmc.engine import LOCAL, Engine
from slmc.errors import InputError, RunnerError, SlmcError, did_you_mean
from slmc.farm.asking import Asker
from slmc.farm.bundles import Made, Wanted, make_all, wanted_of
from slmc.farm.controls import check, not_asked
from slmc.farm.farm_file import WITHOUT_APP, Farm, FarmDevice
from slmc.farm.here import HereAsker
from slmc.farm.measure import measure, not_run
from slmc.farm.record import Control, Night, Run
from slmc.names import TargetName
from slmc.on_device import Sent
from slmc.store import Store
from slmc.strict import Strict, read_json, write_json

OpenDevice = Callable[[str, str], Asker]
"""Name and address of a device to what asks it."""
Kept = TypeVar("Kept", Control, Run)


class Began(Strict):
    """`night.json`."""

    started: AwareDatetime


@dataclass(frozen=True)
class Order:
    """What one night is to do."""

    id: str
    farm: Farm
    base: Path
    """The farm file's folder."""
    folder: Path
    store: Store
    open_device: OpenDevice
    limit: int | None = None
    """Of evaluation items, for a trial."""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Devices, each with the night since which it is."""
    engine: Engine = LOCAL
    """What builds."""


Shard = tuple[int, int]
"""Of how many, from 1 on: this one, and all."""


def run_night(order: Order, only: Sequence[str] = (), shard: Shard = (1, 1)) -> Night:
    """Build and ask; `only` names recipes' folders and devices, and leaves out all others. Shards share the runs, for
    several machines that do a farm's work.

    Raises InputError for a name that the farm has not, RecipeError for two recipes of one name; what else fails is told
    in the night's runs.
    """
    devices = _chosen(order.farm.devices, only, [Path(one).name for one in order.farm.recipes])
    place = order.folder / "nights" / order.id
    place.mkdir(parents=True, exist_ok=True)
    began = _began(place / "night.json")
    number, count = shard
    recipes = wanted_of([order.base / folder for folder in _recipes(order.farm, only)])
    wanted = [
        (name, Wanted(recipe, entry.target, backend))
        for name, entry in devices.items()
        for recipe in recipes
        for backend in entry.backends
    ][number - 1 :: count]
    made = make_all(
        dict.fromkeys(one for _, one in wanted), order.store, order.folder / "bundles", order.limit, order.engine
    )
    work: dict[str, list[Made]] = {}
    for name, one in wanted:
        work.setdefault(name, []).append(made[one])
    controls = {target: _control(order, target) for target in {devices[name].target for name in work}}
    jobs = [_Job(name, devices[name], controls[devices[name].target], its) for name, its in work.items()]
    done = _on_all(order, jobs, place)
    return Night(
        id=order.id,
        started=began.started,
        finished=max([began.started, *(one.last for one in done)]),
        runs=tuple(run for one in done for run in one.runs),
        controls=tuple(one.control for one in done if one.control is not None),
    )


@dataclass(frozen=True)
class _Job:
    """Of one device."""

    name: str
    entry: FarmDevice
    control: Sent | str | None
    """Or why it can't be used; None where the farm has none."""
    work: Sequence[Made]


@dataclass(frozen=True)
class _Done:
    control: Control | None
    runs: Sequence[Run]
    last: datetime
    """When the last of them was kept: so a night that is gone through again is the same night."""


def _recipes(farm: Farm, only: Sequence[str]) -> list[str]:
    named = [recipe for recipe in farm.recipes if Path(recipe).name in only]
    return named or list(farm.recipes)


def _chosen(devices: Mapping[str, FarmDevice], only: Sequence[str], recipes: Sequence[str]) -> dict[str, FarmDevice]:
    for name in only:
        if name not in devices and name not in recipes:
            known = [*devices, *recipes]
            raise InputError(f"the farm has no device or recipe {name!r}", todo=did_you_mean(name, known))
    named = {name: entry for name, entry in devices.items() if name in only}
    return named or dict(devices)


def _began(path: Path) -> Began:
    if not path.is_file():
        write_json(Began(started=datetime.now(UTC)), path)
    return read_json(Began, path, RunnerError, "a night's beginning")


def _control(order: Order, target: TargetName) -> Sent | str | None:
    """Checked file by file."""
    named = order.farm.controls.get(target)
    try:
        return None if named is None else Sent(order.base / named, verify(order.base / named))
    except SlmcError as error:
        return str(error)


# ---- Devices --------------------------------------------------------------------------------------------------------


def _on_all(order: Order, jobs: Sequence[_Job], place: Path) -> list[_Done]:
    """In their order."""
    found: dict[str, _Done] = {}
    with console.progress("runs", sum(len(job.work) for job in jobs)) as advance:
        threads = [
            # Daemons, so that Ctrl-C ends the night at once: what is done is kept, devices are cleared the next time.
            threading.Thread(target=_on_one, args=(order, job, place, found, advance), daemon=True)
            for job in jobs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # without a limit Ctrl-C would wait
    missing = [job.name for job in jobs if job.name not in found]
    if missing:
        raise RunnerError(f"device {missing[0]} ended without its runs: a fault of slmc's own", todo="run it again")
    return [found[job.name] for job in jobs]


def _on_one(order: Order, job: _Job, place: Path, found: dict[str, _Done], advance: console.Advance) -> None:
    lock = order.folder / "devices" / f"{digest.of_value(job.entry.at)}.lock"
    lock.parent.mkdir(exist_ok=True)
    paths = [place / f"@{job.name}.json"] if job.control else []
    with FileLock(lock):
        control = _kept(paths[0], Control, lambda: _checked(order, job)) if job.control else None
        runs = []
        for made in job.work:
            paths.append(place / f"{made.wanted.recipe.name}-{made.wanted.backend}@{job.name}.json")
            runs.append(_kept(paths[-1], Run, partial(_run, order, job, control, made)))
            advance(1)
    last = max(datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in paths)
    found[job.name] = _Done(control, runs, last)


def _kept(path: Path, kind: type[Kept], make: Callable[[], Kept]) -> Kept:
    """What is there is not made again."""
    if not path.is_file():
        part = path.with_suffix(".part")
        write_json(make(), part)
        part.replace(path)
    return read_json(kind, path, RunnerError, "a result of a night")


def _checked(order: Order, job: _Job) -> Control:
    if not isinstance(job.control, Sent):
        return not_asked(job.name, str(job.control))
    try:
        asker = order.open_device(job.name, job.entry.at)
    except SlmcError as error:
        return not_asked(job.name, str(error))
    with closing(asker):
        return check(job.control, order.store, asker, order.farm.speed)


def _run(order: Order, job: _Job, control: Control | None, made: Made) -> Run:
    series, device_class = made.wanted.series(job.name), job.entry.device_class
    if isinstance(made.subject, str):
        return not_run(series, made.subject, "not run", device_class)
    if control is not None and control.outcome != "pass":
        return not_run(series, _unfit(control, order.quarantined.get(job.name)), "not run", device_class)
    try:
        asker = _asker(order, job, made)
    except SlmcError as error:
        return not_run(series, str(error), "not run", device_class)
    beside = job.control if isinstance(job.control, Sent) else None
    with closing(asker):
        return measure(replace(made.subject, control=beside), asker, order.farm.speed, device_class=device_class)


def _asker(order: Order, job: _Job, made: Made) -> Asker:
    if made.wanted.backend == WITHOUT_APP:
        return order.open_device(job.name, job.entry.at)
    return HereAsker(job.name, order.store)  # the farm file has no other device for it


def _unfit(control: Control, since: str | None) -> str:
    """Why nothing is asked of a device."""
    how = "failed" if control.outcome == "fail" else "could not be asked"
    said = f"its control {how}: {control.reason}"
    return said if since is None else f"quarantined since {since}; {said}"
