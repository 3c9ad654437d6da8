"""What is uploaded for a job: a test package, extra data for what has no room in it, and a test spec for each run."""

from __future__ import annotations

import io
import shlex
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import IO

import yaml

import slmc
from slmc import digest
from slmc.bundle.manifest import MANIFEST
from slmc.devices.device import File
from slmc.errors import InputError
from slmc.farm.asking import Question
from slmc.farm.device_farm.job import JOB, MINUTES, Job, Piece, Place, digest_of
from slmc.farm.interleaved import BUNDLE, CONTROL
from slmc.models import compiled
from slmc.on_device import Sent, check_bundle, files_of
from slmc.provenance import code_digest

TRIPLE = "aarch64-linux-gnu"
"""Of the phones that Device Farm has."""
ROOM: Mapping[Place, int] = {"package": 3_900_000_000, "extra": 3_900_000_000}
"""Bytes of the files in one upload, of the 4 GB that Device Farm takes."""
CODE, PACKAGES = "slmc.zip", "requirements.txt"
_COPY = 1 << 20
_DATE = (1980, 1, 1, 0, 0, 0)
_SCRIPT = """\
cd "$DEVICEFARM_TEST_PACKAGE_PATH" &&
devicefarm-cli use python 3.11 &&
printf '%s  %s\\n' {digests} | sha256sum -c - &&
packages=$(mktemp -d) &&
python -m pip install --quiet --no-deps --only-binary :all: --require-hashes --target "$packages" -r {packages} &&
adb start-server &&
PYTHONPATH="$PWD/{code}:$packages" python -m slmc.farm.device_farm.session --package . --job {job} --first {first} \
--serial "$DEVICEFARM_DEVICE_UDID" --log "$DEVICEFARM_LOG_DIR"
"""
"""One command, so that nothing is run where a step before it failed."""


@dataclass(frozen=True)
class Packed:
    job: Job
    sources: Mapping[str, Path]
    """The job's files by their digests."""
    code: bytes
    """slmc's own sources as a zip, from which Python runs them."""

    @property
    def packages(self) -> bytes:
        """Pinned, with digests, for the test host's Python and its C library."""
        return resources.files(__package__).joinpath(PACKAGES).read_bytes()


def pack(question: Question, runner: Callable[[str], Path], *, minutes: int = MINUTES) -> Packed:
    """Raises InputError for a bundle that no device can run, or for more than Device Farm takes."""
    asked = {BUNDLE: question.bundle} | ({} if question.control is None else {CONTROL: question.control})
    program = runner(TRIPLE)
    sources = {digest.of_file(path): path for path in (program, question.task, question.speed)}
    runner_digest, task_digest, speed_digest = (
        digest.of_file(path) for path in (program, question.task, question.speed)
    )
    bundles = {}
    for name, sent in asked.items():
        check_bundle(sent.bundle, sent.manifest)
        needed = _needed(sent)
        sources |= {file.sha256: file.path for file in needed.values()}
        bundles[name] = {path: file.sha256 for path, file in needed.items()}
    job = Job(
        code=code_digest(),
        triple=TRIPLE,
        runner=runner_digest,
        bundles=bundles,
        task=task_digest,
        speed=speed_digest,
        plan=question.plan,
        minutes=minutes,
        files=lay_out({sha256: path.stat().st_size for sha256, path in sources.items()}, ROOM),
    )
    return Packed(job, sources, _code())


def _needed(sent: Sent) -> dict[str, File]:
    """By their paths in the bundle: what the phone needs, and what the host needs to start it."""
    files = {file.path.relative_to(sent.bundle).as_posix(): file for file in files_of(sent).values()}
    facts = f"{sent.manifest.artifact}/{compiled.MANIFEST}"
    files[facts] = File(sent.bundle / facts, sent.manifest.files[facts].sha256)
    manifest = sent.bundle / MANIFEST
    return files | {MANIFEST: File(manifest, digest.of_file(manifest))}


def lay_out(sizes: Mapping[str, int], room: Mapping[Place, int]) -> dict[str, tuple[Piece, ...]]:
    """Each file, the small ones first, in the test package; what has no room there in the extra data. One lies in both
    where the border goes through it. Raises InputError where both are too small.
    """
    wanted, most = sum(sizes.values()), sum(room.values())
    if wanted > most:
        raise InputError(
            f"{wanted / 1e9:.2f} GB to send to Device Farm",
            expected=f"{most / 1e9:.2f} GB at most: its test package and its extra data have 4 GB each",
            todo="ask it without a control, or on a phone of your own",
        )
    left, found = room["package"], {}
    for sha256, size in sorted(sizes.items(), key=lambda one: (one[1], one[0])):
        here = min(size, left)
        pieces: list[tuple[Place, int]] = [("package", here), ("extra", size - here)]
        found[sha256] = tuple(
            Piece(place=place, name=f"slmc.{sha256}.{number}", size=length)
            for number, (place, length) in enumerate(pieces)
            if length or (size == 0 and number == 0)
        )
        left -= here
    return found


# ---- Uploads --------------------------------------------------------------------------------------------------------


def write_zip(packed: Packed, place: Place, to: Path) -> None:
    """The same job, the same bytes."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        if place == "package":
            for name, content in (
                (CODE, packed.code),
                (PACKAGES, packed.packages),
                (JOB, packed.job.model_dump_json().encode()),
            ):
                archive.writestr(_entry(name), content)
        for sha256, pieces in packed.job.files.items():
            start = 0
            for piece in pieces:
                if piece.place == place:
                    with packed.sources[sha256].open("rb") as file, archive.open(_entry(piece.name), "w") as inside:
                        file.seek(start)
                        _copy(file, inside, piece.size)
                start += piece.size


def needs_extra(job: Job) -> bool:
    return any(piece.place == "extra" for pieces in job.files.values() for piece in pieces)


def run_spec(packed: Packed, first: int) -> str:
    """For a run that asks from item `first` on."""
    digests = {CODE: digest.of_bytes(packed.code), PACKAGES: digest.of_bytes(packed.packages)}
    script = _SCRIPT.format(
        digests=" ".join(shlex.join([sha256, name]) for name, sha256 in digests.items()),
        packages=PACKAGES,
        code=CODE,
        job=digest_of(packed.job),
        first=first,
    )
    spec = {
        "version": 0.1,
        "android_test_host": "amazon_linux_2",
        "phases": {"test": {"commands": [script]}},
        "artifacts": ["$DEVICEFARM_LOG_DIR"],
    }
    return yaml.safe_dump(spec, sort_keys=False, width=4096)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = 0o644 << 16
    return entry


def _copy(file: IO[bytes], to: IO[bytes], size: int) -> None:
    while size:
        content = file.read(min(size, _COPY))
        if not content:
            raise InputError("a file became shorter while it was packed", where=file.name)
        to.write(content)
        size -= len(content)


@cache
def _code() -> bytes:
    folder = Path(slmc.__file__).parent
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.py")):
            archive.writestr(
                _entry(path.relative_to(folder.parent).as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED
            )
    return content.getvalue()
