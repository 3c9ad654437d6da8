from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from slmc.errors import CheckpointError
from slmc.recipe import LoadedRecipe, Source, load_recipe
from slmc.sources import locate, source_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ON_HUB = Source(hub="someone/model", revision=COMMIT)


@pytest.fixture
def recipe(recipe_folder: Path) -> LoadedRecipe:
    return load_recipe(recipe_folder)


def test_a_local_folder(recipe: LoadedRecipe) -> None:
    assert locate(recipe, recipe.recipe.base, weights=True) == (recipe.folder / "base").resolve()
    with pytest.raises(CheckpointError, match="not a folder"):
        locate(recipe, Source(path="recipe.yaml"), weights=False)


def test_a_local_digest_is_of_the_content(recipe: LoadedRecipe) -> None:
    before = source_digest(recipe, recipe.recipe.base)
    (recipe.folder / "base" / "README.md").write_text("no content")
    assert source_digest(recipe, recipe.recipe.base) == before
    (recipe.folder / "base" / "model.safetensors").write_bytes(b"1")
    assert source_digest(recipe, recipe.recipe.base) != before


def test_the_hub_is_asked_for_the_pinned_revision_and_only_for_what_is_needed(
    recipe: LoadedRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def fetch(repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, "*.safetensors" in allow_patterns, "*.bin" in allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert locate(recipe, ON_HUB, weights=False) == tmp_path
    locate(recipe, ON_HUB, weights=True)
    assert asked == [("someone/model", COMMIT, False, False), ("someone/model", COMMIT, True, False)]
    assert source_digest(recipe, ON_HUB) != source_digest(recipe, Source(hub="someone/model", revision=COMMIT[::-1]))


def test_a_hub_that_does_not_answer(recipe: LoadedRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> str:
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(CheckpointError, match="someone/model at 0123456789ab can't be fetched: offline"):
        locate(recipe, ON_HUB, weights=True)
