"""Asks a phone of AWS Device Farm: one run after the other until the whole task is answered.

What is under way stands in Device Farm itself, by names: `slmc-OWNER-JOB-...`, where OWNER is drawn once for each
folder. A night that was stopped or lost its connection finds its uploads and runs by them and goes on from there; what
is of another job, or older than a day, is stopped and removed.
"""

from __future__ import annotations

import datetime
import os
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from slmc import console
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError, SlmcError
from slmc.farm.asking import Answered, Question
from slmc.farm.device_farm.answers import Artifact, Run
from slmc.farm.device_farm.job import MINUTES, Problem, digest_of
from slmc.farm.device_farm.package import Packed, needs_extra, pack, run_spec, write_zip
from slmc.farm.device_farm.returned import Returned, merge, read_returned
from slmc.farm.device_farm.service import EXTRA, PACKAGE, SPEC, Service, schedule_request
from slmc.farm.device_farm.transfer import get
from slmc.on_device import artifact_of
from slmc.runners.contract import Workload
from slmc.runners.files import read_workload
from slmc.runners.launch import TAIL, RunnerFailed

PROJECT = "SLMC_DEVICE_FARM_PROJECT"
"""The project's ARN, which is billed."""
QUEUE_S = 6 * 3600.0
"""How long a run may wait for its phone."""
LEAST_S, MOST_S = 10.0, 60.0
"""Between two looks at a run."""
TRIES = 4
DAY = datetime.timedelta(days=1)
"""What is older is of another night."""
ARTIFACT_BYTES = 2_000_000_000
_ARN = re.compile(r"arn:aws:devicefarm:us-west-2:\d*:(?P<kind>\w+):[\w./-]+")


def check_arn(arn: str, kind: str) -> str:
    """Raises InputError for what is no ARN of this kind in the one region that Device Farm has."""
    found = _ARN.fullmatch(arn)
    if found is None or found["kind"] != kind:
        raise InputError(f"{arn!r} is no ARN of a {kind}", expected=f"arn:aws:devicefarm:us-west-2:...:{kind}:...")
    return arn


def project_arn() -> str:
    found = os.environ.get(PROJECT, "")
    if not found:
        raise InputError("no project of AWS Device Farm is named", todo=f"set {PROJECT} to its ARN")
    return check_arn(found, "project")


@dataclass(frozen=True)
class DeviceFarmAsker:
    """`folder` is this device's and project's alone, and kept from night to night."""

    name: str
    device: str
    """Its ARN: of a model and a version of Android, of which any free phone is taken."""
    service: Service
    folder: Path
    runner: Callable[[str], Path]
    minutes: int = MINUTES
    """Of one run, at most."""

    def ask(self, question: Question, folder: Path) -> Answered:
        said = self.service.device(self.device)
        if said.platform != "ANDROID":
            raise InputError(f"{said.name} runs {said.platform}", expected="an Android phone")
        packed = pack(question, self.runner, minutes=self.minutes)
        workload = read_workload(question.task)
        self._clear(keep=_key(packed))
        returned: list[Returned] = []
        first = 0
        while first < len(workload.items):
            returned.append(self._ask_from(packed, workload, first, folder))
            first += sum(part.count for part in returned[-1].told.parts)
        facts = [one.told.facts for one in returned if one.told.facts is not None]
        if len({(one.model, one.os) for one in facts}) > 1:
            raise DeviceError("the runs were made on phones with other systems", where=self.name)
        results = [result for one in returned for result in one.results]
        merge(workload, results, artifact_of(question.bundle.manifest), folder / "result.jsonl")
        speed = returned[-1].told.speed
        if question.control is not None and speed is None:
            raise DeviceError("the runs told no speed", where=self.name)
        return Answered(facts[0], folder / "result.jsonl", speed)

    def close(self) -> None:
        """Remove all that was made there; what can't be removed now is left to the next night."""
        try:
            self._clear(keep=None)
        except SlmcError as error:
            console.err.print(f"what {self.name} left in AWS Device Farm was not removed: {error.what}", markup=False)

    # ---- One run ----------------------------------------------------------------------------------------------------

    def _ask_from(self, packed: Packed, workload: Workload, first: int, folder: Path) -> Returned:
        """At least one part. A run that failed is removed, so that it is not taken up again; what it had answered
        before it lost its phone counts.
        """
        run = self._finished(self._taken_up(packed, first) or self._scheduled(packed, first, folder))
        try:
            returned = self._returned(run, packed, workload, first, folder)
            problem = returned.told.problem
            if problem is not None and not (problem.of_device and returned.results):
                raise _error(problem)
            if not returned.results:
                raise DeviceError(f"the run answered nothing: {self.service.reason(run)}", where=self.name)
        except LostConnection:
            raise
        except SlmcError:
            self.service.remove(run)
            raise
        return returned

    def _taken_up(self, packed: Packed, first: int) -> Run | None:
        name = self._name(packed, f"from-{first}")
        return next((run for run in self.service.runs(name) if run.name == name), None)

    def _scheduled(self, packed: Packed, first: int, folder: Path) -> Run:
        def uploaded(what: str, kind: str, write: Callable[[Path], None]) -> str:
            return self.service.upload(write, self._name(packed, what), kind, folder)

        package = uploaded("package.zip", PACKAGE, lambda path: write_zip(packed, "package", path))
        extra = None
        if needs_extra(packed.job):
            extra = uploaded("extra.zip", EXTRA, lambda path: write_zip(packed, "extra", path))
        spec = uploaded(f"from-{first}.yml", SPEC, lambda path: _write(path, run_spec(packed, first)))
        request = schedule_request(self.device, package, extra, spec, packed.job.minutes)
        return self.service.schedule(request, self._name(packed, f"from-{first}"))

    def _finished(self, run: Run) -> Run:
        """Waited for, at last as long as it may wait for its phone and run."""
        clock, pause = self.service.clock, LEAST_S
        limit = clock.now() + QUEUE_S + self.minutes * 60
        while run.status != "COMPLETED":
            if clock.now() > limit:
                self.service.remove(run)
                raise DeviceError(
                    f"the run did not end in {(QUEUE_S / 60 + self.minutes):.0f} minutes", where=self.name
                )
            clock.sleep(pause)
            pause = min(pause * 1.5, MOST_S)
            run = self.service.run(run.arn)
        return run

    def _returned(self, run: Run, packed: Packed, workload: Workload, first: int, folder: Path) -> Returned:
        artifacts = self.service.artifacts(run)
        with TemporaryDirectory(dir=folder) as made:
            place = Path(made)
            try:
                self._download(_of_type(artifacts, "CUSTOMER_ARTIFACT"), place / "artifacts.zip")
                return read_returned(place / "artifacts.zip", digest_of(packed.job), first, workload, place)
            except LostConnection:
                raise
            except DeviceError as error:
                said = f"{error.what}; the run ended {run.result}: {self.service.reason(run)}"
                raise DeviceError(f"{said}{self._output(artifacts, place)}", where=self.name) from None

    def _output(self, artifacts: Sequence[Artifact], folder: Path) -> str:
        """The last that the host's commands wrote."""
        with suppress(DeviceError):
            self._download(_of_type(artifacts, "TESTSPEC_OUTPUT"), folder / "output")
        if not (folder / "output").is_file():
            return ""
        with (folder / "output").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            return "\n" + file.read().decode(errors="replace")

    def _download(self, artifact: Artifact, to: Path) -> None:
        for number in range(1, TRIES + 1):
            try:
                get(artifact.url, self.service.client.meta.endpoint_url, artifact.name, to, ARTIFACT_BYTES)
            except LostConnection:
                if number == TRIES:
                    raise
                self.service.clock.sleep(LEAST_S * number)
            else:
                return

    # ---- Names ------------------------------------------------------------------------------------------------------

    @cached_property
    def _prefix(self) -> str:
        path = self.folder / "owner"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(secrets.token_hex(6))
            part.replace(path)
        return f"slmc-{path.read_text()}-"

    def _name(self, packed: Packed, what: str) -> str:
        return f"{self._prefix}{_key(packed)}-{what}"

    def _clear(self, keep: str | None) -> None:
        """Remove runs and uploads of this asker's but those of one job."""
        recent = datetime.datetime.now(datetime.UTC) - DAY
        kept = None if keep is None else f"{self._prefix}{keep}-"
        for run in self.service.runs(self._prefix):
            if kept is None or not run.name.startswith(kept) or run.created is None or run.created < recent:
                self.service.remove(run)
        for upload in self.service.uploads(self._prefix):
            if kept is None or not upload.name.startswith(kept):
                self.service.delete_upload(upload)


def _key(packed: Packed) -> str:
    return digest_of(packed.job)[:16]


def _of_type(artifacts: Sequence[Artifact], kind: str) -> Artifact:
    found = next((one for one in artifacts if one.type == kind), None)
    if found is None:
        raise DeviceError(f"the run left no {kind.lower().replace('_', ' ')}")
    return found


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _error(problem: Problem) -> SlmcError:
    if problem.failure is not None:
        return RunnerFailed(problem.failure, problem.command)
    return DeviceError(problem.what) if problem.of_device else InputError(problem.what)
