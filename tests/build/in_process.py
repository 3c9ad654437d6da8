"""A backend's programs run in the tests' own process: each would load its compiler anew for every tiny model."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from slmc.backends import child


def lines(module: str, arguments: Sequence[str], *, seconds: float = 0.0) -> Iterator[dict[str, Any]]:
    """As `child.lines`, for as long as it takes."""
    program, told = importlib.import_module(f"slmc.backends.{module}"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setattr(sys, "argv", [module, *arguments])
        program.main()
    for line in told.getvalue().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


@contextlib.contextmanager
def programs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "lines", lines)
        yield
