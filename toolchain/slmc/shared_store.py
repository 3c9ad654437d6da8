"""A place that several machines share behind their own stores: a folder, a bucket, any URL that fsspec opens.

    URL/files/DIGEST        contents by their digest: what results have in common lies there once, and two
                            builds that make one stage at once can't mix their files
    URL/STAGE/KEY.json      the seal of a result, written when all its files are there
    URL/slmc.json           of what version the place is

Everything that is read is held against its digest. Credentials are for fsspec's own configuration and the
environment (AWS_ACCESS_KEY_ID and the like); those that a URL holds are never shown.
"""

from __future__ import annotations

import errno
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar
from urllib.parse import unquote

from slmc import console, digest
from slmc.errors import MissingToolError, StoreError
from slmc.seal import SEAL, Seal, key_of, parse_seal

ENVIRONMENT = "SLMC_SHARED_STORE"
TRIES, WAIT_S = 4, 0.5
"""Of what fails in passing; the wait doubles. Backends of object stores try again themselves."""
_MARK = "slmc.json"
_SECRET = re.compile(r"(?<=://)[^/\s]*(?=@)|(?<=\?)\S+")
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"})
"""Where what is written appears whole or not at all; elsewhere it is renamed into place."""
_LASTING = (PermissionError, IsADirectoryError, NotADirectoryError)
Result = TypeVar("Result")


class Files(Protocol):
    """What is used of fsspec's file systems."""

    protocol: str | tuple[str, ...]

    def cat_file(self, path: str) -> bytes: ...

    def info(self, path: str) -> dict[str, object]: ...

    def exists(self, path: str) -> bool: ...

    def get_file(self, remote: str, local: str, *, callback: object) -> None: ...

    def put_file(self, local: str, remote: str, *, callback: object) -> None: ...

    def pipe_file(self, path: str, value: bytes) -> None: ...

    def makedirs(self, path: str, exist_ok: bool) -> None: ...

    def mv(self, path1: str, path2: str) -> None: ...

    def rm_file(self, path: str) -> None: ...


def shown(url: str, text: object = None) -> str:
    """The URL, or a text that may name it, without the credentials and the query that it holds."""
    told = url if text is None else str(text)
    for secret in _SECRET.findall(url):
        _, _, password = secret.partition(":")
        for hidden in filter(None, (secret, unquote(secret), password, unquote(password))):
            told = told.replace(hidden, "***")
    return _SECRET.sub("***", told)


class SharedStore:
    """Results of stages at a URL. Every method raises StoreError where the place can't be used, or is damaged."""

    def __init__(self, url: str) -> None:
        """Raises MissingToolError where the URL's kind needs a package."""
        self.url = url if "://" in url else Path(url).absolute().as_uri()
        self._fs, self._root = _opened(self.url)
        protocol = self._fs.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._object_store = bool(names & _OBJECT_STORES)
        self._ready = False

    def __str__(self) -> str:
        return shown(self.url)

    def prepare(self) -> None:
        """See that the place can be written, before hours of work are made for it."""
        if self._ready:
            return
        mark = self._read(_MARK)
        if mark is None:
            self._write(_MARK, json.dumps({"schema": 1}).encode())
        elif mark.strip() != b'{"schema": 1}':
            raise StoreError("the shared store is of another version of slmc", where=self, todo="name another URL")
        self._ready = True

    def has(self, stage: str, key: str) -> bool:
        return self._size(_seal(stage, key)) is not None

    def fetch(self, stage: str, key: str, folder: Path) -> bool:
        """Bring a result, seal and all, into an empty folder; False where there is none."""
        text = self._read(_seal(stage, key))
        if text is None:
            return False
        found = self._checked(text, stage, key)
        sizes = {name: self._size(_content(wanted)) for name, wanted in found.files.items()}
        there = {name: size for name, size in sizes.items() if size is not None}
        if missing := sorted(sizes.keys() - there.keys()):
            console.err.print(f"  [yellow]{stage} is sealed in the shared store, but {missing[0]} is gone[/]")
            return False
        with console.progress(f"fetching {stage}", sum(there.values())) as advance:
            for name, size in there.items():
                with _counted(advance, size) as callback:
                    self._get(found.files[name], folder / name, callback)
        (folder / SEAL).write_text(found.text(), encoding="utf-8")
        return True

    def put(self, folder: Path) -> None:
        """Add a finished result, its seal last; content that is there already is not sent again."""
        text = (folder / SEAL).read_bytes()
        closed = parse_seal(text, folder / SEAL)
        sizes = {name: (folder / name).stat().st_size for name in closed.files}
        with console.progress(f"sharing {closed.stage}", sum(sizes.values())) as advance:
            for name, size in sizes.items():
                with _counted(advance, size) as callback:
                    if self._size(_content(closed.files[name])) != size:
                        self._put(folder / name, closed.files[name], callback)
        self._write(_seal(closed.stage, key_of(closed.stage, closed.inputs)), text)

    def _checked(self, text: bytes, stage: str, key: str) -> Seal:
        where = f"{self}/{_seal(stage, key)}"
        try:
            found = parse_seal(text, where)
            same = found.stage == stage and key_of(stage, found.inputs) == key
        except (StoreError, ValueError) as error:
            raise _damaged(f"its seal can't be read ({getattr(error, 'what', error)})", where) from None
        if not same:
            raise _damaged("the seal is another result's", where)
        return found

    def _get(self, wanted: str, path: Path, callback: object) -> None:
        """Fetch the content of that digest."""
        path.parent.mkdir(parents=True, exist_ok=True)
        where = f"{self}/{_content(wanted)}"
        try:
            self._tried(lambda: self._fs.get_file(self._at(_content(wanted)), str(path), callback=callback), "read")
        except FileNotFoundError:
            raise _damaged("its content is gone", where) from None
        if digest.of_file(path) != wanted:
            raise _damaged("its content is not what its name says: cut short, or changed", where)

    def _put(self, path: Path, found: str, callback: object) -> None:
        self._placed(_content(found), lambda place: self._fs.put_file(str(path), place, callback=callback))

    def _read(self, remote: str) -> bytes | None:
        try:
            found: bytes = self._tried(lambda: self._fs.cat_file(self._at(remote)), "read")
        except FileNotFoundError:
            return None
        return found

    def _size(self, remote: str) -> int | None:
        try:
            found = self._tried(lambda: self._fs.info(self._at(remote)), "read")
        except FileNotFoundError:
            return None
        size = found["size"]
        return size if found["type"] == "file" and isinstance(size, int) else None

    def _write(self, remote: str, content: bytes) -> None:
        self._placed(remote, lambda place: self._fs.pipe_file(place, content))

    def _placed(self, remote: str, write: Callable[[str], object]) -> None:
        """Let `write` put something there so that nobody sees half of it."""
        final = self._at(remote)

        def place() -> None:
            if self._object_store:
                write(final)
                return
            part = f"{final}.{uuid.uuid4().hex}.part"
            self._fs.makedirs(str(PurePosixPath(final).parent), exist_ok=True)
            try:
                write(part)
                self._fs.mv(part, final)
            except BaseException:
                if self._fs.exists(part):
                    self._fs.rm_file(part)
                raise

        try:
            self._tried(place, "written")
        except FileNotFoundError as error:
            raise self._unusable("written", error) from None

    def _at(self, remote: str) -> str:
        return f"{self._root}/{remote}"

    def _tried(self, act: Callable[[], Result], done: str) -> Result:
        """What `act` returns. Raises FileNotFoundError where nothing is there, OSError where this disk is full."""
        wait = WAIT_S
        for left in reversed(range(TRIES)):
            try:
                return act()
            except FileNotFoundError:
                raise
            except Exception as error:  # backends raise kinds of their own beside OSError
                if done == "read" and getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if not left or not isinstance(error, OSError) or isinstance(error, _LASTING):
                    raise self._unusable(done, error) from None
            time.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _unusable(self, done: str, error: Exception) -> StoreError:
        return StoreError(
            f"the shared store can't be {done}: {shown(self.url, error) or type(error).__name__}",
            where=self,
            todo=f"check the URL, the network and the credentials, or build without --shared-store and {ENVIRONMENT}",
        )


def _seal(stage: str, key: str) -> str:
    return f"{stage}/{key}.json"


def _content(wanted: str) -> str:
    return f"files/{wanted}"


@contextmanager
def _counted(advance: console.Advance, size: int) -> Iterator[object]:
    """fsspec's callback for one transfer; in the end just the file's size is counted, whatever was told on the way."""
    from fsspec.callbacks import Callback

    told = 0

    class Told(Callback):  # type: ignore[misc]  # fsspec has no types
        def relative_update(self, inc: int = 1) -> None:
            nonlocal told
            told += inc
            advance(inc)

    yield Told()
    advance(size - told)


def _damaged(why: str, where: str) -> StoreError:
    return StoreError(
        f"a result in the shared store is damaged: {why}",
        where=where,
        todo="remove that object and build again: what is missing is made again",
    )


def _opened(url: str) -> tuple[Files, str]:
    try:
        import fsspec
    except ImportError:
        raise MissingToolError("a shared store needs fsspec", todo="pip install 'slmc[shared]'") from None
    try:
        # What another machine adds is to be seen: no listing is remembered.
        files: tuple[Files, str] = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingToolError(
            f"a shared store of this kind needs a package: {error}",
            where=shown(url),
            todo="S3 comes with slmc[shared]; gs:// needs gcsfs, abfs:// adlfs, sftp:// paramiko",
        ) from None
    except ValueError as error:
        raise StoreError(f"no shared store can be at that URL: {shown(url, error)}", where=shown(url)) from None
    return files
