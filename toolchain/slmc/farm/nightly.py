"""A night: every recipe built for every target of the farm's devices, and asked on each of them.

    FOLDER/bundles/NAME              what was built
    FOLDER/nights/ID/night.json      when it began; the same night goes on from where it was stopped
    FOLDER/nights/ID/RECIPE@DEVICE.json    a run that is done
    FOLDER/devices/DIGEST.lock       held by whoever asks the device of that address

A device does one thing at a time, in a thread of its own, so that a slow one holds up no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import AwareDatetime

from slmc import console, digest, pipeline
from slmc.bundle.verify import verify
from slmc.errors import InputError, RecipeError, RunnerError, SlmcError, did_you_mean
from slmc.farm.asking import Asker
from slmc.farm.farm_file import Farm, FarmDevice
from slmc.farm.measure import Subject, measure, not_run
from slmc.farm.record import Night, Run, Series
from slmc.names import BackendName, TargetName
from slmc.on_device import Sent
from slmc.plan import Options, resolve
from slmc.recipe import LoadedRecipe, load_recipe
from slmc.store import Store
from slmc.strict import Strict, read_json, write_json
from slmc.target import load_target

BACKEND: BackendName = "tvm"
"""Whose bundles a device runs without an app."""
OpenDevice = Callable[[str, str], Asker]
"""Name and address of a device to what asks it."""


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
    wanted = _wanted(order, only)
    pairs = [(name, recipe) for name in devices for recipe in wanted][number - 1 :: count]
    work, built = dict[str, list[_Built]](), dict[tuple[str, TargetName], _Built]()
    for name, recipe in pairs:
        target = devices[name].target
        if (recipe.name, target) not in built:
            built[recipe.name, target] = _build(order, recipe, target)
        work.setdefault(name, []).append(built[recipe.name, target])
    runs = _on_all(order, devices, work, place)
    return Night(id=order.id, started=began.started, finished=datetime.now(UTC), runs=tuple(runs), controls=())


@dataclass(frozen=True)
class _Wanted:
    name: str
    recipe: LoadedRecipe | str
    """Or why it can't be read; so below."""


@dataclass(frozen=True)
class _Built:
    recipe: str
    target: TargetName
    subject: Subject | str

    def series(self, device: str) -> Series:
        return Series(recipe=self.recipe, target=self.target, backend=BACKEND, device=device)


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


# ---- Bundles --------------------------------------------------------------------------------------------------------


def _wanted(order: Order, only: Sequence[str]) -> list[_Wanted]:
    """Raises RecipeError for two of one name: each is followed from night to night by its name."""
    found = [one for folder in _recipes(order.farm, only) for one in _loaded(order.base / folder)]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"two recipes of the name {twice!r}", where=order.base, todo="give one another name")
    return found


def _loaded(folder: Path) -> list[_Wanted]:
    """A recipe of several adapters is as many; one that can't be read ends no night."""
    try:
        return [_Wanted(one.recipe.name, one) for one in load_recipe(folder).each()]
    except SlmcError as error:
        return [_Wanted(folder.name, str(error))]


def _build(order: Order, wanted: _Wanted, target: TargetName) -> _Built:
    """Built and judged on this machine; what the store has is not made again."""
    if isinstance(wanted.recipe, str):
        return _Built(wanted.name, target, wanted.recipe)
    try:
        plan = resolve(wanted.recipe, load_target(target), Options(BACKEND))
        built = pipeline.build(plan, order.store, order.folder / "bundles", limit=order.limit)
        control = _control(order, target)
    except SlmcError as error:
        return _Built(wanted.name, target, f"could not be built: {error.what}")
    assert built.reference is not None, "a plan of these options is validated"
    sent = Sent(built.bundle, built.manifest)
    proof = pipeline.proof_folder(built.bundle)
    return _Built(wanted.name, target, Subject(plan, sent, proof, built.reference, control))


def _control(order: Order, target: TargetName) -> Sent | None:
    """Checked file by file."""
    named = order.farm.controls.get(target)
    return None if named is None else Sent(order.base / named, verify(order.base / named))


# ---- Devices --------------------------------------------------------------------------------------------------------


def _on_all(
    order: Order, devices: Mapping[str, FarmDevice], work: Mapping[str, Sequence[_Built]], place: Path
) -> list[Run]:
    """In the order of devices, and of recipes on each."""
    found: dict[str, list[Run]] = {}
    with console.progress("runs", sum(map(len, work.values()))) as advance:
        threads = [
            # Daemons, so that Ctrl-C ends the night at once: what is done is kept, devices are cleared the next time.
            threading.Thread(
                target=_on_one, args=(order, name, devices[name], built, place, found, advance), daemon=True
            )
            for name, built in work.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # without a limit Ctrl-C would wait
    missing = [name for name in work if name not in found]
    if missing:
        raise RunnerError(f"device {missing[0]} ended without its runs: a fault of slmc's own", todo="run it again")
    return [run for name in work for run in found[name]]


def _on_one(
    order: Order,
    name: str,
    entry: FarmDevice,
    work: Sequence[_Built],
    place: Path,
    found: dict[str, list[Run]],
    advance: console.Advance,
) -> None:
    runs = []
    lock = order.folder / "devices" / f"{digest.of_value(entry.at)}.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        for built in work:
            path = place / f"{built.recipe}@{name}.json"
            if not path.is_file():
                part = path.with_suffix(".part")
                write_json(_run(order, name, entry, built), part)
                part.replace(path)
            runs.append(read_json(Run, path, RunnerError, "a run of a night"))
            advance(1)
    found[name] = runs


def _run(order: Order, name: str, entry: FarmDevice, built: _Built) -> Run:
    if isinstance(built.subject, str):
        return not_run(built.series(name), built.subject, "not run")
    try:
        asker = order.open_device(name, entry.at)
    except SlmcError as error:
        return not_run(built.series(name), str(error), "not run")
    try:
        return measure(built.subject, asker, order.farm.speed, device_class=entry.device_class)
    finally:
        asker.close()
