"""The demo recipe, built once for all tests that look at a whole bundle; fewer items than in earnest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from slmc.pipeline import Built, build
from slmc.plan import Plan, resolve
from slmc.recipe import load_recipe
from slmc.store import Store
from slmc.target import load_target, targets_folder

DEMO = targets_folder().parent / "recipes" / "intent-router"
LIMIT = 600


@dataclass(frozen=True)
class Demo:
    plan: Plan
    store: Store
    out: Path
    built: Built


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    root = tmp_path_factory.mktemp("demo")
    plan = resolve(load_recipe(DEMO), load_target("host"))
    store = Store(root / "store")
    return Demo(plan, store, root / "DIST", build(plan, store, root / "DIST", limit=LIMIT))
