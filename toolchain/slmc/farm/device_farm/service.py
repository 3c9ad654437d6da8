"""What AWS Device Farm is asked for: uploads, runs, and what they leave behind.

Everything that is made there has a name that begins with the asker's own prefix, so that what was left behind can be
found again, by whoever goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slmc.devices.patience import Clock
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError, MissingToolError
from slmc.farm.device_farm.answers import Artifact, Found, GoneError, Job, Run, TheirDevice, Upload, asking, read
from slmc.farm.device_farm.transfer import put

if TYPE_CHECKING:
    from botocore.client import BaseClient

REGION = "us-west-2"
"""Device Farm is nowhere else."""
TEST = "APPIUM_WEB_NODE"
"""A kind of test that needs no app, whose package Device Farm does not look into."""
PACKAGE, EXTRA, SPEC = f"{TEST}_TEST_PACKAGE", "EXTERNAL_DATA", f"{TEST}_TEST_SPEC"
UPLOAD_S = 1800.0
"""How long Device Farm may take to look at an upload."""
POLL_S = 5.0
TRIES = 4
SETTLE_S = 15.0
"""After this a run that was scheduled is listed."""


@dataclass(frozen=True)
class Service:
    client: BaseClient
    once: BaseClient
    """Asks but once: for what must not be done twice."""
    project: str
    clock: Clock = field(default_factory=Clock)

    # ---- Devices ----------------------------------------------------------------------------------------------------

    def device(self, arn: str) -> TheirDevice:
        with asking("get_device"):
            return read(TheirDevice, self.client.get_device(arn=arn)["device"])

    # ---- Uploads ----------------------------------------------------------------------------------------------------

    def uploads(self, prefix: str) -> list[Upload]:
        found = self._listed("list_uploads", "uploads", Upload, arn=self.project)
        return [one for one in found if one.name.startswith(prefix)]

    def upload(self, write: Callable[[Path], None], name: str, kind: str, folder: Path) -> str:
        """The ARN of what `write` writes, once Device Farm has taken it; what is there by that name is neither written
        nor sent again. Raises InputError with Device Farm's words where it refuses it.
        """
        there = next((one for one in self.uploads(name) if one.name == name and one.status == "SUCCEEDED"), None)
        if there is not None:
            return there.arn
        path = folder / name
        try:
            write(path)
            return self._checked(self._sent(path, name, kind))
        finally:
            path.unlink(missing_ok=True)

    def _sent(self, path: Path, name: str, kind: str) -> Upload:
        for number in range(1, TRIES + 1):
            with asking("create_upload"):
                made = self.client.create_upload(
                    projectArn=self.project, name=name, type=kind, contentType="application/octet-stream"
                )
            upload = read(Upload, made["upload"])
            try:
                put(path, upload.url, self.client.meta.endpoint_url, name)
            except LostConnection:
                self.delete_upload(upload)
                if number == TRIES:
                    raise
                self.clock.sleep(POLL_S * 2**number)
            else:
                return upload
        raise AssertionError("the last try returns or raises")

    def _checked(self, upload: Upload) -> str:
        limit = self.clock.now() + UPLOAD_S
        while upload.status in ("INITIALIZED", "PROCESSING"):
            if self.clock.now() > limit:
                raise DeviceError(f"Device Farm looked at {upload.name} for more than {UPLOAD_S / 60:.0f} minutes")
            self.clock.sleep(POLL_S)
            with asking("get_upload"):
                upload = read(Upload, self.client.get_upload(arn=upload.arn)["upload"])
        if upload.status != "SUCCEEDED":
            said = upload.message or upload.metadata or "it does not say why"
            raise InputError(f"Device Farm refuses {upload.name}: {said}")
        return upload.arn

    def delete_upload(self, upload: Upload) -> None:
        with suppress(GoneError), asking("delete_upload"):
            self.client.delete_upload(arn=upload.arn)

    # ---- Runs -------------------------------------------------------------------------------------------------------

    def runs(self, prefix: str) -> list[Run]:
        found = self._listed("list_runs", "runs", Run, arn=self.project)
        return [one for one in found if one.name.startswith(prefix)]

    def run(self, arn: str) -> Run:
        with asking("get_run"):
            return read(Run, self.client.get_run(arn=arn)["run"])

    def schedule(self, request: Mapping[str, object], name: str) -> Run:
        """A run of that name, once, however often the connection is lost meanwhile."""
        for number in range(1, TRIES + 1):
            try:
                with asking("schedule_run"):
                    return read(Run, self.once.schedule_run(projectArn=self.project, name=name, **request)["run"])
            except LostConnection:
                if number == TRIES:
                    raise
            self.clock.sleep(SETTLE_S)
            there = [one for one in self.runs(name) if one.name == name]
            if there:
                return there[0]
        raise AssertionError("the last try returns or raises")

    def remove(self, run: Run) -> None:
        """Stopped first where it goes on: one that takes its time to stop is left for another time."""
        if run.status != "COMPLETED":
            with asking("stop_run"):
                self.client.stop_run(arn=run.arn)
            self.clock.sleep(POLL_S)
            if self.run(run.arn).status != "COMPLETED":
                return
        with suppress(GoneError), asking("delete_run"):
            self.client.delete_run(arn=run.arn)

    def artifacts(self, run: Run) -> list[Artifact]:
        return [
            artifact
            for job in self._jobs(run)
            for category in ("FILE", "LOG")
            for artifact in self._listed("list_artifacts", "artifacts", Artifact, arn=job.arn, type=category)
        ]

    def reason(self, run: Run) -> str:
        """What Device Farm says of a run and its one job."""
        said = [run.message, *(job.message for job in self._jobs(run))]
        return "; ".join(dict.fromkeys(one for one in said if one)) or "it does not say why"

    def _jobs(self, run: Run) -> list[Job]:
        return self._listed("list_jobs", "jobs", Job, arn=run.arn)

    def _listed(self, operation: str, key: str, kind: type[Found], **request: object) -> list[Found]:
        with asking(operation):
            pages = list(self.client.get_paginator(operation).paginate(**request))
        return [read(kind, one) for page in pages for one in page[key]]


def connect(project: str) -> Service:
    """With boto3's own chain of credentials. Raises MissingToolError without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MissingToolError(f"Device Farm needs boto3: {error}", todo="pip install 'slmc[farm]'") from None
    config = Config(
        region_name=REGION,
        connect_timeout=20,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 8},
    )
    with asking("its session"):
        session = boto3.Session()
        patient = session.client("devicefarm", config=config)
        once = session.client("devicefarm", config=config.merge(Config(retries={"total_max_attempts": 1})))
    return Service(patient, once, project)


def schedule_request(device: str, package: str, extra: str | None, spec: str, minutes: int) -> Mapping[str, object]:
    """A run on one phone, without an app."""
    chosen = [{"attribute": "ARN", "operator": "EQUALS", "values": [device]}]
    return {
        "deviceSelectionConfiguration": {"filters": chosen, "maxDevices": 1},
        "test": {"type": TEST, "testPackageArn": package, "testSpecArn": spec},
        "configuration": {} if extra is None else {"extraDataPackageArn": extra},
        "executionConfiguration": {
            "jobTimeoutMinutes": minutes,
            "accountsCleanup": False,
            "appPackagesCleanup": False,
            "videoCapture": False,
        },
    }
