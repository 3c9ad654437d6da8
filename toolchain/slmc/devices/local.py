"""This machine's own shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from slmc.devices.transport import Output
from slmc.errors import DeviceError


class LocalTransport:
    address = "this machine"

    def execute(self, script: str, timeout_s: float = 60) -> Output:
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", script],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=timeout_s,
                start_new_session=True,  # Ctrl-C is for slmc, which ends what it started
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"a command took longer than {timeout_s:g} s", where=self.address) from None
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode  # a signal, as a shell has it
        return Output(code, *(part.decode(errors="replace") for part in (done.stdout, done.stderr)))

    def send(self, content: bytes, path: str) -> None:
        try:
            Path(path).write_bytes(content)
        except OSError as error:
            raise DeviceError(f"can't be written: {error.strerror}", where=f"{self.address}: {path}") from None

    def fetch(self, path: str, to: Path) -> None:
        try:
            shutil.copyfile(path, to)
        except OSError as error:
            to.unlink(missing_ok=True)
            raise DeviceError(f"can't be read: {error.strerror}", where=f"{self.address}: {path}") from None

    def close(self) -> None:
        pass
