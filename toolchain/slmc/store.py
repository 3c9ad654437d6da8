"""Results of stages by the digest of all that went into them: atomic, resumable, shared.

    <stage>/<key>/         a finished result, with `.stage.json` naming inputs and files
    <stage>/<key>.lock     held by the one build that is making it
    work/                  unfinished work, swept when nobody holds it
    scratch/<key>/         what a long stage goes on from when it was interrupted, kept for a week

A result appears by one rename when it is complete, so whatever stops a build leaves either
nothing or all of it. Its files are checked against their digests whenever it is used. Behind
the folder there may be a shared store: what it has is fetched, what is made is added to it.
"""

from __future__ import annotations

import errno
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
from slmc.seal import SEAL, Seal, key_of, parse_seal, seal
from slmc.shared_store import SharedStore

SCRATCH_S = 7 * 24 * 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STORAGE_ERRORS = (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Entry:
    """A finished result of a stage."""

    stage: str
    key: str
    folder: Path
    reused: bool
    """It was here, or in the shared store."""
    seconds: float
    """What making it took, now or when it was made."""


@dataclass(frozen=True)
class Stage:
    """A stage with all that decides its result; `key` is their digest."""

    name: str
    inputs: Mapping[str, object]

    @property
    def key(self) -> str:
        return key_of(self.name, self.inputs)


class Store:
    """A folder of stage results. Safe with several builds at once."""

    def __init__(self, root: Path, shared: SharedStore | None = None) -> None:
        self.root = root
        self.shared = shared

    @classmethod
    def default(cls, shared: SharedStore | None = None) -> Store:
        """In `$SLMC_STORE`, else `$XDG_CACHE_HOME/slmc`, else `~/.cache/slmc`."""
        named = os.environ.get("SLMC_STORE")
        if named:
            return cls(Path(named), shared)
        cache = os.environ.get("XDG_CACHE_HOME")
        return cls((Path(cache) if cache else Path.home() / ".cache") / "slmc", shared)

    def has(self, stage: Stage) -> bool:
        """A finished result stands there; its content is checked only when it is used."""
        return (self.root / stage.name / stage.key / SEAL).is_file()

    def shares(self, stage: Stage) -> bool:
        """A finished result stands in the shared store."""
        return self.shared is not None and self.shared.has(stage.name, stage.key)

    def obtain(self, stage: Stage, make: Callable[[Path], None]) -> Entry:
        """The stage's result: reused if it is there, else made by `make(folder)` in a fresh folder.

        Raises StoreError where the result was changed by hand or can't be written.
        """

        def fill(work: Path) -> bool:
            if self._fetch(stage.name, stage.key, work):
                return True
            begun = time.monotonic()
            make(work)
            seal(work, stage.name, stage.inputs, round(time.monotonic() - begun, 1))
            return False

        return self._obtain(stage.name, stage.key, fill)

    def bring(self, path: Path) -> Path:
        """A path into a result that another machine may have made: fetched where it isn't here.

        Raises StoreError where it is nowhere, as obtain does, and ValueError for a path outside the store.
        """
        name, key, *_ = path.relative_to(self.root).parts

        def fill(work: Path) -> bool:
            if self._fetch(name, key, work):
                return True
            where = self.root if self.shared is None else self.shared
            raise StoreError(f"the result of stage {name} is gone", where=where, todo="build again")

        self._obtain(name, key, fill)
        return path

    def _obtain(self, name: str, key: str, fill: Callable[[Path], bool]) -> Entry:
        """`fill` completes a folder, and tells whether it was fetched."""
        folder = self.root / name / key
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            with FileLock(folder.with_suffix(".lock")):
                here = (folder / SEAL).is_file()
                reused = here or self._appear(folder, fill)
                closed = _verified(folder) if here else parse_seal((folder / SEAL).read_bytes(), folder)
                # What an earlier build did not share is shared now.
                if self.shared is not None and not (reused and self.shared.has(name, key)):
                    self.shared.put(folder)
                return Entry(name, key, folder, reused, closed.seconds)
        except OSError as error:
            if error.errno not in _STORAGE_ERRORS:
                raise
            raise _storage_error(error, self.root) from error

    def _fetch(self, name: str, key: str, work: Path) -> bool:
        if self.shared is None:
            return False
        self.shared.prepare()
        return self.shared.fetch(name, key, work)

    @contextmanager
    def scratch(self, stage: Stage) -> Iterator[Path]:
        """Inside the stage's `make`: a folder that outlives an interruption, and is removed once the block ends well.

        Only what appears there by a rename can be trusted to be whole.
        """
        folder = self.root / "scratch" / stage.key
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)

    def _appear(self, folder: Path, fill: Callable[[Path], bool]) -> bool:
        """Let a folder be filled apart, and appear when it is whole."""
        work = self.root / "work" / uuid.uuid4().hex
        work.parent.mkdir(exist_ok=True)
        # Locked before it exists, so that no other build can take it for a dead one's.
        with FileLock(work.with_suffix(".lock")):
            try:
                work.mkdir()
                fetched = fill(work)
                _flush(work)
                work.rename(folder)
                return fetched
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


def _verified(folder: Path) -> Seal:
    """A result's seal, its files checked against it."""
    try:
        closed = parse_seal((folder / SEAL).read_bytes(), folder)
    except (OSError, StoreError) as error:
        raise _damaged(folder, f"its seal can't be read ({getattr(error, 'what', error)})") from None
    sealed = closed.files
    found = digest.of_folder(folder)
    found.pop(SEAL, None)
    for name in sorted(found.keys() | sealed.keys()):
        if found.get(name) != sealed.get(name):
            state = "is gone" if name not in found else "was added" if name not in sealed else "was changed"
            raise _damaged(folder, f"{name} {state} since the stage made it")
    return closed


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
