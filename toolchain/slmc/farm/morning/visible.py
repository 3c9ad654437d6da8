"""Text of an item as a page shows it: what has no look of its own, or would turn the text around, is named."""

from __future__ import annotations

import re

from markupsafe import Markup

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Controls, ends of lines and paragraphs, and what embeds or overrides a direction."""


def visible(text: str) -> Markup:
    """Isolated from the text around it, in the direction of its own letters."""
    if not text:
        return Markup('<i class="soft">empty</i>')
    parts, at = [], 0
    for found in _UNSEEN.finditer(text):
        parts += [Markup.escape(text[at : found.start()]), _name(found.group())]
        at = found.end()
    return Markup("<bdi>{}</bdi>").format(Markup("").join([*parts, text[at:]]))


def _name(character: str) -> Markup:
    if character == "\n":
        return Markup('<i class="soft">↵</i> ')
    return Markup('<i class="soft">{}</i>').format(ascii(character)[1:-1])
