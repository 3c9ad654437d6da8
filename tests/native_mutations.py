"""Weight files that are changed: field by field, for a test that names the fault, or anyhow, for thousands of them.

The places of the fields are written down once more here, apart from the writer's and the library's own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

VERSION, TENSORS, FILE_BYTES, LAYERS, CONFIG, FIRST_LAYER = 8, 12, 16, 24, 64, 128
"""Where the header's fields are."""
NAME_SIZE, ENTRY_SIZE = 48, 80
KIND, ROWS, COLUMNS, OFFSET, BYTES = 48, 52, 56, 64, 72
"""Where those of an entry in the table of tensors are."""
U32, U64 = "<I", "<Q"
_EXTREME = {
    U32: (0, 1, 2, 16, 31, 32, 33, 64, 128, 1 << 16, 1 << 17, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
    U64: (0, 1, 63, 64, 1 << 31, 1 << 32, 1 << 63, (1 << 63) - 64, (1 << 64) - 64, (1 << 64) - 1),
}


class Image:
    """A weight file's bytes, to be changed."""

    def __init__(self, whole: bytes) -> None:
        self.bytes = bytearray(whole)
        layers, self.entries = self.get(LAYERS, U32), self.get(TENSORS, U32)
        self.table = -(-(FIRST_LAYER + 8 * layers) // 64) * 64

    def get(self, at: int, form: str) -> int:
        found: int = struct.unpack_from(form, self.bytes, at)[0]
        return found

    def put(self, at: int, form: str, value: int) -> None:
        struct.pack_into(form, self.bytes, at, value)

    def entry(self, index: int) -> int:
        """Where an entry of the table is."""
        return self.table + index * ENTRY_SIZE

    def entry_of(self, name: str) -> int:
        """Where the entry of a tensor is."""
        return self.bytes.index(name.encode().ljust(NAME_SIZE, b"\0"), self.table)

    def rename(self, entry: int, name: bytes) -> None:
        self.bytes[entry : entry + NAME_SIZE] = name.ljust(NAME_SIZE, b"\0")

    def resize(self, size: int) -> None:
        """Cut off, or longer by zeros; the header says so."""
        del self.bytes[size:]
        self.bytes.extend(bytes(size - len(self.bytes)))
        self.put(FILE_BYTES, U64, size)


def mutated(whole: bytes, random: Random) -> bytes:
    """One to three changes of any kind."""
    image = Image(whole)
    for _ in range(random.randint(1, 3)):
        random.choice(_MUTATIONS)(image, random)
    return bytes(image.bytes[: random.randrange(len(whole))] if random.random() < 0.03 else image.bytes)


def _flip_bits(image: Image, random: Random) -> None:
    """Most of a file is codes and scales, where any bits are fine: half of the flips are before them."""
    end = random.choice([len(image.bytes), image.entry(image.entries)])
    for _ in range(random.randint(1, 8)):
        image.bytes[random.randrange(end)] ^= 1 << random.randrange(8)


def _cut_off(image: Image, random: Random) -> None:
    image.resize(random.randrange(image.entry(image.entries), len(image.bytes)))


def _lengthen(image: Image, random: Random) -> None:
    image.resize(len(image.bytes) + random.choice([1, 63, 64, 4096]))


def _change_number(image: Image, random: Random, at: int, form: str) -> None:
    """To an extreme value, or one near what it was."""
    value, size = image.get(at, form), len(image.bytes)
    near = (value + 1, value - 1, value * 2, value // 2, value + 32, value + 64, size, size - 64)
    image.put(at, form, random.choice([*_EXTREME[form], *near]) % (1 << 8 * struct.calcsize(form)))


def _change_header(image: Image, random: Random) -> None:
    at, form = random.choice([(VERSION, U32), (TENSORS, U32), (FILE_BYTES, U64), (LAYERS, U32)])
    _change_number(image, random, at, form)


def _change_config(image: Image, random: Random) -> None:
    _change_number(image, random, CONFIG + 4 * random.randrange(16), U32)


def _change_layer(image: Image, random: Random) -> None:
    _change_number(image, random, FIRST_LAYER + 4 * random.randrange(2 * image.get(LAYERS, U32) % 64 or 1), U32)


def _change_entry(image: Image, random: Random) -> None:
    at, form = random.choice([(KIND, U32), (ROWS, U32), (COLUMNS, U32), (OFFSET, U64), (BYTES, U64)])
    _change_number(image, random, _any_entry(image, random) + at, form)


def _double_name(image: Image, random: Random) -> None:
    entry, other = _any_entry(image, random), _any_entry(image, random)
    image.rename(entry, bytes(image.bytes[other : other + NAME_SIZE]))


def _endless_name(image: Image, random: Random) -> None:
    entry = _any_entry(image, random)
    name = bytes(image.bytes[entry : entry + NAME_SIZE]).rstrip(b"\0")
    image.rename(entry, name.ljust(NAME_SIZE, b"%"))


def _swap_places(image: Image, random: Random) -> None:
    """Two tensors' bytes, their entries otherwise the same."""
    one, other = _any_entry(image, random) + OFFSET, _any_entry(image, random) + OFFSET
    places = image.get(one, U64), image.get(other, U64)
    image.put(one, U64, places[1])
    image.put(other, U64, places[0])


def _any_entry(image: Image, random: Random) -> int:
    return image.entry(random.randrange(image.entries))


_MUTATIONS: tuple[Callable[[Image, Random], None], ...] = (
    _flip_bits,
    _cut_off,
    _lengthen,
    _change_header,
    _change_config,
    _change_layer,
    _change_entry,
    _double_name,
    _endless_name,
    _swap_places,
)
