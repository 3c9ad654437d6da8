"""Choices as a tree of tokens, and their section of a task file."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from slmc.errors import InputError
from slmc.text.tables import NONE, strings_bytes

Ids = tuple[int, ...]
_LEAF = 1 << 31
_MOST_STEP, _MOST_PATH = 128, 4096  # native/search.h says why


@dataclass
class Branch:
    """A node of the tree where paths part, or where a choice ends."""

    path: Ids
    """From the prompt to here."""
    choice: int | None = None
    """The choice that ends here; then nothing is below."""
    below: dict[int, Branch] = field(default_factory=dict)
    """The next such node for each token that can follow."""


def tree(choices: Sequence[Ids]) -> Branch:
    """The first branch point. Raises InputError where a choice is the start of another."""
    if not choices or () in choices:
        raise InputError("no choices, or an empty one")
    ordered = sorted(range(len(choices)), key=lambda index: choices[index])
    # In order, a choice that is the start of any other is the start of the next one.
    for first, second in itertools.pairwise(ordered):
        if choices[second][: len(choices[first])] == choices[first]:
            raise InputError(f"choice {first} is the start of choice {second}")
    return _branch(choices, ordered, 0)


def _branch(choices: Sequence[Ids], indices: Sequence[int], depth: int) -> Branch:
    """The node where these choices, which agree up to a depth, part."""
    first = choices[indices[0]]
    if len(indices) == 1:
        return Branch(first, choice=indices[0])
    while all(choices[index][depth] == first[depth] for index in indices):
        depth += 1
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(choices[index][depth], []).append(index)
    below = {token: _branch(choices, group, depth + 1) for token, group in groups.items()}
    return Branch(first[:depth], below=below)


def choices_bytes(choices: Sequence[Ids], labels: Sequence[str]) -> bytes:
    """As native/search.h reads it, level by level:

    uint32 choices, nodes, twigs, ids, places, longest path; the nodes: parent, where their ids begin, how many, where
    their twigs begin, how many; the twigs: token, its place among all such tokens, node or choice; the ids; the token
    of each place; then the labels.
    """
    root = tree(choices)
    nodes = [root]
    parents = [NONE]
    twigs: list[tuple[int, int, int]] = []
    places = {token: place for place, token in enumerate(sorted(_tokens(root)))}
    table, ids = [], list[int]()
    for number, node in enumerate(nodes):  # grows as it is walked
        begun = len(nodes[parents[number]].path) if number else 0
        own = node.path[begun:]
        if (number and len(own) > _MOST_STEP) or len(node.path) > _MOST_PATH:
            raise InputError(f"labels part after {len(node.path)} tokens", expected=f"at most {_MOST_STEP} at a time")
        table.append((parents[number], len(ids), len(own), len(twigs), len(node.below)))
        ids += own
        for token, child in node.below.items():
            if child.choice is None:
                twigs.append((token, places[token], len(nodes)))
                nodes.append(child)
                parents.append(number)
            else:
                twigs.append((token, places[token], _LEAF | child.choice))
    deepest = max(len(node.path) for node in nodes)
    numbers = struct.pack("<6I", len(choices), len(nodes), len(twigs), len(ids), len(places), deepest)
    arrays = [np.array(table), np.array(twigs), np.array(ids), np.array(list(places))]
    packed = b"".join(array.astype("<u4").tobytes() for array in arrays)
    return numbers + packed + strings_bytes([label.encode() for label in labels])


def _tokens(node: Branch) -> set[int]:
    return {*node.below, *(token for child in node.below.values() for token in _tokens(child))}
