"""Where a recipe's base and adapter lie: a folder of the recipe, or a pinned revision on the hub."""

from __future__ import annotations

from pathlib import Path

from slmc import digest
from slmc.errors import CheckpointError
from slmc.recipe import LoadedRecipe, Source

SMALL_FILES = ("*.json", "*.jinja")
ALL_FILES = (*SMALL_FILES, "*.safetensors")
_NOT_CONTENT = (".md", ".gitattributes", ".lock")


def locate(recipe: LoadedRecipe, source: Source, *, weights: bool) -> Path:
    """The source's folder; from the hub, fetched if need be: all of it, or only its small files.

    Raises RecipeError for a path outside the recipe, CheckpointError where the hub can't give it.
    """
    if source.path is not None:
        folder = recipe.file(source.path)
        if not folder.is_dir():
            raise CheckpointError("not a folder", where=folder, expected="a Hugging Face model or adapter folder")
        return folder
    return fetch(str(source.hub), str(source.revision), weights=weights)


def source_digest(recipe: LoadedRecipe, source: Source) -> str:
    """Digest of a local folder's content; on the hub the commit's hash already is one."""
    if source.path is None:
        return digest.of_value({"hub": source.hub, "revision": source.revision})
    return digest.of_value(content(locate(recipe, source, weights=True)))


def content(folder: Path) -> dict[str, str]:
    """Digest of each file of a local base or adapter that is its content."""
    return {name: found for name, found in digest.of_folder(folder).items() if not name.endswith(_NOT_CONTENT)}


def fetch(repository: str, revision: str, *, weights: bool = True) -> Path:
    """The folder of a revision on the hub. Raises CheckpointError where it can't be had."""
    from huggingface_hub import snapshot_download

    patterns = ALL_FILES if weights else SMALL_FILES
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # network, authorisation and missing repositories raise many kinds
        raise CheckpointError(
            f"{repository} at {revision[:12]} can't be fetched: {error}",
            where=f"hub: {repository}",
            todo="check the id, the revision and your login (hf auth login), or give a local path",
        ) from None
