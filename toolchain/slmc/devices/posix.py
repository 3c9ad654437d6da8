"""A device of any machine with a POSIX shell: files by their digests, a program that outlives the connection.

ROOT/files/SHA256    what was brought, and SHA256.part of what came in part
ROOT/job/NAME        links to it, and what the program writes
ROOT/run/TOKEN/      of the program that was started last: pid, out, and code once it has ended
"""

from __future__ import annotations

import math
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from slmc import console, digest
from slmc.devices.device import Facts, File, State, check_name
from slmc.devices.patience import PATIENCE_S, Clock, Patience
from slmc.devices.platforms import platform_of
from slmc.devices.transport import Output, Transport
from slmc.errors import DeviceError, InputError
from slmc.runners.contract import Failure
from slmc.runners.files import partial_path
from slmc.runners.launch import TAIL, ending

PIECE = 8 << 20
"""Bytes that go at once: what a lost connection can cost."""
POLL_S = 2.0
START_S = 60.0
"""By then a program that was started has a number, or the device was restarted before it had."""
DIGEST_S = 600.0
"""For the digests of all files on a slow card."""
_DIGEST = 'sha256sum() { command sha256sum "$@" 2>/dev/null || shasum -a 256 "$@"; }'
"""Macs have another program for it."""


class PosixDevice:
    """Raises InputError for a root that is not an absolute path."""

    def __init__(
        self, name: str, transport: Transport, root: str, *, patience_s: float = PATIENCE_S, clock: Clock | None = None
    ) -> None:
        if not PurePosixPath(root).is_absolute() or root == "/":
            raise InputError(f"the folder {root!r} of device {name}", expected="an absolute path, of slmc alone")
        self.name = name
        self._transport = transport
        self._root = root.rstrip("/")
        self._clock = clock or Clock()
        self._patiently = Patience(patience_s, self._clock)

    def probe(self) -> Facts:
        return platform_of(self._told).facts(self._told)

    def state(self) -> State:
        self._done(f"mkdir -p {self._quoted()}")
        return platform_of(self._told).state(self._told, self._root)

    # ---- Files ------------------------------------------------------------------------------------------------------

    def push(self, files: Mapping[str, File]) -> None:
        for name in files:
            check_name(name)
        wanted = {file.sha256: file.path for file in files.values()}
        self._stop()
        self._done(f"mkdir -p {self._quoted('files')} {self._quoted('run')} && rm -rf {self._quoted('job')}")
        there = self._digests()
        self._remove(there, wanted)
        missing = {sha256: path for sha256, path in wanted.items() if there.get(sha256) != sha256}
        total = sum(path.stat().st_size for path in missing.values())
        with console.progress(f"sending to {self.name}", total) as advance:
            for sha256, path in missing.items():
                self._send(path, sha256, advance)
        self._lay_out(files)

    def pull(self, name: str, to: Path) -> None:
        check_name(name)
        place = self._quoted("job", name)
        part, piece = to.with_name(f"{to.name}.part"), to.with_name(f"{to.name}.piece")
        try:
            size = int(self._told(f"wc -c < {place}"))
            with part.open("wb") as file:
                for number in range(math.ceil(size / PIECE)):
                    self._fetch(place, number, piece)
                    file.write(piece.read_bytes())
            left = self._quoted("files", "piece")
            told = self._told(f"{_DIGEST}; rm -f {left}; sha256sum < {place}", DIGEST_S).split()[0]
            if digest.of_file(part) != told:
                raise DeviceError(f"{name} came otherwise than it is there", where=self._where())
            part.replace(to)
        except OSError as error:
            raise DeviceError(f"can't be written here: {error.strerror}", where=to) from None
        finally:
            part.unlink(missing_ok=True)
            piece.unlink(missing_ok=True)

    def clear(self) -> None:
        self._stop()
        whole = " ".join(self._quoted(name) for name in ("files", "job", "run"))
        self._done(f"rm -rf {whole} && {{ rmdir {self._quoted()} 2>/dev/null; true; }}")

    def close(self) -> None:
        self._transport.close()

    def _digests(self) -> dict[str, str]:
        """By the name of each file that is there; of a part the digest is not asked for."""
        listing = self._told(
            f"{_DIGEST}; cd {self._quoted('files')} && for f in *; do case $f in "
            '"*") ;; *.part|piece) echo "- $f" ;; *) echo "$(sha256sum < "$f" | cut -c 1-64) $f" ;; esac; done',
            DIGEST_S,
        )
        return {name: sha256 for sha256, _, name in (line.partition(" ") for line in listing.splitlines())}

    def _remove(self, there: Mapping[str, str], wanted: Mapping[str, Path]) -> None:
        """What is damaged or of another job; a part of what is wanted stays."""
        kept = {name for sha256 in wanted for name in (sha256, f"{sha256}.part")}
        gone = [name for name, sha256 in there.items() if name not in kept or sha256 not in (name, "-")]
        if gone:
            self._done(f"cd {self._quoted('files')} && rm -f -- {' '.join(map(shlex.quote, gone))}")

    def _send(self, path: Path, sha256: str, advance: Callable[[int], None]) -> None:
        part, piece = f"{sha256}.part", f"{self._root}/files/piece"
        size, done = path.stat().st_size, self._size(part)
        if done > size or (done % PIECE and done != size):
            self._done(f"rm -f {self._quoted('files', part)}")
            done = 0
        advance(done)
        with path.open("rb") as file:
            file.seek(done)
            while content := file.read(PIECE):
                self._patiently(partial(self._transport.send, content, piece))
                self._add(part, done // PIECE, done + len(content))
                done += len(content)
                advance(len(content))
        self._finish(part, sha256, path)

    def _add(self, part: str, number: int, size: int) -> None:
        """Put a piece in its place, however often the connection is lost meanwhile."""
        self._done(
            f"cd {self._quoted('files')} && if [ -e piece ]; then "
            f"dd if=piece of={part} bs={PIECE} seek={number} conv=notrunc && rm piece || exit 1; fi; "
            f'[ "$(wc -c < {part})" -eq {size} ]'
        )

    def _fetch(self, place: str, number: int, to: Path) -> None:
        """A piece of what is there."""
        self._done(f"dd if={place} of={self._quoted('files', 'piece')} bs={PIECE} skip={number} count=1")
        self._patiently(lambda: self._transport.fetch(f"{self._root}/files/piece", to))

    def _finish(self, part: str, sha256: str, path: Path) -> None:
        script = (
            f"{_DIGEST}; touch {self._quoted('files', part)}; cd {self._quoted('files')} && {{ [ -e {sha256} ] || {{ "
            f'[ "$(sha256sum < {part} | cut -c 1-64)" = {sha256} ] && chmod 755 {part} && mv {part} {sha256}; }}; }}'
        )
        if self._executed(script, DIGEST_S).code:
            self._done(f"rm -f {self._quoted('files', part)}")
            raise DeviceError(
                f"{path.name} arrived otherwise than it was vouched for", where=self._where(), expected=sha256
            )

    def _size(self, name: str) -> int:
        """Of a file that came in part; 0 where there is none."""
        return int(self._told(f"cd {self._quoted('files')} && if [ -e {name} ]; then wc -c < {name}; else echo 0; fi"))

    def _lay_out(self, files: Mapping[str, File]) -> None:
        folders = sorted({str(PurePosixPath("job", name).parent) for name in files} | {"job"})
        lines = [f"cd {self._quoted()}", f"mkdir -p -- {' '.join(map(shlex.quote, folders))}"]
        for name, file in files.items():
            lines.append(f"ln -sf {self._quoted('files', file.sha256)} {shlex.quote(f'job/{name}')}")
        self._done(" && ".join(lines))

    # ---- The program ------------------------------------------------------------------------------------------------

    def run(self, command: Sequence[str], result: str, timeout_s: float) -> Failure | None:
        check_name(result)
        token = secrets.token_hex(8)
        self._stop()
        self._start(command, token, result)
        failure = self._watch(token, result, timeout_s)
        if failure is None:
            return None
        tail = self._told(f"tail -c {TAIL} {self._quoted('run', token, 'out')} 2>/dev/null || true")
        return failure.model_copy(update={"stderr": tail.strip()})

    def _start(self, command: Sequence[str], token: str, result: str) -> None:
        """Starts it once, however often the connection is lost meanwhile."""
        program = shlex.join([f"{self._root}/job/{command[0]}", *command[1:]])
        unfinished = partial_path(Path(result)).as_posix()
        old = f"{self._quoted('run')}/* {shlex.quote(result)} {shlex.quote(unfinished)}"
        folder = self._quoted("run", token)
        # It lets go of the caller's outputs as a whole: Android's shell keeps copies, and adbd waits for every writer.
        apart = (
            f"exec > /dev/null 2>&1 < /dev/null; trap '' HUP; {program} > {folder}/out 2>&1 & p=$!; "
            f"echo $p > {folder}/pid; wait $p; echo $? > {folder}/code.part; mv {folder}/code.part {folder}/code"
        )
        first = f"rm -rf -- {old} && mkdir {folder} && {{ ( {apart} ) & }}"
        self._done(f"cd {self._quoted('job')} && {{ [ -e {folder} ] || {{ {first}; }}; }}")

    def _watch(self, token: str, result: str, timeout_s: float) -> Failure | None:
        start, gone = self._clock.now(), False
        while True:
            code, state, finished = self._progress(token, result)
            alive = state == "alive" or (state == "starting" and self._clock.now() - start <= START_S)
            if code is not None:
                return ending(code if code <= 128 else 0, code - 128 if code > 128 else None, finished)
            if gone and not alive:
                what = "is gone without an exit code, as where the device was restarted"
                return Failure(cause="no result", what=what, restarted=True)
            gone = not alive  # its code may be about to be written
            if self._clock.now() - start > timeout_s:
                self._stop()
                return Failure(cause="timeout", what=f"took longer than {timeout_s:g} s and was stopped")
            self._clock.sleep(POLL_S)

    def _progress(self, token: str, result: str) -> tuple[int | None, str, bool]:
        """The exit code if there is one; starting, alive or gone; and whether there is a finished result."""
        folder = self._quoted("run", token)
        told = self._told(
            f"cd {self._quoted('job')} && if [ ! -e {folder}/pid ]; then echo starting; "
            f"elif {self._runs(folder)}; then echo alive; else echo gone; fi; "
            f"cat {folder}/code 2>/dev/null; if [ -e {shlex.quote(result)} ]; then echo finished; fi; true"
        ).split()
        codes = [int(word) for word in told if word.isdigit()]
        return codes[0] if codes else None, told[0], "finished" in told

    def _runs(self, folder: str) -> str:
        """A condition, which sets p to the process. After a restart its number may be another's."""
        arguments = "{ tr '\\0' ' ' < /proc/$p/cmdline || ps -o args= -p $p; } 2>/dev/null"
        return f"p=$(cat {folder}/pid 2>/dev/null) && {arguments} | grep -qF {self._quoted('job')}/"

    def _stop(self) -> None:
        """End what was started, if it runs."""
        ours = self._runs('"$d"')
        self._done(f"for d in {self._quoted('run')}/*; do if {ours}; then kill -9 $p; fi; done; true")

    # ---- The shell --------------------------------------------------------------------------------------------------

    def _quoted(self, *names: str) -> str:
        return shlex.quote("/".join((self._root, *names)))

    def _where(self) -> str:
        return f"{self.name} ({self._transport.address})"

    def _executed(self, script: str, timeout_s: float = 60) -> Output:
        return self._patiently(lambda: self._transport.execute(script, timeout_s))

    def _done(self, script: str) -> None:
        self._told(script)

    def _told(self, script: str, timeout_s: float = 60) -> str:
        """What a script says. Raises DeviceError where it fails."""
        output = self._executed(script, timeout_s)
        if output.code:
            said = output.errors.strip() or output.text.strip() or "nothing"
            todo = "free some storage on the device" if "No space left" in said else None
            raise DeviceError(f"a command failed ({output.code}): {said[-TAIL:]}", where=self._where(), todo=todo)
        return output.text
