"""A text cut by a compiled pattern, as pre-tokenizers cut it."""

from __future__ import annotations

from slmc.text.automaton import Automaton


def pieces(matcher: Automaton, text: str) -> list[str]:
    """A text cut at every match, as the library's Split does with "isolated"."""
    found, at, since = [], 0, 0
    while at < len(text):
        end = matcher.match(text, at)
        if end is None:
            at += 1
            continue
        found += [text[since:at], text[at:end]]
        at = since = end
    return [piece for piece in [*found, text[since:]] if piece]
