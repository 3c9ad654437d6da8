from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slmc.errors import StoreError
from slmc.store import SCRATCH_S, Stage, Store

STAGE = Stage("merge", {"base": "abc", "adapter": None})


def write_hello(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("hello")


def fail_otherwise(folder: Path) -> None:
    raise RuntimeError("other")


def refuse(folder: Path) -> None:
    raise AssertionError("made again")


def leftovers(store: Store) -> list[Path]:
    return [path for path in (store.root / "work").rglob("*") if path.is_file()]


def test_a_result_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.obtain(STAGE, write_hello)
    second = store.obtain(STAGE, refuse)
    assert (first.reused, second.reused) == (False, True)
    assert (second.folder / "sub" / "file").read_text() == "hello"
    assert store.has(STAGE)


def test_what_a_result_took_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.obtain(STAGE, lambda folder: (write_hello(folder), time.sleep(0.2))[0])
    assert made.seconds >= 0.2
    assert store.obtain(STAGE, refuse).seconds == made.seconds


def test_scratch_outlives_a_failure_and_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        with store.scratch(STAGE) as scratch:
            (scratch / "layer-0").write_text("done")
            raise KeyboardInterrupt

    def go_on(folder: Path) -> None:
        with store.scratch(STAGE) as scratch:
            (folder / "layers").write_text((scratch / "layer-0").read_text())

    with pytest.raises(KeyboardInterrupt):
        store.obtain(STAGE, fail)
    with pytest.raises(RuntimeError, match="other"):
        store.obtain(Stage("other", {}), fail_otherwise)
    assert (store.obtain(STAGE, go_on).folder / "layers").read_text() == "done"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_scratch_that_nobody_went_on_with_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, new = (tmp_path / "scratch" / name for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "layer-0").write_text("done")
    os.utime(old, (time.time() - SCRATCH_S - 60,) * 2)
    store.obtain(STAGE, write_hello)
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["new"]


def test_other_inputs_are_another_result() -> None:
    assert Stage("merge", {"base": "abc", "adapter": "x"}).key != STAGE.key
    assert Stage("other", STAGE.inputs).key != STAGE.key
    assert Stage("merge", {"adapter": None, "base": "abc"}).key == STAGE.key


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        write_hello(folder)
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        store.obtain(STAGE, fail)
    assert not store.has(STAGE)
    assert leftovers(store) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fill(folder: Path) -> None:
        write_hello(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="no space is left"):
        store.obtain(STAGE, fill)
    assert leftovers(store) == []
    assert not store.obtain(STAGE, write_hello).reused


def test_an_error_that_is_not_the_stores_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Store(tmp_path).obtain(STAGE, lambda folder: (folder / "absent").unlink())


@pytest.mark.parametrize("what", ["changed", "added", "gone", "seal"])
def test_an_entry_changed_by_hand_is_caught(tmp_path: Path, what: str) -> None:
    store = Store(tmp_path)
    folder = store.obtain(STAGE, write_hello).folder
    if what == "changed":
        (folder / "sub" / "file").write_text("hallo")
    elif what == "added":
        (folder / "other").write_text("")
    elif what == "gone":
        (folder / "sub" / "file").unlink()
    else:
        (folder / ".stage.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        store.obtain(STAGE, refuse)


def child(root: Path, body: str) -> subprocess.Popen[bytes]:
    code = f"""
import time
from pathlib import Path
from slmc.store import SCRATCH_S, Stage, Store
def make(folder):
    (folder / 'half').write_text('half')
    Path({str(root / "begun")!r}).touch()
    {body}
print(Store(Path({str(root / "store")!r})).obtain(Stage("merge", {{"base": "abc", "adapter": None}}), make).reused)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_leaves_nothing_half_made_and_the_next_resumes(tmp_path: Path, how: signal.Signals) -> None:
    process = child(tmp_path, "time.sleep(60)")
    wait_for(tmp_path / "begun")
    os.kill(process.pid, how)
    process.communicate()
    store = Store(tmp_path / "store")
    assert not store.has(STAGE)
    entry = store.obtain(STAGE, write_hello)
    assert not entry.reused
    assert not (entry.folder / "half").exists()
    assert leftovers(store) == []


def test_two_builds_at_once_make_it_once(tmp_path: Path) -> None:
    first = child(tmp_path, "time.sleep(0.5)")
    wait_for(tmp_path / "begun")
    second = child(tmp_path, "raise SystemExit('made twice')")
    assert first.communicate()[0].split() == [b"False"]
    assert second.communicate()[0].split() == [b"True"]
