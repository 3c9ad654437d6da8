"""A device of an iPhone or iPad: its programs are parts of an app, which is sent an order and tells what came of it.

The app is launched, and not a test of xcodebuild's: so it goes on while the connection is lost, and no debugger lifts
iOS's limit on its memory. The files that it is brought lie in its own folder under their digests; it compares them
itself, each time before it runs anything.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from slmc import console, digest
from slmc.backends.tvm.runner import RUNNER
from slmc.devices.device import Facts, File, State, check_name
from slmc.devices.devicectl import Devicectl, MissingFile
from slmc.devices.patience import PATIENCE_S, Clock, Patience
from slmc.devices.runner_app import BUILD, FILES, JOB, ORDER, OUTPUT, SIGNAL, TOLD, App, Order, Told
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError
from slmc.runners.contract import Failure
from slmc.runners.launch import TAIL, ending
from slmc.strict import parse, write_json

POLL_S = 2.0
ANSWER_S = 600.0
"""For an order without a command: the digests of all files at most."""
RESTART_S = 60
"""A phone's own time of its start moves by so much where its clock is set."""


class AppleDevice:
    def __init__(
        self, name: str, phone: Devicectl, app: App, *, patience_s: float = PATIENCE_S, clock: Clock | None = None
    ) -> None:
        self.name = name
        self._phone = phone
        self._app = app
        self._clock = clock or Clock()
        self._patiently = Patience(patience_s, self._clock)
        self._is_installed = False
        self._booted: int | None = None
        self._files: dict[str, str] | None = None
        self._made: Mapping[str, str] = {}

    def probe(self) -> Facts:
        return self._told().phone.facts()

    def state(self) -> State:
        return self._told().moment.state()

    # ---- Files ------------------------------------------------------------------------------------------------------

    def push(self, files: Mapping[str, File]) -> None:
        for name in files:
            check_name(name)
        wanted = {name: file.sha256 for name, file in files.items() if name != RUNNER}
        told = self._told(wanted)
        if RUNNER in files and files[RUNNER].sha256 != told.runner:
            what = f"{self._app.path.name} was built of another slm-run than this slmc's"
            raise DeviceError(what, where=self._phone.address, expected=files[RUNNER].sha256, todo=BUILD)
        if told.missing:
            self._send({file.sha256: file.path for file in files.values()}, told.missing)
            told = self._told(wanted)
        for sha256 in told.missing:
            name = next(file.path.name for file in files.values() if file.sha256 == sha256)
            raise DeviceError(
                f"{name} arrived otherwise than it was vouched for", where=self._phone.address, expected=sha256
            )
        self._files = wanted

    def pull(self, name: str, to: Path) -> None:
        check_name(name)
        if name not in self._made:
            raise DeviceError(f"{name} was not written on the device", where=self._phone.address)
        part = to.with_name(f"{to.name}.part")
        self._patiently(lambda: self._phone.fetch(f"{JOB}/{name}", part, self._app.identifier))
        if digest.of_file(part) != self._made[name]:
            part.unlink()
            raise DeviceError(f"{name} came otherwise than it is there", where=self._phone.address)
        part.replace(to)

    def clear(self) -> None:
        """The app goes too, and its folder with it."""
        self._patiently(self._uninstall)
        self._is_installed = False

    def close(self) -> None:
        pass

    def _uninstall(self) -> None:
        """Once: it may have gone in the call that lost the connection."""
        if self._phone.installed(self._app.identifier):
            self._end()
            self._phone.uninstall(self._app.identifier)

    def _send(self, paths: Mapping[str, Path], missing: Sequence[str]) -> None:
        """A file that is lost on its way is sent again from its start: devicectl knows no pieces."""
        total = sum(paths[sha256].stat().st_size for sha256 in missing)
        with console.progress(f"sending to {self.name}", total) as advance:
            for sha256 in missing:
                self._put(paths[sha256], f"{FILES}/{sha256}")
                advance(paths[sha256].stat().st_size)

    # ---- The program ------------------------------------------------------------------------------------------------

    def run(self, command: Sequence[str], result: str, timeout_s: float) -> Failure | None:
        check_name(result)
        if command[0] != RUNNER or self._files is None:
            raise InputError(f"{command[0]} on {self.name}", expected=f"{RUNNER}, after its files were pushed")
        self._made = {}
        try:
            told = self._ordered(self._files, command, timeout_s)
        except _TimeUp:
            return self._failed(Failure(cause="timeout", what=f"took longer than {timeout_s:g} s and was stopped"))
        except _Gone:
            output = self._output()  # the app is asked once more, and begins a new one
            return self._death().model_copy(update={"stderr": output})
        if told.code is None:
            raise DeviceError("files were lost on the device", where=self._phone.address, todo="push them again")
        self._made = told.made
        failure = ending(told.code, None, result in told.made)
        return None if failure is None else self._failed(failure)

    def _failed(self, failure: Failure) -> Failure:
        return failure.model_copy(update={"stderr": self._output()})

    def _death(self) -> Failure:
        """Of what the app died without telling: a signal that it noted, or one that no program sees."""
        number = self._fetched(SIGNAL)
        if number and (failure := ending(0, number[0], finished=False)):
            return failure
        before = self._booted
        booted = self._told().phone.booted
        if before is not None and abs(booted - before) > RESTART_S:
            return Failure(cause="no result", what="is gone: the device was restarted", restarted=True)
        what = "is gone without a word, as where iOS ends an app that takes too much memory, or a person ends it"
        return Failure(cause="out of memory", what=what)

    def _output(self) -> str:
        return self._fetched(OUTPUT).decode(errors="replace").strip()[-TAIL:]

    # ---- Orders -----------------------------------------------------------------------------------------------------

    def _told(self, files: dict[str, str] | None = None) -> Told:
        """What the app tells of itself, and of files where they are given."""
        try:
            return self._ordered(files, None, ANSWER_S)
        except (_Gone, _TimeUp):
            todo = f"start {self._app.path.name} on the device by hand and see what it does, or read its crash report"
            raise DeviceError(f"{self._app.path.name} gives no answer", where=self._phone.address, todo=todo) from None

    def _ordered(self, files: dict[str, str] | None, command: Sequence[str] | None, timeout_s: float) -> Told:
        """Has an order done once, however often the connection is lost meanwhile. Raises _Gone, _TimeUp."""
        if not self._is_installed:
            self._patiently(lambda: self._phone.install(self._app.path))
            self._is_installed = True
        self._end()
        order = Order(token=secrets.token_hex(8), files=files, command=None if command is None else tuple(command))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "order.json"
            write_json(order, path)
            self._put(path, ORDER)
        self._patiently(lambda: self._phone.launch(self._app.identifier))
        self._wait(timeout_s)
        return self._answer(order.token)

    def _wait(self, timeout_s: float) -> None:
        start = self._clock.now()
        while self._processes():
            if self._clock.now() - start > timeout_s:
                self._end()
                raise _TimeUp
            self._clock.sleep(POLL_S)

    def _answer(self, token: str) -> Told:
        try:
            raw = json.loads(self._fetched(TOLD))
        except ValueError:
            raise _Gone from None
        if not isinstance(raw, dict) or raw.get("token") != token:
            raise _Gone
        told = parse(Told, raw, Path(TOLD), DeviceError)
        if told.left:
            todo = "leave the device alone, and set Settings > Display & Brightness > Auto-Lock to Never"
            raise DeviceError("the runner app was left, and ended", where=self._phone.address, todo=todo)
        if told.problem is not None:
            full = "free some storage on the device" if "space" in told.problem else None
            raise DeviceError(f"the runner app: {told.problem}", where=self._phone.address, todo=full)
        self._booted = told.phone.booted
        return told

    def _end(self) -> None:
        """End the app, if it runs."""
        for pid in self._processes():
            try:
                self._patiently(partial(self._phone.kill, pid))
            except LostConnection:
                raise
            except DeviceError:
                if pid in self._processes():
                    raise  # else it ended by itself meanwhile

    # ---- The phone --------------------------------------------------------------------------------------------------

    def _processes(self) -> list[int]:
        executable = f"{self._app.path.name}/{self._app.executable}"
        return self._patiently(lambda: self._phone.processes(executable))

    def _put(self, path: Path, to: str) -> None:
        self._patiently(lambda: self._phone.send(path, to, self._app.identifier))

    def _fetched(self, name: str) -> bytes:
        """Empty where there is none."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "fetched"
            try:
                self._patiently(lambda: self._phone.fetch(name, path, self._app.identifier))
            except MissingFile:
                return b""
            return path.read_bytes()


class _Gone(Exception):
    """The app ended without telling."""


class _TimeUp(Exception):
    """It took longer, and was ended."""
