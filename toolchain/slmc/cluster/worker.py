"""What a worker of the cluster does: one step, with a store of its machine's own before the shared one."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from slmc import console
from slmc.cluster.crossing import Crossing
from slmc.cluster.same import check_same
from slmc.errors import SlmcError
from slmc.shared_store import SharedStore
from slmc.store import Store


@dataclass(frozen=True)
class Call:
    """A step with what it is given."""

    step: Callable[..., object]
    given: tuple[object, ...]
    named: Mapping[str, object]


@dataclass(frozen=True)
class Job:
    """What a worker is told."""

    url: str
    """Of the shared store."""
    identity: Mapping[str, str]
    """Of the machine that asks."""
    places: Mapping[str, str]
    """Paths below the driver's store, by what they are there: `STAGE/KEY` or nothing, for texts of errors."""
    call: bytes
    """As it crossed."""


@dataclass(frozen=True)
class Outcome:
    told: str
    """What the step wrote for a person."""
    value: bytes | SlmcError


def run_step(job: Job) -> Iterator[str | Outcome]:
    """The machine's name at once, then what became of the step."""
    yield platform.node()
    with console.err.capture() as captured:
        value = _value(job)
    yield Outcome(captured.get(), value)


def _value(job: Job) -> bytes | SlmcError:
    store = None
    try:
        check_same(job.identity)
        store = Store.default(SharedStore(job.url))
        crossing = Crossing(store, fetching=True)
        call = crossing.unpack(job.call)
        assert isinstance(call, Call)
        return crossing.pack(call.step(*call.given, **call.named))
    except SlmcError as error:
        return error if store is None else _as_told_there(error, store, job.places)


def _as_told_there(error: SlmcError, store: Store, places: Mapping[str, str]) -> SlmcError:
    """The same texts that the step would have told on the driver's machine."""
    roots = dict.fromkeys([str(store.root.resolve()), str(store.root.absolute()), str(store.root)])
    for name in ("what", "where", "expected", "todo"):
        text = getattr(error, name)
        for inside, path in places.items():
            for root in roots:
                text = text and text.replace(f"{root}/{inside}".rstrip("/"), path)
        setattr(error, name, text)
    error.args = (error.what,)
    return error
