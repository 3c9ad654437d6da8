"""Results of stages by the digest of all that went into them: atomic, resumable, shared.

    <root>/<stage>/<key>/         a finished result, with `.stage.json` naming inputs and files
    <root>/<stage>/<key>.lock     held by the one build that is making it
    <root>/work/                  unfinished work, swept when nobody holds it
    <root>/scratch/<key>/         what a long stage goes on from when it was interrupted, kept for a week

A result appears by one rename when it is complete, so whatever stops a build leaves either
nothing or all of it. Its files are checked against their digests whenever it is used.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from slmc import digest
from slmc.errors import StoreError

SEAL = ".stage.json"
SCRATCH_S = 7 * 24 * 3600.0
_SCHEMA = 1
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STORAGE_ERRORS = (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Entry:
    """A finished result of a stage."""

    stage: str
    key: str
    folder: Path
    reused: bool
    seconds: float
    """What making it took, now or when it was made."""


@dataclass(frozen=True)
class Stage:
    """A stage with all that decides its result; `key` is their digest."""

    name: str
    inputs: Mapping[str, object]

    @property
    def key(self) -> str:
        return digest.of_value({"stage": self.name, "schema": _SCHEMA, "inputs": dict(self.inputs)})


class Store:
    """A folder of stage results. Safe with several builds at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def default(cls) -> Store:
        """`$SLMC_STORE`, else `$XDG_CACHE_HOME/slmc`, else `~/.cache/slmc`."""
        named = os.environ.get("SLMC_STORE")
        if named:
            return cls(Path(named))
        cache = os.environ.get("XDG_CACHE_HOME")
        return cls((Path(cache) if cache else Path.home() / ".cache") / "slmc")

    def has(self, stage: Stage) -> bool:
        """A finished result stands there; its content is checked only when it is used."""
        return (self._folder(stage) / SEAL).is_file()

    def obtain(self, stage: Stage, make: Callable[[Path], None]) -> Entry:
        """The stage's result: reused if it is there, else made by `make(folder)` in a fresh folder.

        Raises StoreError where the result was changed by hand or can't be written.
        """
        folder = self._folder(stage)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            with FileLock(folder.with_suffix(".lock")):
                reused = (folder / SEAL).is_file()
                seconds = _verified(folder) if reused else self._make(stage, folder, make)
                return Entry(stage.name, stage.key, folder, reused, seconds)
        except OSError as error:
            if error.errno not in _STORAGE_ERRORS:
                raise
            raise _storage_error(error, self.root) from error

    @contextmanager
    def scratch(self, stage: Stage) -> Iterator[Path]:
        """Inside the stage's `make`: a folder that outlives an interruption, and is removed once the block ends well.

        Only what appears there by a rename can be trusted to be whole.
        """
        folder = self.root / "scratch" / stage.key
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)

    def _folder(self, stage: Stage) -> Path:
        return self.root / stage.name / stage.key

    def _make(self, stage: Stage, folder: Path, make: Callable[[Path], None]) -> float:
        work = self.root / "work" / uuid.uuid4().hex
        work.parent.mkdir(exist_ok=True)
        # Locked before it exists, so that no other build can take it for a dead one's.
        with FileLock(work.with_suffix(".lock")):
            try:
                work.mkdir()
                begun = time.monotonic()
                make(work)
                seconds = round(time.monotonic() - begun, 1)
                seal = {
                    "schema": _SCHEMA,
                    "stage": stage.name,
                    "inputs": stage.inputs,
                    "files": digest.of_folder(work),
                    "seconds": seconds,
                }
                (work / SEAL).write_text(json.dumps(seal, indent=1, sort_keys=True), encoding="utf-8")
                _flush(work)
                work.rename(folder)
                return seconds
            finally:
                shutil.rmtree(work, ignore_errors=True)
                work.with_suffix(".lock").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove the work of killed builds, whose lock nobody holds any more, and scratch that nobody went on with."""
        for lock in (self.root / "work").glob("*.lock"):
            try:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink(missing_ok=True)
            except Timeout:
                continue
        for folder in (self.root / "scratch").glob("*"):
            if time.time() - folder.stat().st_mtime > SCRATCH_S:
                shutil.rmtree(folder, ignore_errors=True)


def _verified(folder: Path) -> float:
    """The seconds that a result took, its files checked against its seal."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        sealed, seconds = seal["files"], float(seal["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"its seal can't be read ({error})") from None
    found = digest.of_folder(folder)
    found.pop(SEAL, None)
    for name in sorted(found.keys() | sealed.keys()):
        if found.get(name) != sealed.get(name):
            state = "is gone" if name not in found else "was added" if name not in sealed else "was changed"
            raise _damaged(folder, f"{name} {state} since the stage made it")
    return seconds


def _damaged(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"a stored result is damaged: {why}",
        where=folder,
        todo=f"remove that folder and build again: rm -r '{folder}'",
    )


def _flush(folder: Path) -> None:
    """Put the content on the disk before the rename can be: a power cut leaves no empty files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _storage_error(error: OSError, root: Path) -> StoreError:
    if error.errno in _FULL:
        return StoreError(
            "no space is left for the store; nothing half-made was kept",
            where=root,
            todo="free some space, or name another folder with --store or SLMC_STORE",
        )
    return StoreError(f"the store can't be used: {error}", where=root, todo="name another with --store or SLMC_STORE")
