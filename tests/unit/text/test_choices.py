"""Choices as a tree, and as the numbers that the native library reads."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.errors import InputError
from slmc.text.choices import Branch, choices_bytes, tree

END = 9
CHOICES = st.lists(
    st.lists(st.integers(0, 4), max_size=6).map(lambda ids: (*ids, END)), min_size=1, max_size=12, unique=True
)


def read(content: bytes) -> tuple[list[int], list[tuple[int, ...]], list[tuple[int, ...]], list[int], list[int]]:
    """The head, nodes, twigs, ids and rows, by the layout alone."""
    head = list(struct.unpack_from("<6I", content))
    _, nodes, twigs, ids, places, _ = head
    words = struct.unpack_from(f"<{5 * nodes + 3 * twigs + ids + places}I", content, 24)
    rest = words[5 * nodes :]
    return (
        head,
        [words[5 * i : 5 * i + 5] for i in range(nodes)],
        [rest[3 * i : 3 * i + 3] for i in range(twigs)],
        list(rest[3 * twigs : 3 * twigs + ids]),
        list(rest[3 * twigs + ids :]),
    )


@given(choices=CHOICES)
def test_every_choice_is_found_by_its_ids(choices: list[tuple[int, ...]]) -> None:
    """From the first node along the twigs, each choice's ids are met in order."""
    if isinstance(tree(choices).choice, int):
        return  # a single choice has nothing to part from
    head, nodes, twigs, ids, rows = read(choices_bytes(choices, [str(number) for number in range(len(choices))]))
    assert head[0] == len(choices)
    assert rows == sorted({token for token, _, _ in twigs})
    found = {}

    def walk(number: int, before: tuple[int, ...]) -> None:
        _, begin, count, first, below = nodes[number]
        path = before + tuple(ids[begin : begin + count])
        for token, place, target in twigs[first : first + below]:
            assert rows[place] == token
            if target >= 1 << 31:
                found[target - (1 << 31)] = (*path, token)
            else:
                assert nodes[target][0] == number
                walk(target, path)

    walk(0, ())
    assert found.keys() == set(range(len(choices)))
    for number, path in found.items():
        assert choices[number][: len(path)] == path
    assert head[5] == max(len(node.path) for node in walked(tree(choices)))


def walked(node: Branch) -> list[Branch]:
    below = [found for child in node.below.values() if child.choice is None for found in walked(child)]
    return [node, *below]


def test_labels_that_part_too_late_are_refused() -> None:
    with pytest.raises(InputError, match="part after 131 tokens"):
        choices_bytes([(1, END), (2, *[3] * 130, 4, END), (2, *[3] * 130, 5, END)], ["a", "b", "c"])
