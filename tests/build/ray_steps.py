"""Steps that the cluster's tests send to its machines, which import them from here."""

from __future__ import annotations

import os
import time
from pathlib import Path

from slmc.errors import RecipeError, StoreError
from slmc.plan import Plan
from slmc.store import Entry, Stage, Store


def counted(store: Store, name: str, folder: Path, seconds: float = 0.0) -> Entry:
    """A stage that takes so long; each make leaves a mark with its process in `folder`, which all can see."""

    def make(work: Path) -> None:
        (folder / f"{name}.{os.getpid()}").write_text(str(store.root))
        (work / "file").write_text(name)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)

    return store.obtain(Stage(name, {}), make)


def both(store: Store, folder: Path, seconds: float) -> str:
    """Two stages in one step."""
    counted(store, "earlier", folder)
    return (counted(store, "later", folder, seconds).folder / "file").read_text()


def stuck(store: Store, folder: Path) -> Entry:
    """A stage that nothing but its process's end ends."""

    def make(work: Path) -> None:
        (folder / f"stuck.{os.getpid()}").touch()
        time.sleep(600)

    return store.obtain(Stage("stuck", {}), make)


def read(entry: Entry) -> tuple[str, Path]:
    return (entry.folder / "file").read_text(), entry.folder


def faulty(plan: Plan) -> None:
    """As a step tells that an item of the recipe is wrong."""
    raise RecipeError("no label", where=f"{plan.recipe.file('data/eval.jsonl')}:3", todo="look there")


def stored_wrong(store: Store) -> None:
    raise StoreError("damaged", where=store.root / "merge" / "x", todo=f"rm -r '{store.root / 'merge' / 'x'}'")


def bug() -> None:
    raise ZeroDivisionError("a fault of slmc's own")


def devices() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def kill_worker() -> None:
    os.kill(os.getpid(), 9)
