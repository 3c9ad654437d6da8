"""The report as a folder, which is there whole or as it was before."""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

from slmc.errors import InputError
from slmc.farm.morning.junit import junit
from slmc.farm.morning.pages import pages
from slmc.farm.morning.report_json import report_of
from slmc.farm.morning.standing import Morning
from slmc.farm.morning.summary import summary
from slmc.strict import write_json

REPORT, JUNIT, SUMMARY = "report.json", "junit.xml", "summary.md"
_OURS = re.compile(r"(index|(recipe|device)-.*)\.html|report\.json|junit\.xml|summary\.md")


def write_site(morning: Morning, folder: Path) -> None:
    """Written beside the folder, then moved there; an earlier report makes way.

    Raises InputError for a folder that is something else, or that can't be written.
    """
    folder = folder.resolve()  # a link stays one
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        _check(folder)
        new.mkdir(parents=True)
        _write(morning, new)
        _move(new, folder)
    except OSError as error:
        raise InputError(f"the report can't be written: {error.strerror}", where=folder) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check(folder: Path) -> None:
    """It is replaced as a whole: nothing may be in it that no report has put there."""
    if not folder.exists():
        return
    others = (
        [path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)] if folder.is_dir() else ["a file"]
    )
    if others:
        raise InputError(
            "something that is no morning report stands where it goes",
            where=folder,
            expected=f"an empty folder or an earlier report; there is {min(others)}",
            todo="move it away, or name another folder",
        )


def _write(morning: Morning, folder: Path) -> None:
    for name, text in pages(morning):
        (folder / name).write_text(text, encoding="utf-8")
    write_json(report_of(morning), folder / REPORT)
    (folder / JUNIT).write_text(junit(morning), encoding="utf-8")
    (folder / SUMMARY).write_text(summary(morning), encoding="utf-8")


def _move(new: Path, folder: Path) -> None:
    old = new.with_name(f"{new.name}.old")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
