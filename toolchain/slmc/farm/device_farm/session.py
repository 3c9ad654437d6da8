"""Asks the phone of a test host what a job asks, from some item on: `python -m slmc.farm.device_farm.session`.

The task is asked in parts, each of which lies in the log folder as soon as it is answered. Where the run's time or its
room for artifacts is nearly used up the session ends, and another run goes on from there. Speed is asked with the last
part, in the first half of a run's time, so that it is never cut off for what went before it.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from slmc import digest
from slmc.bundle.manifest import read_manifest
from slmc.devices.adb import AdbTransport
from slmc.devices.opening import adb_server, open_device
from slmc.devices.transport import LostConnection
from slmc.errors import BundleError, DeviceError, InputError, SlmcError
from slmc.farm.asking import Answered, Asker, DeviceAsker, Question
from slmc.farm.device_farm.job import (
    JOB,
    PHONE_STORAGE,
    Job,
    Part,
    Piece,
    Problem,
    Told,
    digest_of,
    part_name,
    part_of,
    write_told,
)
from slmc.farm.interleaved import BUNDLE, CONTROL
from slmc.on_device import Sent
from slmc.runners.files import read_workload, write_workload
from slmc.runners.launch import RunnerFailed
from slmc.strict import read_json

FIRST = 32
"""Items of the first part: how long one takes is not known yet."""
PART_S = 300.0
"""How long a part should take."""
RESERVE_S = 900.0
"""Of a run's minutes, for what goes before and after the session."""
ROOM = 900_000_000
"""Bytes of artifacts, of the 1 GB that Device Farm keeps."""
TRIES, RETRY_S = 5, 2.0
"""For what lies on the phone."""
COPY = 1 << 20


@dataclass(frozen=True)
class Limits:
    seconds: float
    """From the session's start on."""
    room: int = ROOM
    now: Callable[[], float] = time.monotonic


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 where nothing failed, be it that another run has to go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True, help="folder of the test package")
    parser.add_argument("--job", required=True, help="the job's digest")
    parser.add_argument("--first", type=int, required=True, help="item of the task to begin with")
    parser.add_argument("--serial", required=True, help="of the phone, as adb knows it")
    parser.add_argument("--log", type=Path, required=True, help="folder for what is told")
    chosen = parser.parse_args(arguments)
    told = Told(job=chosen.job, facts=None, parts=(), speed=None, problem=None)
    with TemporaryDirectory() as folder:
        try:
            told = _session(chosen, told, Path(folder))
        except SlmcError as error:
            told = told.model_copy(update={"problem": problem_of(error)})
    write_told(told, chosen.log)
    if told.problem is not None:
        sys.stderr.write(f"{told.problem.what}\n")
    return 0 if told.problem is None else 1


def problem_of(error: SlmcError) -> Problem:
    failure, command = (error.failure, error.where) if isinstance(error, RunnerFailed) else (None, None)
    return Problem(
        what=str(error),
        of_device=isinstance(error, DeviceError),
        failure=failure,
        command=() if command is None else (command,),
    )


def _session(chosen: argparse.Namespace, told: Told, folder: Path) -> Told:
    job = read_job(chosen.package, chosen.job)
    limits = Limits(job.minutes * 60 - RESERVE_S)
    phone = AdbTransport(chosen.serial, adb_server())
    found = join(job, chosen.package, folder, lambda name, to: _fetch(phone, name, to))
    bundles = {name: _lay_out(files, found, folder / name) for name, files in job.bundles.items()}
    question = Question(bundles[BUNDLE], bundles.get(CONTROL), found[job.task], found[job.speed], job.plan)
    asker = DeviceAsker(open_device(f"adb:{chosen.serial}"), lambda triple: _runner(job, found, triple))
    with closing(asker):
        return ask_in_parts(asker, question, told, chosen.first, chosen.log, folder, limits)


# ---- Files ----------------------------------------------------------------------------------------------------------


def read_job(package: Path, sha256: str) -> Job:
    job = read_json(Job, package / JOB, InputError, "a job")
    if digest_of(job) != sha256:
        raise InputError("the job is another than the test spec was made for", where=package / JOB, expected=sha256)
    return job


def join(job: Job, package: Path, folder: Path, fetch: Callable[[str, Path], None]) -> dict[str, Path]:
    """Every file of the job by its digest, which is checked; `fetch` copies one from the phone's storage."""
    found = {}
    for sha256, pieces in job.files.items():
        places = [_piece(piece, package, folder, fetch) for piece in pieces]
        path = places[0]
        if len(places) > 1:
            path = folder / sha256
            with path.open("wb") as whole:
                for place in places:
                    with place.open("rb") as part:
                        shutil.copyfileobj(part, whole, COPY)
        if digest.of_file(path) != sha256:
            raise BundleError("a file arrived otherwise than the job vouches for", where=path, expected=sha256)
        found[sha256] = path
    return found


def _piece(piece: Piece, package: Path, folder: Path, fetch: Callable[[str, Path], None]) -> Path:
    if piece.place == "package":
        return package / piece.name
    fetch(piece.name, folder / piece.name)
    return folder / piece.name


def _fetch(phone: AdbTransport, name: str, to: Path) -> None:
    """Moved, so that it takes no room on the phone."""
    for number in range(1, TRIES + 1):
        try:
            phone.fetch(f"{PHONE_STORAGE}/{name}", to)
            phone.execute(f"rm -f {PHONE_STORAGE}/{name}")
        except LostConnection:
            if number == TRIES:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _lay_out(files: dict[str, str], found: dict[str, Path], folder: Path) -> Sent:
    """A bundle's folder, with those of its files that are needed."""
    for name, sha256 in files.items():
        place = folder / name
        if not place.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{name!r} leaves the bundle")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(found[sha256].resolve())
    return Sent(folder, read_manifest(folder))


def _runner(job: Job, found: dict[str, Path], triple: str) -> Path:
    if triple != job.triple:
        raise InputError(f"the phone needs a runner for {triple}", expected=job.triple)
    return found[job.runner]


# ---- Parts ----------------------------------------------------------------------------------------------------------


def ask_in_parts(
    asker: Asker, question: Question, told: Told, first: int, log: Path, folder: Path, limits: Limits
) -> Told:
    """As many parts as there is time and room for, at least one. What fails is told beside those that did not."""
    workload = read_workload(question.task)
    total, count, begun = len(workload.items), FIRST, limits.now()
    while first < total:
        count = total - first if total - first <= 1.5 * count else count
        last = first + count == total
        spent = limits.now() - begun
        if told.parts and _used_up(spent, told, last and question.control is not None, log, limits):
            break
        part = Question(
            question.bundle, question.control if last else None, folder / "part", question.speed, question.plan
        )
        write_workload(part_of(workload, first, count), part.task)
        try:
            answered = asker.ask(part, folder)
        except SlmcError as error:
            return told.model_copy(update={"problem": problem_of(error)})
        told = _with(told, answered, first, count, log)
        write_told(told, log)
        first += count
        count = max(1, int(count * PART_S / max(limits.now() - begun - spent, 1e-3)))
    return told


def _used_up(spent: float, told: Told, speed: bool, log: Path, limits: Limits) -> bool:
    """Whether what comes next is left to another run."""
    sent = sum((log / part.name).stat().st_size for part in told.parts)
    return spent + 2 * PART_S > limits.seconds or sent > limits.room or (speed and spent > limits.seconds / 2)


def _with(told: Told, answered: Answered, first: int, count: int, log: Path) -> Told:
    if told.facts not in (None, answered.facts):
        raise DeviceError("the phone became another", where=log)
    path = log / part_name(first)
    with answered.result.open("rb") as result, gzip.open(path, "wb") as packed:
        shutil.copyfileobj(result, packed, COPY)
    part = Part(
        name=path.name,
        first=first,
        count=count,
        sha256=digest.of_file(path),
        size=answered.result.stat().st_size,
    )
    return told.model_copy(update={"facts": answered.facts, "parts": (*told.parts, part), "speed": answered.speed})


if __name__ == "__main__":
    sys.exit(main())
