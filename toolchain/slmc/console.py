"""What a person sees: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

# A file or a pipe has no width of its own, and a name cut short is of no use to whoever reads it.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def muted() -> Iterator[None]:
    """What C++ writes to standard error is dropped."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def table(*columns: str) -> Table:
    """A table in the house's one look."""
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)


Advance = Callable[[int], None]
"""Tell a progress bar that so many more units are done."""


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A progress bar on standard error, gone when done; silent where that is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)


class Finished(Protocol):
    """What a step reports: whether its result was there already."""

    @property
    def reused(self) -> bool: ...


Result = TypeVar("Result", bound=Finished)


class Tell(Protocol):
    """Passes a step's result through and tells that it is there."""

    def __call__(self, result: Result) -> Result: ...


@contextmanager
def step(name: str) -> Iterator[Tell]:
    """One line on standard error for a step of a build: its name, how it went, and the seconds it took."""
    begun = time.monotonic()

    def tell(result: Result) -> Result:
        how = "in the store" if result.reused else f"{time.monotonic() - begun:.1f} s"
        err.print(f"  [green]✓[/] {name:<10} [dim]{how}[/]")
        return result

    try:
        yield tell
    except BaseException:
        err.print(f"  [red]✗[/] {name:<10} [dim]after {time.monotonic() - begun:.1f} s[/]")
        raise
