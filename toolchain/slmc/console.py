"""What a person sees: results on standard output, progress and notes on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


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
