"""The night in a few lines: Markdown for a pull request, and plain text for a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence

from slmc.farm.morning import words
from slmc.farm.morning.standing import STATES, Morning, Standing
from slmc.farm.morning.stories import Story, stories

MOST, NAMED = 20, 10
"""Rows and stories, and series that a story names; more than these nobody reads in a pull request."""
_SPECIAL = re.compile(r"([\\`*_\[\]<>!|~&$]|:(?=//)|(?<=www)\.)")


def summary(morning: Morning) -> str:
    """Changes first, then what is not a pass, the worst first."""
    parts = [f"## Night {markdown(morning.night.id)}", markdown(words.headline(morning))]
    told = stories(morning)
    for title in dict.fromkeys(story.title for story in told):
        lines = [_line(story) for story in told if story.title == title]
        parts.append("\n".join([f"**{title}**", "", *lines[:MOST], *_more(lines)]))
    if not told:
        parts.append("Nothing changed that the test can tell.")
    rest = sorted((one for one in morning.standings if one.state != "pass"), key=lambda one: STATES.index(one.state))
    if rest:
        rows = [_row(morning, one) for one in rest[:MOST]]
        header = ["| recipe | device | verdict | accuracy | time | why |", "| --- | --- | --- | ---: | ---: | --- |"]
        parts += ["\n".join([*header, *rows]), *_more(rest)]
    return "\n\n".join(parts) + "\n"


def first_lines(morning: Morning, most: int = 10) -> list[str]:
    """Plain text: the counts, then news, the worst first."""
    told = stories(morning)
    lines = [f"{morning.night.id}: {words.headline(morning)}"]
    lines += [f"{story.standings[0].state}: {_named(story)}: {'; '.join(story.reasons)}" for story in told[:most]]
    return lines + ([f"and {len(told) - most} more"] if len(told) > most else [])


def markdown(text: str) -> str:
    """Any text on one line, with nothing that GitHub would take for markup, a link, a mention or an issue."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    # Mentions and issues are found behind the markup, where a backslash is gone: a joiner without width parts them.
    return re.sub("([@#])", "\\1\u2060", escaped)


def _line(story: Story) -> str:
    why = markdown("; ".join(story.reasons))
    return f"- **{markdown(story.standings[0].state)}** {markdown(_named(story))}: {why}"


def _named(story: Story) -> str:
    """The first series by device, and how many more."""
    places = [f"{', '.join(_recipes(story, found))} on {device}" for device, found in story.places(NAMED)]
    return "; ".join(places) + story.more(NAMED) + (f" ({story.kind})" if story.kind else "")


def _recipes(story: Story, found: Sequence[Standing]) -> list[str]:
    return [one.series.recipe + ("" if story.kind else f" ({words.kind(one)})") for one in found]


def _row(morning: Morning, one: Standing) -> str:
    reasons = words.reasons(morning.past, one)
    if one.state == "fail" and one.run is not None and one.run.ladder is not None:
        reasons.append(words.lost(one.run.ladder))
    why = "; ".join(filter(None, reasons))
    cells = (one.series.recipe, one.series.device, one.state, words.accuracy(one), words.speed(one), why)
    return f"| {' | '.join(map(markdown, cells))} |"


def _more(found: Sequence[object]) -> list[str]:
    return [f"and {len(found) - MOST} more"] if len(found) > MOST else []
