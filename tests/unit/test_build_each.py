"""Many plans with one engine: in their order, and what they have in common once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slmc import pipeline
from slmc.engine import LOCAL, Local
from slmc.errors import CompileError
from slmc.store import Store


class Wide(Local):
    at_once = 2


def plan(name: str, merge: str) -> Any:
    return SimpleNamespace(name=name, merge=SimpleNamespace(key=merge))


PLANS = [plan("a", "one"), plan("b", "two"), plan("c", "one"), plan("bad", "two"), plan("d", "two")]


@pytest.mark.parametrize("engine", [LOCAL, Wide()])
def test_plans_are_built_in_groups(engine: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    building: list[str] = []
    together: set[frozenset[str]] = set()
    lock = threading.Lock()

    def build(plan: Any, *given: object, **named: object) -> str:
        with lock:
            building.append(plan.name)
            together.add(frozenset(building))
        time.sleep(0.1)
        with lock:
            building.remove(plan.name)
        if plan.name == "bad":
            raise CompileError("no")
        return str(plan.name)

    monkeypatch.setattr(pipeline, "build", build)
    made = list(pipeline.build_each(PLANS, Store(tmp_path), tmp_path, engine=engine))
    assert [one if isinstance(one, str) else type(one) for one in made] == ["a", "b", "c", CompileError, "d"]
    assert max(map(len, together)) == engine.at_once
    assert not [names for names in together if {"a", "c"} <= names or {"b", "bad"} <= names]


def test_a_bug_is_no_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*given: object, **named: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "build", build)
    for engine in (LOCAL, Wide()):
        with pytest.raises(ZeroDivisionError):
            list(pipeline.build_each(PLANS, Store(tmp_path), tmp_path, engine=engine))
