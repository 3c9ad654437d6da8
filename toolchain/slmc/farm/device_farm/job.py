"""What both sides read: the job that a test host is given, and what it tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from slmc import digest
from slmc.devices.device import Facts
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.record import Speed
from slmc.runners.contract import Failure, Workload
from slmc.runners.files import make
from slmc.strict import Strict

JOB, TOLD = "job.json", "answered.json"
MINUTES = 150
"""Device Farm's limit of a run."""
PHONE_STORAGE = "/sdcard"
"""Where extra data lies on the phone."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z.-]{0,127}$")]
Count = Annotated[int, Field(ge=0)]
Place = Literal["package", "extra"]
"""The test package, which lies on the host, or the extra data, which lies on the phone."""


class Piece(Strict):
    """Of a file, or all of it."""

    place: Place
    name: Name
    size: Count


class Job(Strict):
    """`job.json`. Its own digest names the job."""

    code: str
    """Digest of slmc's own sources."""
    triple: str
    runner: Sha256
    bundles: dict[str, dict[str, Sha256]]
    """By name, the files that are needed of it by their paths there."""
    task: Sha256
    speed: Sha256
    plan: SpeedPlan
    minutes: Annotated[int, Field(gt=0, le=MINUTES)]
    files: dict[Sha256, tuple[Piece, ...]]


class Part(Strict):
    """A part of the task that was answered, compressed in a file of its own."""

    name: Name
    first: Count
    count: Annotated[int, Field(gt=0)]
    sha256: Sha256
    """Of the compressed file."""
    size: Count
    """Of the result within, in bytes."""


class Problem(Strict):
    """Why the session ended before its end."""

    what: str
    of_device: bool
    """A device that was lost or refused: it may do better another time."""
    failure: Failure | None
    """Of a runner that brought no result."""
    command: tuple[str, ...]


class Told(Strict):
    """`answered.json`: written anew after each part."""

    job: Sha256
    facts: Facts | None
    """None where nothing was answered."""
    parts: tuple[Part, ...]
    speed: Speed | None
    """Comes with the task's last part."""
    problem: Problem | None

    @model_validator(mode="after")
    def _of_a_phone(self) -> Told:
        if self.parts and self.facts is None:
            raise ValueError("parts of a phone that nothing is told of")
        return self


def digest_of(job: Job) -> str:
    return digest.of_value(job.model_dump(mode="json"))


def part_of(workload: Workload, first: int, count: int) -> Workload:
    """Some items of a workload, as one of its own."""
    return make(workload.header.end_id, workload.header.choices, workload.items[first : first + count])


def part_name(first: int) -> str:
    return f"part-{first}.jsonl.gz"


def write_told(told: Told, folder: Path) -> None:
    """At once or not at all."""
    part = folder / f"{TOLD}.part"
    part.write_text(told.model_dump_json(), encoding="utf-8")
    part.replace(folder / TOLD)
