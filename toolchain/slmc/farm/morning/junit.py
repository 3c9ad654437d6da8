"""The night as JUnit XML, which every CI shows: a test case a series that was asked.

A promise broken, or a change for the worse told tonight, is a failure; not run an error; what can't be told is skipped,
with its reason. What has been worse since an earlier night is no failure of this one: its case says so beside.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from slmc.farm.morning import words
from slmc.farm.morning.standing import Morning, Standing, State

KINDS: dict[State, str] = {"fail": "failure", "regression": "failure", "not run": "error", "can't tell": "skipped"}
_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def junit(morning: Morning) -> str:
    asked = morning.asked
    seconds = (morning.night.finished - morning.night.started).total_seconds()
    counts: dict[str, Any] = {
        "tests": str(len(asked)),
        "failures": str(_count(asked, "failure")),
        "errors": str(_count(asked, "error")),
        "skipped": str(_count(asked, "skipped")),
        "time": f"{seconds:.0f}",
    }
    root = ElementTree.Element("testsuites", name="slmc nightly", **counts)
    suite = ElementTree.SubElement(
        root, "testsuite", name=morning.night.id, timestamp=morning.night.started.isoformat(), **counts
    )
    for one in asked:
        _case(suite, morning, one)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _count(asked: list[Standing], kind: str) -> int:
    return sum(KINDS.get(one.tonight) == kind for one in asked)


def _case(suite: ElementTree.Element, morning: Morning, one: Standing) -> None:
    name = f"{one.series.device} ({one.series.target}, {one.series.backend})"
    case = ElementTree.SubElement(suite, "testcase", classname=_text(one.series.recipe), name=_text(name), time="0")
    told = [_text(reason) for reason in words.reasons(morning.past, one)]
    if (kind := KINDS.get(one.tonight)) is not None:
        result = ElementTree.SubElement(case, kind, message=told[0], type=one.tonight)
        result.text = "\n".join(told)
    elif told:
        ElementTree.SubElement(case, "system-out").text = "\n".join(told)


def _text(value: str) -> str:
    return _REFUSED.sub("\ufffd", value)
