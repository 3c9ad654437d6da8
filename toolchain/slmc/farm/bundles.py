"""The bundles of a night: each recipe for each target and backend that some device wants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slmc.engine import Engine
from slmc.errors import RecipeError, SlmcError
from slmc.farm.measure import Subject
from slmc.farm.record import Series
from slmc.names import BackendName, TargetName
from slmc.on_device import Sent
from slmc.pipeline import Built, build_each, proof_folder
from slmc.plan import Options, Plan, resolve
from slmc.recipe import LoadedRecipe, load_recipe
from slmc.store import Store
from slmc.target import load_target


@dataclass(frozen=True, eq=False)
class NamedRecipe:
    name: str
    loaded: LoadedRecipe | str
    """Or why it can't be read."""


@dataclass(frozen=True)
class Wanted:
    recipe: NamedRecipe
    target: TargetName
    backend: BackendName

    def series(self, device: str) -> Series:
        return Series(recipe=self.recipe.name, target=self.target, backend=self.backend, device=device)


@dataclass(frozen=True)
class Made:
    wanted: Wanted
    subject: Subject | str
    """Or why there is none."""


def wanted_of(folders: Iterable[Path]) -> list[NamedRecipe]:
    """A recipe of several adapters is as many; one that can't be read ends no night.

    Raises RecipeError for two of one name: each is followed from night to night by its name.
    """
    found: dict[str, NamedRecipe] = {}
    for folder in folders:
        for one in _loaded(folder):
            if one.name in found:
                raise RecipeError(f"a second recipe of the name {one.name!r}", where=folder, todo="give it another")
            found[one.name] = one
    return list(found.values())


def _loaded(folder: Path) -> list[NamedRecipe]:
    try:
        return [NamedRecipe(one.recipe.name, one) for one in load_recipe(folder).each()]
    except SlmcError as error:
        return [NamedRecipe(folder.name, str(error))]


def make_all(
    wanted: Iterable[Wanted], store: Store, out: Path, limit: int | None, engine: Engine
) -> dict[Wanted, Made]:
    """Built and judged; what the store has is not made again."""
    planned = {one: _plan(one) for one in wanted}
    plans = {one: plan for one, plan in planned.items() if isinstance(plan, Plan)}
    built = build_each(list(plans.values()), store, out, limit=limit, engine=engine)
    made = {one: _subject(plan, outcome) for (one, plan), outcome in zip(plans.items(), built, strict=True)}
    return {one: Made(one, made.get(one, str(plan))) for one, plan in planned.items()}


def _plan(wanted: Wanted) -> Plan | str:
    if isinstance(wanted.recipe.loaded, str):
        return wanted.recipe.loaded
    try:
        return resolve(wanted.recipe.loaded, load_target(wanted.target), Options(wanted.backend))
    except SlmcError as error:
        return f"could not be built: {error.what}"


def _subject(plan: Plan, built: Built | SlmcError) -> Subject | str:
    if isinstance(built, SlmcError):
        return f"could not be built: {built.what}"
    assert built.reference is not None, "a plan of these options is validated"
    return Subject(plan, Sent(built.bundle, built.manifest), proof_folder(built.bundle), built.reference, None)
