"""A recipe's folder for machines that don't have it: a result like any other, named by its files' digests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from slmc import digest
from slmc.provenance import data_digests
from slmc.recipe import LoadedRecipe
from slmc.sources import content
from slmc.store import Entry, Stage, Store


def ship(recipe: LoadedRecipe, store: Store) -> Entry:
    """Put what a recipe names of its folder into the store: data, base, adapter. Raises RecipeError or StoreError."""
    files = _files(recipe)

    def copy(folder: Path) -> None:
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)

    return store.obtain(Stage("recipe", {name: digest.of_file(path) for name, path in files.items()}), copy)


def _files(recipe: LoadedRecipe) -> dict[str, Path]:
    """By their names in the recipe's folder."""
    found = {os.path.normpath(name): recipe.file(name) for name in data_digests(recipe)}
    for source in (recipe.recipe.base, recipe.recipe.adapter):
        if source is not None and source.path is not None:
            folder = recipe.file(source.path)
            found |= {os.path.normpath(f"{source.path}/{name}"): folder / name for name in content(folder)}
    return {Path(name).as_posix(): path for name, path in sorted(found.items())}
