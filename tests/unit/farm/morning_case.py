"""A farm of a few devices over some nights, of which each has a story, and a reader of the pages that came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Literal

from slmc.farm.history.history import History
from slmc.farm.morning.standing import Morning, Standing, morning_of, until
from slmc.farm.record import FlipShown, Ladder, Night, Run, RungShown, Series
from slmc.validate.report import RungName

from .nights import WHERE, night, run, series

ANSWERS = [index % 10 > 0 for index in range(4500)]
NIGHTS = 14
SLOWED, FULL, AWAY, SHAKY, QUIET, BACK, EARLIER = (f"shelf-{number}" for number in range(1, 8))
LIMIT = 40 << 20


def rung(name: RungName, right: int, lost: int = 0, won: int = 0) -> RungShown:
    reference = name == "reference"
    counts = (None, None, None) if reference else (lost, won, lost + won)
    return RungShown(name=name, status="ran", right=right, **dict(zip(("lost", "won", "changed"), counts, strict=True)))


def flip(number: int, rung: RungName = "device", kind: Literal["lost", "won", "other"] = "lost") -> FlipShown:
    return FlipShown(
        id=f"{number:04}",
        rung=rung,
        kind=kind,
        text=f"could you wire {number} to my sister before the weekend",
        expected="transfer",
        before="transfer" if kind == "lost" else "card",
        after="transfer" if kind == "won" else "balance",
    )


BELOW = (
    rung("reference", 4067),
    rung("quantized", 4050, 22, 5),
    RungShown(name="compiled", status="not run", right=None, lost=None, won=None, changed=None),
    rung("app", 4050),
)
QUANTIZED = (
    *(flip(number, "quantized") for number in range(22)),
    *(flip(n, "quantized", "won") for n in range(22, 27)),
)


def ladder(*flips: FlipShown, below: Sequence[RungShown] = BELOW, more: int = 0) -> Ladder:
    """Above those rungs a device's, on which items flip so; QUANTIZED do below it."""
    lost, won = (sum(one.kind == kind for one in flips) for kind in ("lost", "won"))
    device = rung("device", 4050 - lost + won, lost, won)
    every = sorted((*QUANTIZED, *flips), key=lambda one: ("lost", "won", "other").index(one.kind))
    return Ladder(rungs=(*below, device), flips=tuple(every), more=more)


def gone(its: Series, reason: str) -> Run:
    return run(its).model_copy(
        update={
            "outcome": "not run",
            "reason": reason,
            "circumstances": None,
            "accuracy": None,
            "speed": None,
            "peak_memory_bytes": None,
            "ladder": None,
        }
    )


def farm_nights() -> list[Night]:
    """The last is night-13, which tells that SLOWED is slower since night-12, under another system."""
    random = Random(1)
    return [night(number, *_runs(number, random)) for number in range(NIGHTS)]


def _runs(number: int, random: Random) -> list[Run]:
    last, updated = number == NIGHTS - 1, number >= NIGHTS - 2

    def measured(device: str, ratio: float = 1.0, system: str = "17.1") -> Run:
        where = WHERE.model_copy(update={"os": system})
        return run(series(device=device), ANSWERS, random.gauss(ratio, 0.003), where).model_copy(
            update={"memory_limit_bytes": LIMIT, "device_class": "small", "ladder": ladder()}
        )

    full = measured(FULL)
    shaky = measured(SHAKY)
    assert shaky.speed is not None
    runs = [
        measured(SLOWED, 1.1 if updated else 1.0, "17.2" if updated else "17.1"),
        full.model_copy(update={"outcome": "fail", "reason": "44 MiB of memory", "ladder": ladder(flip(30), flip(31))})
        if last
        else full,
        gone(series(device=AWAY), "not attached") if updated else measured(AWAY),
        shaky.model_copy(update={"speed": shaky.speed.model_copy(update={"verdict": "unclear", "variation": 0.2})}),
        measured(QUIET),
        gone(series(device=BACK), "no battery") if number == NIGHTS - 2 else measured(BACK),
        measured(EARLIER, 1.1 if number >= 6 else 1.0, "17.3" if number >= 6 else "17.1"),
    ]
    return runs if last else [*runs, run(series("retired", QUIET), ANSWERS, random.gauss(1, 0.003))]


def kept(nights: Sequence[Night], folder: Path) -> History:
    history = History.open(folder / "history.sqlite")
    for one in nights:
        history.add(one)
    return history


def morning(history: History, name: str | None = None, recipe: str | None = None) -> Morning:
    past = until(history.past(), name)
    return morning_of(past, history.night(past.evenings[-1].id), recipe)


def standing(found: Morning, device: str, recipe: str = "router") -> Standing:
    [one] = [one for one in found.standings if (one.series.device, one.series.recipe) == (device, recipe)]
    return one


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: Element | None
    parts: list[str | Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Of it and all that is in it, on one line."""
        return " ".join(" ".join(part if isinstance(part, str) else f" {part.text} " for part in self.parts).split())

    def find(self, tag: str, fits: Callable[[Element], bool] = lambda _: True) -> list[Element]:
        below = [part for part in self.parts if isinstance(part, Element)]
        return [
            one for part in below for one in ([part] if part.tag == tag and fits(part) else []) + part.find(tag, fits)
        ]


class _Reader(HTMLParser):
    """Of pages that close what they open."""

    VOID = ("meta", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.at = self.root = Element("", {}, None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.parts.append(element)
        if tag not in self.VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.parts.append(Element(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.parts.append(data)


def parsed(text: str) -> Element:
    """Raises AssertionError where an element is not closed, or another one is."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.at is reader.root, f"<{reader.at.tag}> is never closed"
    return reader.root
