"""A Ray cluster on this machine: each of its machines a raylet of its own, with a store folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
STARTED_S = 180.0


@dataclass
class Cluster:
    folder: Path
    environment: Mapping[str, str]
    """What reaches the shared store."""
    port: int = field(default_factory=lambda: _free_port())
    machines: dict[str, psutil.Popen] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def store(self, machine: str) -> Path:
        return self.folder / machine

    def start(self, machine: str, *more: str) -> None:
        """Begin to start a machine of one core; the first is the head."""
        first = not self.machines
        where = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder / 'ray'}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        command += [*(where if first else [f"--address={self.address}"]), "--object-store-memory=100000000", *more]
        own = {"SLMC_STORE": str(self.store(machine)), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        with (self.folder / f"{machine}.log").open("wb") as log:
            self.machines[machine] = psutil.Popen(
                command, env={**os.environ, **self.environment, **own}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def wait(self, machine: str) -> None:
        log, deadline = self.folder / f"{machine}.log", time.monotonic() + STARTED_S
        while "Ray runtime started" not in log.read_text():
            assert self.machines[machine].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    def workers(self, machine: str, title: str) -> list[psutil.Process]:
        """The machine's processes that run a task whose name begins so."""
        family = self.machines[machine].children(recursive=True)
        return [one for one in family if _title(one).startswith(f"ray::{title}")]

    def kill(self, machine: str) -> None:
        """As when its power is cut."""
        process = self.machines.pop(machine)
        for member in [*process.children(recursive=True), process]:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


@contextmanager
def cluster(environment: Mapping[str, str]) -> Iterator[Cluster]:
    # Sockets lie below: their paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), environment)
        try:
            yield made
        finally:
            for machine in reversed(list(made.machines)):
                made.kill(machine)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
