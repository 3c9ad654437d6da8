"""Hash tables and tries that native/table.h looks things up in, as arrays of numbers.

All of them are open addressing with linear probing, four of five places taken. A key's first place is its hash's
upper 32 bits, scaled to the table's size.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

NONE = 0xFFFFFFFF
_MASK = 2**64 - 1
_PAIR_FACTOR = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, Knuth's multiplicative hashing
_FNV_BASIS, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3  # FNV-1a, 64 bits


def hash_bytes(content: bytes) -> int:
    value = _FNV_BASIS
    for byte in content:
        value = (value ^ byte) * _FNV_PRIME & _MASK
    return value


def hash_number(number: int) -> int:
    return number * _PAIR_FACTOR & _MASK


def _places(hashes: Sequence[int], capacity: int) -> list[int]:
    """A place for each key, in the order given."""
    taken = bytearray(capacity)
    places = []
    for value in hashes:
        place = (value >> 32) * capacity >> 32
        while taken[place]:
            place = place + 1 if place + 1 < capacity else 0
        taken[place] = 1
        places.append(place)
    return places


def _capacity(count: int) -> int:
    return count + count // 4 + 1


def words_table(words: Mapping[bytes, int]) -> bytes:
    """From bytes to an id: uint32 capacity, zero, then id + 1 in each place taken. The bytes are in another section."""
    capacity = _capacity(len(words))
    slots = np.zeros(capacity, "<u4")
    slots[_places([hash_bytes(word) for word in words], capacity)] = np.fromiter(words.values(), "<u4", len(words)) + 1
    return struct.pack("<II", capacity, 0) + slots.tobytes()


def pairs_table(pairs: Mapping[tuple[int, int], tuple[int, int]]) -> bytes:
    """From two ids to two numbers: uint32 capacity, zero, then uint32 [capacity, 4]; NONE first in an empty place."""
    capacity = _capacity(len(pairs))
    slots = np.zeros((capacity, 4), "<u4")
    slots[:, 0] = NONE
    if pairs:
        rows = np.array([(*key, *value) for key, value in pairs.items()], "<u4")
        slots[_places([hash_number(first << 32 | second) for first, second in pairs], capacity)] = rows
    return struct.pack("<II", capacity, 0) + slots.tobytes()


def trie_bytes(words: Iterable[tuple[bytes, int]]) -> bytes:
    """Words by their bytes, each with a value below 2^31:

    uint32 nodes, capacity; uint32 first[256], the root's child for each byte or 0; uint32 value[nodes], plus 1, or 0
    where no word ends; uint32 [capacity, 2]: node << 8 | byte, NONE in an empty place, and the child.
    """
    values, edges = [0], dict[int, int]()
    for word, value in words:
        node = 0
        for byte in word:
            child = edges.setdefault(node << 8 | byte, len(values))
            if child == len(values):
                values.append(0)
            node = child
        values[node] = value + 1
    first = [edges.pop(byte, 0) for byte in range(256)]
    capacity = _capacity(len(edges))
    slots = np.full((capacity, 2), NONE, "<u4")
    if edges:
        slots[_places([hash_number(key) for key in edges], capacity)] = np.array(list(edges.items()), "<u4")
    head = struct.pack("<II", len(values), capacity)
    return head + np.array(first, "<u4").tobytes() + np.array(values, "<u4").tobytes() + slots.tobytes()


def strings_bytes(strings: Sequence[bytes]) -> bytes:
    """uint32 count; uint32 where each begins [count + 1]; the bytes."""
    ends = np.cumsum([0, *map(len, strings)], dtype="<u4")
    return struct.pack("<I", len(strings)) + ends.astype("<u4").tobytes() + b"".join(strings)


def read_strings(section: bytes) -> list[bytes]:
    """What `strings_bytes` wrote."""
    (count,) = struct.unpack_from("<I", section)
    begins = np.frombuffer(section, "<u4", count + 1, 4).tolist()
    content = section[4 * (count + 2) :]
    return [content[begin:end] for begin, end in itertools.pairwise(begins)]
