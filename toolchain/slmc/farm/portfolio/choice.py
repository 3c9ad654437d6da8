"""Which bundle each device model and device class of a target is to have, for an app to download: `portfolio.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from statistics import median
from typing import Annotated, get_args

from pydantic import AwareDatetime, Field

from slmc.errors import InputError, did_you_mean
from slmc.farm.portfolio.evidence import AGAINST, Evidence, Heard, Support, Terms, hear
from slmc.farm.record import Positive, Words
from slmc.farm.tracks import Past
from slmc.names import BackendName, TargetName
from slmc.strict import Strict
from slmc.target import DeviceClass, Mebibytes, Target

NOISE = 1.05
"""Medians nearer than this are told apart by no one: the variation at which a night's own rounds count as unclear."""
SEEN = 0.8
"""Of a class's memory, what a device must show to be of it. Assumed: systems keep no more than this leaves for
themselves; the next smaller size that is sold is 3/4 of it at most."""


class Choice(Strict):
    bundle: Words
    """Its digest, as its manifest tells it."""
    backend: BackendName


class ModelChoice(Strict):
    """For devices of one model. Only models that measured enough to tell are here; others go by their memory."""

    model: Words
    """As the farm tells it: on Android maker and model, on Apple's the hardware's identifier."""
    choice: Choice | None
    reason: str
    """Why there is none; empty where there is one."""


class ClassChoice(Strict):
    """For devices of other models: the last class whose `from_mib` is not above a device's whole memory."""

    name: str
    from_mib: Mebibytes
    choice: Choice | None
    reason: str


class TargetChoices(Strict):
    target: TargetName
    models: tuple[ModelChoice, ...]
    """By name."""
    classes: tuple[ClassChoice, ...]
    """From the least memory on."""
    evidence: tuple[Evidence, ...]


class Portfolio(Strict):
    format: Annotated[int, Field(ge=1, le=1)] = 1
    recipe: Words
    night: str
    """The history's last."""
    started: AwareDatetime
    """When that began."""
    nights: Annotated[int, Field(gt=0)]
    """That count, up to that one."""
    max_ms: Positive | None
    """Of a decision, p50; None where any would do."""
    targets: tuple[TargetChoices, ...]
    """That the history has of the recipe, by name."""

    def choices(self) -> list[Choice]:
        """All that there are, of models and of classes."""
        found = [one.choice for its in self.targets for one in its.models]
        found += [one.choice for its in self.targets for one in its.classes]
        return [choice for choice in found if choice is not None]


def portfolio_of(past: Past, recipe: str, targets: Mapping[TargetName, Target], terms: Terms) -> Portfolio:
    """Raises InputError for a history without nights or without the recipe."""
    if not past.evenings:
        raise InputError("the history has no night to choose by", todo="run one with slmc nightly")
    known = {track.series.recipe for track in past.tracks}
    if recipe not in known:
        raise InputError(f"no recipe {recipe} in the history", todo=did_you_mean(recipe, known))
    heard = hear(past, recipe, terms)
    asked = sorted({track.series.target for track in past.tracks if track.series.recipe == recipe})
    return Portfolio(
        recipe=recipe,
        night=past.evenings[-1].id,
        started=past.evenings[-1].started.astimezone(UTC),
        nights=terms.nights,
        max_ms=terms.max_ms,
        targets=tuple(_of_target(targets[name], [one for one in heard if one.target == name]) for name in asked),
    )


def _of_target(target: Target, heard: Sequence[Heard]) -> TargetChoices:
    models = sorted({one.evidence.model for one in heard if one.evidence.model is not None})
    groups = {model: [one for one in heard if one.evidence.model == model] for model in models}
    return TargetChoices(
        target=target.name,
        models=tuple(
            ModelChoice(model=model, choice=choice, reason=reason)
            for model, group in groups.items()
            if any(_decisive(one.evidence.support) for one in group)
            for choice, reason in [_choose(target, group)]
        ),
        classes=tuple(
            ClassChoice(name=one.name, from_mib=round(SEEN * one.ram_mib), choice=choice, reason=reason)
            for one in sorted(target.device_classes, key=lambda one: (one.ram_mib, one.name))
            for choice, reason in [_choose(target, _of_class(one, heard))]
        ),
        evidence=tuple(sorted((one.evidence for one in heard), key=lambda one: one.model_dump_json())),
    )


def _of_class(one: DeviceClass, heard: Iterable[Heard]) -> list[Heard]:
    """With those that failed before anything was known of them: they may be of any class."""
    return [each for each in heard if each.evidence.model is None or each.evidence.device_class == one.name]


def _decisive(support: Support) -> bool:
    return support == "supported" or support in AGAINST


# ---- One choice -----------------------------------------------------------------------------------------------------


def _choose(target: Target, group: Iterable[Heard]) -> tuple[Choice | None, str]:
    """Of what passes, the first in the target's order of backends that no other is clearly faster than: so that a worse
    one beside them changes nothing. Or why there is none."""
    by_backend: dict[BackendName, list[Heard]] = {}
    for one in group:
        by_backend.setdefault(one.evidence.backend, []).append(one)
    ordered = {name: by_backend[name] for name in sorted(by_backend, key=lambda name: _rank(target, name))}
    passing = {name: _slowest(heard) for name, heard in ordered.items() if _holds(heard)}
    measured = {name: pace for name, pace in passing.items() if pace} or passing
    best = (name for name, pace in measured.items() if not any(_faster(other, pace) for other in measured.values()))
    chosen = next(best, None)
    if chosen is None:
        return None, "; ".join(_told(heard) for heard in ordered.values()) or "never measured"
    bundle = ordered[chosen][0].evidence.bundle
    assert bundle is not None  # what passed is known
    return Choice(bundle=bundle, backend=chosen), ""


def _rank(target: Target, name: BackendName) -> tuple[int, str]:
    return target.backends.index(name) if name in target.backends else len(target.backends), name


def _holds(heard: Sequence[Heard]) -> bool:
    """A class is as good as its worst device: nothing against it on any, and enough for it on one."""
    found = {one.evidence.support for one in heard}
    return "supported" in found and not found & AGAINST


def _slowest(heard: Sequence[Heard]) -> Sequence[float]:
    """Its nights on the device that it is slowest on; empty where no speed is clear."""
    return max((one.paces for one in heard if one.paces), key=median, default=())


def _faster(one: Sequence[float], other: Sequence[float]) -> bool:
    """By more than noise: every night of one is faster than every night of the other, and so are their medians."""
    return bool(one and other) and max(one) < min(other) and median(one) * NOISE < median(other)


_ORDER: tuple[Support, ...] = get_args(Support)


def _told(heard: Sequence[Heard]) -> str:
    """The worst that is said of a backend."""
    worst = max((one.evidence for one in heard), key=lambda one: (_ORDER.index(one.support), one.model_dump_json()))
    where = (
        "a device of which nothing else is known"
        if worst.model is None
        else worst.model + (f" with {worst.system}" if worst.system else "")
    )
    return f"{worst.backend}: {worst.support} on {where}: {worst.detail}"
