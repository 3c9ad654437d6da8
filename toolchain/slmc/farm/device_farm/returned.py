"""What comes back from a test host: an archive that is read with care, and results that are put together again."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import ValidationError

from slmc import digest
from slmc.errors import DeviceError, RunnerError
from slmc.farm.device_farm.job import TOLD, Part, Told, part_name, part_of
from slmc.runners.contract import Environment, Footer, Result, ResultHeader, Workload
from slmc.runners.files import ResultWriter, read_result

TOLD_BYTES = 16 << 20
PACKED_BYTES = 1 << 30
"""Of a part: no more than Device Farm keeps of a run."""
RESULT_BYTES = 4 << 30
"""Of a part as it was written."""
_COPY = 1 << 20


@dataclass(frozen=True)
class Returned:
    """Of one run."""

    told: Told
    results: tuple[Result, ...]
    """Of its parts, in order."""


def read_returned(archive: Path, job: str, first: int, workload: Workload, folder: Path) -> Returned:
    """From a run that asked item `first` and those behind it. Nothing of the archive is unpacked under a name of its
    own. Raises DeviceError for what is not what a session wrote, RunnerError for a result that does not answer its
    items.
    """
    with _reading(archive), zipfile.ZipFile(archive) as opened:
        members = _members(opened)
        told = _told(opened, members, job)
        results = []
        for part in told.parts:
            if (part.first, part.name) != (first, part_name(first)) or first + part.count > len(workload.items):
                raise DeviceError(f"part {part.name!r} is not the one that was asked for", where=archive)
            path = folder / "part.jsonl"
            _unpack(opened, _member(members, part.name), part, path)
            results.append(read_result(path, part_of(workload, part.first, part.count)))
            first += part.count
    return Returned(told, tuple(results))


def merge(workload: Workload, results: Sequence[Result], artifact: str, to: Path) -> None:
    """One result of the whole workload, with the most memory of all and the first's load. Raises RunnerError where they
    were not made alike, or by other files than those of digest `artifact`.
    """
    alike = {_alike(result.environment) for result in results}
    if len(alike) > 1 or results[0].environment.artifact != artifact:
        raise RunnerError("the parts of the result were made by other files, or not alike", where=to, expected=artifact)
    answers = {name: answer for result in results for name, answer in result.answers.items()}
    peaks = [result.footer.peak_memory_bytes for result in results]
    known = [peak for peak in peaks if peak is not None]
    header = ResultHeader(workload=workload.digest, environment=results[0].environment)
    with ResultWriter(to, header) as writer:
        for item in workload.items:
            writer.answer(answers[item.id])
        writer.finish(Footer(peak_memory_bytes=max(known, default=None), load_ms=results[0].footer.load_ms))


def _alike(environment: Environment) -> str:
    return environment.model_copy(update={"thermal": None}).model_dump_json()


# ---- The archive ----------------------------------------------------------------------------------------------------


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """By their names without folders, which are Device Farm's. Raises DeviceError for one that stands twice."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = PurePosixPath(info.filename).name
        if info.is_dir():
            continue
        if name in found and name.startswith(("part-", TOLD)):
            raise DeviceError(f"{name} comes twice", where=archive.filename)
        found[name] = info
    return found


def _member(members: dict[str, zipfile.ZipInfo], name: str) -> zipfile.ZipInfo:
    if name not in members:
        raise DeviceError(f"the run left no {name}")
    return members[name]


def _told(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], job: str) -> Told:
    with archive.open(_member(members, TOLD)) as file:
        content = file.read(TOLD_BYTES + 1)
    if len(content) > TOLD_BYTES:
        raise DeviceError(f"{TOLD} is larger than {TOLD_BYTES >> 20} MB", where=archive.filename)
    try:
        told = Told.model_validate_json(content)
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise DeviceError(f"{TOLD} is not what a session writes: {key}: {problem['msg']}") from None
    if told.job != job:
        raise DeviceError(f"{TOLD} is of another job", expected=job)
    return told


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, part: Part, to: Path) -> None:
    packed = to.with_suffix(".gz")
    with archive.open(member) as file:
        _copy(file, packed, PACKED_BYTES)
    if digest.of_file(packed) != part.sha256:
        raise DeviceError(f"{part.name} came otherwise than it was written", expected=part.sha256)
    with gzip.open(packed) as result:
        _copy(result, to, min(part.size, RESULT_BYTES))


def _copy(file: IO[bytes] | gzip.GzipFile, to: Path, most: int) -> None:
    with to.open("wb") as copy:
        left = most
        while content := file.read(_COPY):
            left -= len(content)
            if left < 0:
                raise DeviceError(f"{to.name} is larger than {most} bytes")
            copy.write(content)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Python's zip and gzip raise as they like."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DeviceError(f"the artifacts can't be read: {error}", where=archive) from None
