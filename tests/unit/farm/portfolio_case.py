"""Runs of several phones by several backends, for choosing among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmc.farm.portfolio.choice import Choice, Portfolio, TargetChoices, portfolio_of
from slmc.farm.portfolio.evidence import Terms
from slmc.farm.record import Night, Outcome, Run, Series
from slmc.names import BackendName
from slmc.target import MIB, load_target

from .morning_case import gone
from .nights import WHERE, night, past_of, run

ANDROID = load_target("android")
TARGETS = {"android": ANDROID}


@dataclass(frozen=True)
class Phone:
    name: str
    model: str = "Phone 9"
    device_class: str | None = "4 GB"

    def series(self, backend: BackendName = "tvm", recipe: str = "router") -> Series:
        return Series(recipe=recipe, target="android", backend=backend, device=self.name)

    def run(
        self,
        backend: BackendName = "tvm",
        bundle: str = "new",
        outcome: Outcome = "pass",
        ms: float = 2.0,
        *,
        control_ms: float | None = 2.0,
        clear: bool = True,
        memory_mib: int = 30,
        recipe: str = "router",
    ) -> Run:
        """`control_ms` None: no control is known."""
        own = {"bundle": f"{bundle} of {backend}", "model": self.model}
        where = WHERE.model_copy(update=own | ({"control": None} if control_ms is None else {}))
        made = run(self.series(backend, recipe), where=where)
        assert made.speed is not None
        speed = made.speed.model_copy(
            update={
                "decision_ms_p50": ms,
                "ratio": ms / (control_ms or ms),
                "control_ms_p50": control_ms,
                "verdict": "measured" if clear else "unclear",
            }
        )
        return made.model_copy(
            update={
                "outcome": outcome,
                "reason": "" if outcome == "pass" else f"it is a {outcome}",
                "speed": speed,
                "device_class": self.device_class,
                "peak_memory_bytes": memory_mib * MIB,
                "memory_limit_bytes": 2048 * MIB,
            }
        )

    def crash(self, backend: BackendName = "tvm") -> Run:
        """As `measure` tells it: nothing is known but that it failed."""
        return gone(self.series(backend), "the runner was killed by SIGSEGV").model_copy(update={"outcome": "fail"})


def portfolio(nights: Sequence[Night], terms: Terms = Terms()) -> Portfolio:  # noqa: B008 - frozen
    return portfolio_of(past_of(nights), "router", TARGETS, terms)


def of(*nights: Sequence[Run], terms: Terms = Terms()) -> TargetChoices:  # noqa: B008
    """Android's choices of so many nights in a row."""
    [its] = portfolio([night(number, *runs) for number, runs in enumerate(nights)], terms).targets
    return its


def in_class(its: TargetChoices, name: str = "4 GB") -> Choice | str:
    """Or the reason why there is none."""
    [found] = [one for one in its.classes if one.name == name]
    assert (found.choice is None) == bool(found.reason)
    return found.choice or found.reason


def by_model(its: TargetChoices) -> dict[str, Choice | str]:
    return {one.model: one.choice or one.reason for one in its.models}


def chosen(backend: BackendName = "tvm", bundle: str = "new") -> Choice:
    return Choice(bundle=f"{bundle} of {backend}", backend=backend)
