"""What runs the steps of a build: this process, one after another, or another engine behind the same Protocol.

A step is a function of the module level whose arguments and result are what flows through a build: plans, the
store, artifacts, entries, paths into the store. Its results are in the store, so that a step that is run again
finds what it made before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Protocol, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Engine(Protocol):
    @property
    def at_once(self) -> int:
        """How many builds are worth running side by side."""
        ...

    def start(
        self, name: str, step: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        """Begin a step; waiting for it raises what the step raised, wherever it ran."""
        ...


class Local:
    """In this process: a step is done when `start` returns. Each has all cores, so side by side would gain little."""

    at_once = 1

    def start(
        self, name: str, step: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        done: Future[Result] = Future()
        done.set_result(step(*given, **named))
        return done


LOCAL: Engine = Local()
