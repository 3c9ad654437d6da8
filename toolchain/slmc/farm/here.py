"""This machine asked of bundles that need more than `slm-run`: by their backend's own runner, in Python."""

from __future__ import annotations

from pathlib import Path

from slmc import rungs
from slmc.devices.opening import open_device
from slmc.errors import InputError
from slmc.farm.asking import Answered, Question, speed_of
from slmc.farm.interleaved import BUNDLE, CONTROL
from slmc.farm.sustained import Sustained
from slmc.on_device import TIMEOUT_S, Sent
from slmc.runners.launch import run
from slmc.store import Store

UNSUSTAINED = Sustained(None, None, "the runner in Python asks each item once")


class HereAsker:
    """An `Asker` that asks as the app rung does."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self._device = open_device("local", name=name)
        self._store = store

    def ask(self, question: Question, folder: Path) -> Answered:
        """Raises as an `Asker` does."""
        result, path = folder / "result.jsonl", folder / "round.jsonl"
        self._run(question.bundle, question.task, result)
        if question.control is None:
            return Answered(self._device.probe(), result, None)
        sides = {BUNDLE: question.bundle, CONTROL: question.control}

        def ask(name: str) -> None:
            self._run(sides[name], question.speed, path)

        speed = speed_of(question, path, ask, self._device.state, lambda _: UNSUSTAINED)
        return Answered(self._device.probe(), result, speed)

    def close(self) -> None:
        self._device.close()

    def _run(self, sent: Sent, workload: Path, result: Path) -> None:
        command = rungs.app_command(self._store, sent.bundle, sent.manifest)
        if command is None:
            raise InputError(
                f"this machine can't run a bundle of backend {sent.manifest.backend} as an app does",
                where=sent.bundle,
                expected="a task file in the bundle, and a machine that the backend runs on",
            )
        run(command, workload, result, timeout_s=TIMEOUT_S)
