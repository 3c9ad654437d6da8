"""An AWS Device Farm behind HTTP, for boto3 itself: requests and answers are held against botocore's own model of it.

Uploads and artifacts go over HTTP as they do there. What a run does is given: a function, or `Host`, which unpacks the
test package and runs the test spec's commands in bash as a test host does.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import botocore.session
import yaml
from botocore.validate import ParamValidator

ACCOUNT = "arn:aws:devicefarm:us-west-2:123456789012"
PROJECT = f"{ACCOUNT}:project:5e01a8c7-c861-4c0a-b1d5-12345EXAMPLE"
DEVICE = "arn:aws:devicefarm:us-west-2::device:E86A2B62AE1C4A9B8D5A3C9B7F6E1D2C"
MODEL = botocore.session.get_session().get_service_model("devicefarm")


@dataclass
class Upload:
    shown: dict[str, Any]
    content: bytes | None = None


@dataclass
class Run:
    shown: dict[str, Any]
    request: dict[str, Any]
    artifacts: dict[str, bytes] = field(default_factory=dict)
    """By type."""


@dataclass(frozen=True)
class Done:
    """What came of a run. None as artifacts: there are none."""

    result: str = "PASSED"
    files: Mapping[str, bytes] | None = None
    """Of $DEVICEFARM_LOG_DIR."""
    archive: bytes | None = None
    """In place of files."""
    output: str = ""
    message: str = ""


@dataclass(frozen=True)
class Given:
    """What a test host is given."""

    package: bytes
    extra: bytes | None
    spec: str


Host = Callable[[Given], Done]


class Farm:
    """There as soon as it is entered. `lose` and the lists are for the test's thread."""

    def __init__(self, host: Host = lambda _: Done()) -> None:
        self.host = host
        self.uploads: dict[str, Upload] = {}
        self.runs: dict[str, Run] = {}
        self.asked: list[str] = []
        """Operations, in order."""
        self.put: list[int] = []
        """Bytes of each upload that came whole."""
        self.refused: str | None = None
        """Says of each upload that is no test spec."""
        self.wait = threading.Event()
        """Runs end when it is set."""
        self.wait.set()
        self._lost: dict[str, list[bool]] = {}
        self._throttled: dict[str, int] = {}
        self._numbers = iter(range(1, 1 << 30))
        self._lock = threading.RLock()
        farm = self

        class Handler(_Handler):
            service = farm

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wait.set()
        self._server.shutdown()
        self._server.server_close()

    def lose(self, what: str, times: int = 1, *, done: bool = False) -> None:
        """The connection of an operation, PUT or GET, so many times; what was asked is done all the same or not."""
        self._lost.setdefault(what, []).extend([done] * times)

    def throttle(self, operation: str, times: int) -> None:
        self._throttled[operation] = times

    def is_lost(self, what: str) -> bool | None:
        """None where it is not; else whether it is done all the same."""
        with self._lock:
            left = self._lost.get(what, [])
            return left.pop() if left else None

    # ---- Operations -------------------------------------------------------------------------------------------------

    def answer(self, operation: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked.append(operation)
            if self._throttled.get(operation, 0) > 0:
                self._throttled[operation] -= 1
                return 400, {"__type": "ThrottlingException", "message": "Rate exceeded"}
            model = MODEL.operation_model(operation)
            report = ParamValidator().validate(request, model.input_shape)
            if report.has_errors():
                return 400, {"__type": "ArgumentException", "message": report.generate_report()}
            try:
                told = getattr(self, re.sub("(?<!^)(?=[A-Z])", "_", operation).lower())(**request)
            except KeyError as error:
                return 400, {"__type": "NotFoundException", "message": f"no entity {error}"}
            except ValueError as error:
                return 400, {"__type": "ArgumentException", "message": str(error)}
            wrong = ParamValidator().validate(told, model.output_shape)
            assert not wrong.has_errors(), wrong.generate_report()
            return 200, told

    def get_device(self, arn: str) -> dict[str, Any]:
        if arn != DEVICE:
            raise KeyError(arn)
        shown = {"arn": arn, "name": "Google Pixel 8", "manufacturer": "Google", "model": "Google Pixel 8"}
        return {"device": shown | {"platform": "ANDROID", "os": "14", "availability": "HIGHLY_AVAILABLE"}}

    def create_upload(self, projectArn: str, name: str, type: str, contentType: str) -> dict[str, Any]:  # noqa: N803
        number = next(self._numbers)
        arn = f"{ACCOUNT}:upload:5e01a8c7-c861-4c0a-b1d5-12345EXAMPLE/{number}"
        shown = {"arn": arn, "name": name, "type": type, "status": "INITIALIZED", "created": _now()}
        self.uploads[arn] = Upload(shown | {"url": f"{self.url}/upload/{number}?X-Amz-Signature=secret"})
        return {"upload": self.uploads[arn].shown}

    def get_upload(self, arn: str) -> dict[str, Any]:
        upload = self.uploads[arn]
        if upload.shown["status"] == "PROCESSING":
            self._look_into(upload)
        return {"upload": upload.shown}

    def list_uploads(self, arn: str, nextToken: str = "0000") -> dict[str, Any]:  # noqa: N803
        return _page("uploads", [upload.shown for upload in self.uploads.values()], nextToken)

    def delete_upload(self, arn: str) -> dict[str, Any]:
        del self.uploads[arn]
        return {}

    def schedule_run(
        self,
        projectArn: str,  # noqa: N803
        name: str,
        test: dict[str, Any],
        deviceSelectionConfiguration: dict[str, Any],  # noqa: N803
        configuration: dict[str, Any],
        executionConfiguration: dict[str, Any],  # noqa: N803
    ) -> dict[str, Any]:
        chosen = {"attribute": "ARN", "operator": "EQUALS", "values": [DEVICE]}
        assert deviceSelectionConfiguration == {"filters": [chosen], "maxDevices": 1}
        assert 0 < executionConfiguration["jobTimeoutMinutes"] <= 150
        assert not executionConfiguration["videoCapture"]
        arn = f"{ACCOUNT}:run:5e01a8c7-c861-4c0a-b1d5-12345EXAMPLE/{next(self._numbers)}"
        shown = {"arn": arn, "name": name, "status": "SCHEDULING", "result": "PENDING", "created": _now()}
        run = Run(shown, {"test": test, "configuration": configuration})
        self.runs[arn] = run
        given = Given(
            self._uploaded(test["testPackageArn"], f"{test['type']}_TEST_PACKAGE"),
            self._uploaded(configuration["extraDataPackageArn"], "EXTERNAL_DATA") if configuration else None,
            self._uploaded(test["testSpecArn"], f"{test['type']}_TEST_SPEC").decode(),
        )
        threading.Thread(target=self._execute, args=(run, given), daemon=True).start()
        return {"run": dict(shown)}

    def get_run(self, arn: str) -> dict[str, Any]:
        return {"run": self.runs[arn].shown}

    def list_runs(self, arn: str, nextToken: str = "0000") -> dict[str, Any]:  # noqa: N803
        return _page("runs", [run.shown for run in self.runs.values()], nextToken)

    def stop_run(self, arn: str) -> dict[str, Any]:
        self.runs[arn].shown |= {"status": "COMPLETED", "result": "STOPPED"}
        return {"run": self.runs[arn].shown}

    def delete_run(self, arn: str) -> dict[str, Any]:
        if self.runs[arn].shown["status"] != "COMPLETED":
            raise ValueError("the run is still active")
        del self.runs[arn]
        return {}

    def list_jobs(self, arn: str) -> dict[str, Any]:
        shown = {
            "arn": arn.replace(":run:", ":job:"),
            "name": "Google Pixel 8",
            "result": self.runs[arn].shown["result"],
        }
        return {"jobs": [shown]}

    def list_artifacts(self, arn: str, type: str) -> dict[str, Any]:
        run = self.runs[arn.replace(":job:", ":run:")]
        number = run.shown["arn"].rpartition("/")[2]
        found = []
        for kind in run.artifacts if type == "FILE" else ():
            shown = {
                "arn": f"{ACCOUNT}:artifact:{number}/{kind}",
                "name": kind.title(),
                "type": kind,
                "extension": "zip",
            }
            found.append(shown | {"url": f"{self.url}/artifact/{number}/{kind}?X-Amz-Signature=secret"})
        return {"artifacts": found}

    # ---- What goes on there -----------------------------------------------------------------------------------------

    def take(self, number: str, content: bytes) -> None:
        with self._lock:
            upload = next(one for arn, one in self.uploads.items() if arn.endswith(f"/{number}"))
            upload.content = content
            upload.shown["status"] = "PROCESSING"
            self.put.append(len(content))

    def artifact(self, number: str, kind: str) -> bytes:
        return next(run.artifacts[kind] for arn, run in self.runs.items() if arn.endswith(f"/{number}"))

    def _look_into(self, upload: Upload) -> None:
        assert upload.content is not None
        refused = self.refused
        if upload.shown["type"].endswith("_SPEC"):
            refused = None
            yaml.safe_load(upload.content)
        elif not zipfile.is_zipfile(io.BytesIO(upload.content)):
            refused = "We could not open your test ZIP file."
        upload.shown |= {"status": "SUCCEEDED"} if refused is None else {"status": "FAILED", "message": refused}

    def _uploaded(self, arn: str, kind: str) -> bytes:
        upload = self.uploads[arn]
        assert (upload.shown["type"], upload.shown["status"]) == (kind, "SUCCEEDED")
        assert upload.content is not None
        return upload.content

    def _execute(self, run: Run, given: Given) -> None:
        done = self.host(given)
        self.wait.wait()
        with self._lock:
            if run.shown["status"] == "COMPLETED":
                return  # it was stopped
            archive = done.archive if done.files is None else archived(done.files)
            if archive is not None:
                run.artifacts["CUSTOMER_ARTIFACT"] = archive
            run.artifacts["TESTSPEC_OUTPUT"] = done.output.encode()
            run.shown |= {"status": "COMPLETED", "result": done.result, "message": done.message}


def archived(files: Mapping[str, bytes]) -> bytes:
    """As Device Farm packs what lies in the log folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, one in files.items():
            archive.writestr(f"Host_Machine_Files/$DEVICEFARM_LOG_DIR/{name}", one)
    return content.getvalue()


def _now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def _page(key: str, found: list[dict[str, Any]], token: str) -> dict[str, Any]:
    """One at a time, so that what is listed is asked for to its end."""
    number = int(token)
    more = {"nextToken": f"{number + 1:04d}"} if number + 1 < len(found) else {}
    return {key: found[number : number + 1]} | more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Farm

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].removeprefix("DeviceFarm_20150623.")
        lost = self.service.is_lost(operation)
        if lost is False:
            return self._cut()
        status, told = self.service.answer(operation, json.loads(request))
        return self._cut() if lost else self._send(status, json.dumps(told, default=str).encode())

    def do_PUT(self) -> None:
        assert self.headers["Content-Type"] == "application/octet-stream"
        size = int(self.headers["Content-Length"])
        lost = self.service.is_lost("PUT")
        if lost is False:
            self.rfile.read(size // 2)
            return self._cut()
        number = self.path.partition("?")[0].rpartition("/")[2]
        self.service.take(number, self.rfile.read(size))
        return self._cut() if lost else self._send(200, b"")

    def do_GET(self) -> None:
        _, _, number, kind = self.path.partition("?")[0].split("/")
        content = self.service.artifact(number, kind)
        if self.service.is_lost("GET") is None:
            return self._send(200, content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        return self._cut()

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)

    def log_message(self, *_: object) -> None:
        pass


# ---- A test host ----------------------------------------------------------------------------------------------------

_PIP = '''\
"""Links what requirements.txt names from this environment in place of downloading it."""
import argparse, importlib.metadata, pathlib, re
parser = argparse.ArgumentParser()
for flag in ("--quiet", "--no-deps", "--require-hashes"):
    parser.add_argument(flag, action="store_true", required=True)
parser.add_argument("--only-binary", choices=[":all:"], required=True)
parser.add_argument("--target", type=pathlib.Path, required=True)
parser.add_argument("-r", type=pathlib.Path, required=True)
chosen = parser.parse_args()
for line in chosen.r.read_text().splitlines():
    if line.startswith("#"):
        continue
    name = re.fullmatch(r"([a-z0-9-]+)==[0-9][0-9a-z.]* --hash=sha256:[0-9a-f]{64}", line)[1]
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
        (chosen.target / top).symlink_to(distribution.locate_file(top).resolve())
'''


@dataclass(frozen=True)
class TestHost:
    """With a phone at the adb server of that port. Its Python knows the standard library alone."""

    __test__ = False
    folder: Path
    serial: str
    port: int
    shared: Path
    """The phone's /sdcard."""

    def __call__(self, given: Given) -> Done:
        place = self.folder / f"run{len(list(self.folder.iterdir()))}"
        package, log, programs = place / "package", place / "log", place / "bin"
        for one in (package, log, programs):
            one.mkdir(parents=True)
        _unpack(given.package, package)
        if given.extra is not None:
            _unpack(given.extra, self.shared)
        self._programs(programs)
        variables = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(place),
            "TMPDIR": str(place),
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "DEVICEFARM_DEVICE_UDID": self.serial,
            "DEVICEFARM_TEST_PACKAGE_PATH": str(package),
            "DEVICEFARM_LOG_DIR": str(log),
        }
        commands = _commands(given.spec)
        done = subprocess.run(
            ["bash", "-c", "\n".join(commands)], env=variables, cwd=place, capture_output=True, text=True, check=False
        )
        files = {path.name: path.read_bytes() for path in log.iterdir()}
        return Done("FAILED" if done.returncode else "PASSED", files, output=done.stdout + done.stderr)

    def _programs(self, folder: Path) -> None:
        (folder / "pip.py").write_text(_PIP)
        python = f'if [ "$1 $2" = "-m pip" ]; then shift 3; exec {sys.executable} {folder}/pip.py "$@"; fi\n'
        stubs = {
            "devicefarm-cli": '[ "$*" = "use python 3.11" ]',
            "python": f'{python}exec {sys.executable} -S "$@"',
        }
        for name, script in stubs.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)


def _commands(text: str) -> list[str]:
    spec = yaml.safe_load(text)
    assert (spec["version"], spec["android_test_host"]) == (0.1, "amazon_linux_2")
    assert spec["artifacts"] == ["$DEVICEFARM_LOG_DIR"]
    assert set(spec) == {"version", "android_test_host", "phases", "artifacts"}
    assert set(spec["phases"]) <= {"install", "pre_test", "test", "post_test"}
    return [command for phase in spec["phases"].values() for command in phase["commands"]]


def _unpack(archive: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        opened.extractall(folder)
