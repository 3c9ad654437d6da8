"""The device rung: a bundle's workload answered on a device by `slm-run`, the runner that is sent with it.

What runs there is what the bundle's manifest vouches for: the digests of its files and of the runner are asked of the
device before it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slmc import digest
from slmc.backends.tvm.runner import RUNNER
from slmc.backends.tvm.stored import stored_runner
from slmc.bundle.manifest import Manifest
from slmc.devices.device import Device, Facts, File
from slmc.errors import InputError
from slmc.models.compiled import WEIGHTS, read_compiled
from slmc.runners.launch import RunnerFailed
from slmc.store import Store
from slmc.target import load_target

MODEL, TASK, PREFIX, RESULT = "model.slm", "task.slm", "prefix.slm", "result.jsonl"
TIMEOUT_S = 2 * 3600.0


@dataclass(frozen=True)
class Sent:
    """A bundle for a device."""

    bundle: Path
    manifest: Manifest


class Visit:
    """Bundles and workloads on a device, by names of ours, to be asked in any order.

    `runner` has the program for a triple. Raises InputError for a bundle or device that it is not made for, and
    DeviceError.
    """

    def __init__(
        self, device: Device, runner: Callable[[str], Path], bundles: Mapping[str, Sent], workloads: Mapping[str, Path]
    ) -> None:
        for sent in bundles.values():
            check_bundle(sent.bundle, sent.manifest)
        self.facts = device.probe()
        self._device = device
        self._bundles = bundles
        files = {RUNNER: _file(runner(triple_of(self.facts)))}
        files |= {name: _file(path) for name, path in workloads.items()}
        for name, sent in bundles.items():
            files |= {f"{name}/{file}": found for file, found in files_of(sent).items()}
        device.push(files)

    def ask(
        self,
        bundle: str,
        workload: str,
        result: Path,
        *,
        threads: int | None = None,
        timeout_s: float = TIMEOUT_S,
        sustain_s: int = 0,
    ) -> None:
        """Have a bundle answer a workload, and go on with it for so many seconds. By default on half of the device's
        cores, four at most: slower ones hold the others up.

        Raises RunnerFailed where the runner brings no result, and DeviceError.
        """
        count = threads or min(4, max(1, self.facts.cores // 2))
        command = _command(bundle, self._bundles[bundle], workload, self.facts, count)
        if sustain_s:
            command += ["--sustain", str(sustain_s)]
        failure = self._device.run(command, RESULT, timeout_s + sustain_s)
        if failure is not None:
            raise RunnerFailed(failure, command)
        self._device.pull(RESULT, result)


def answer(device: Device, store: Store, bundle: Path, manifest: Manifest, workload: Path, result: Path) -> None:
    """Have a workload answered on a device, as `Visit` does it."""
    visit = Visit(
        device, partial(stored_runner, store), {"bundle": Sent(bundle, manifest)}, {"workload.jsonl": workload}
    )
    visit.ask("bundle", "workload.jsonl", result)


def check_bundle(bundle: Path, manifest: Manifest) -> None:
    """Raises InputError for one that the runner can't run."""
    if manifest.backend != "tvm":
        raise InputError(
            f"backend {manifest.backend} runs on a device within an app alone",
            where=bundle,
            expected="a bundle of backend tvm",
            todo="run the workload by the test in the bundle's Gradle module or Swift package",
        )
    if manifest.task is None:
        raise InputError(
            "the bundle has no task file, by which a device reads texts",
            where=bundle,
            todo="build it without `task_file: false`",
        )


def triple_of(facts: Facts) -> str:
    """What the runner is built for. Android runs Linux's, which is static; iOS has it in an app. Raises InputError for
    no such machine.
    """
    if facts.system == "ios":
        return load_target("ios").native[0].triple
    if facts.system == "macos" and facts.machine == "aarch64":
        return load_target("metal").native[0].triple
    if facts.system in ("linux", "android") and facts.machine in ("aarch64", "x86_64"):
        return f"{facts.machine}-linux-gnu"
    raise InputError(f"{facts.model} runs {facts.system} on {facts.machine}", expected="aarch64, or Linux on x86_64")


def files_of(sent: Sent) -> dict[str, File]:
    """What a device needs of a bundle, by its names there, with the manifest's digests."""
    manifest = sent.manifest
    names = {MODEL: f"{manifest.artifact}/{WEIGHTS}", TASK: manifest.task, PREFIX: manifest.prefix}
    return {
        name: File(sent.bundle / path, manifest.files[path].sha256) for name, path in names.items() if path is not None
    }


def artifact_of(manifest: Manifest) -> str:
    """The digest of the artifact's folder, from those that the manifest has of its files."""
    folder = f"{manifest.artifact}/"
    inside = {name: entry.sha256 for name, entry in manifest.files.items() if name.startswith(folder)}
    return digest.of_value({name.removeprefix(folder): sha256 for name, sha256 in inside.items()})


def _file(path: Path) -> File:
    return File(path, digest.of_file(path))


def _command(name: str, sent: Sent, workload: str, facts: Facts, threads: int) -> list[str]:
    compiled = read_compiled(sent.bundle / sent.manifest.artifact)
    options = {"model": f"{name}/{MODEL}", "task": f"{name}/{TASK}", "workload": workload, "result": RESULT}
    options |= {"device": facts.model, "os": facts.os, "artifact": artifact_of(sent.manifest)}
    options |= {"precision": compiled.precision, "activations": compiled.activations, "threads": str(threads)}
    if sent.manifest.prefix is not None:
        options["prefix"] = f"{name}/{PREFIX}"
    return [RUNNER, *(word for name, value in options.items() for word in (f"--{name}", value))]
