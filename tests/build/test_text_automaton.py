"""native/automaton.c: the same matches as in Python, and no table makes it read outside."""

from __future__ import annotations

import ctypes
import mmap
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slmc.text
from slmc.text.automaton import MATCHED, START, Automaton, compile_literal, compile_regex

pytestmark = [pytest.mark.build, pytest.mark.skipif(sys.platform == "win32", reason="not run: needs mprotect")]

NATIVE = Path(slmc.text.__file__).parent / "native"
FLAGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all")
PATTERN = r"'s|'re| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Opened(ctypes.Structure):
    """`struct automaton`."""

    _fields_ = (
        ("page_of", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
        ("states", ctypes.c_uint32),
        ("classes", ctypes.c_uint32),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("automaton") / "automaton.so"
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-shared", "-fPIC", NATIVE / "automaton.c", "-o", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(path))
    library.slm_automaton_open.restype = library.slm_automaton_match.restype = ctypes.c_size_t
    return library


@contextmanager
def guarded(content: bytes) -> Iterator[ctypes.c_void_p]:
    """The address of bytes, aligned to 4, after which (but for the alignment) is a page that can't be read."""
    room = -(-len(content) // mmap.PAGESIZE) * mmap.PAGESIZE
    with mmap.mmap(-1, room + mmap.PAGESIZE) as memory:
        start = room - -(-len(content) // 4) * 4
        memory[start : start + len(content)] = content
        view = ctypes.c_char.from_buffer(memory)
        base = ctypes.addressof(view)
        protect = ctypes.CDLL(None).mprotect
        guard = ctypes.c_void_p(base + room), ctypes.c_size_t(mmap.PAGESIZE)
        assert protect(*guard, 0) == 0
        try:
            yield ctypes.c_void_p(base + start)
        finally:
            protect(*guard, mmap.PROT_READ | mmap.PROT_WRITE)
            del view


def opened(library: ctypes.CDLL, at: ctypes.c_void_p, size: int) -> tuple[int, Opened]:
    found = Opened()
    return library.slm_automaton_open(at, ctypes.c_size_t(size), ctypes.byref(found)), found


def ends(library: ctypes.CDLL, automaton: Opened, text: str) -> list[int | None]:
    """Where the match ends that begins at each character, in characters."""
    content = text.encode()
    starts = [len(text[:at].encode()) for at in range(len(text) + 1)]
    found: list[int | None] = []
    with guarded(content) as address:
        for at in starts:
            sizes = ctypes.c_size_t(at), ctypes.c_size_t(len(content))
            end = library.slm_automaton_match(ctypes.byref(automaton), address, *sizes)
            found.append(None if end == at else starts.index(end))
    return found


TEXTS = st.lists(
    st.one_of(st.sampled_from(list("ab 'srexé漢😀1٣\n\r\u00a0")), st.characters(exclude_categories=["Cs"])), max_size=16
).map("".join)


@pytest.fixture(scope="module", params=[PATTERN, "a+b|a", "(?:a|b)*?a(?!b)"])
def matcher(request: pytest.FixtureRequest) -> Automaton:
    return compile_regex(request.param)


def test_matches_are_those_of_python(library: ctypes.CDLL, matcher: Automaton) -> None:
    content = matcher.to_bytes()
    with guarded(content) as address:
        used, found = opened(library, address, len(content))
        assert used == len(content)

        @settings(deadline=None, max_examples=200)
        @given(TEXTS)
        def check(text: str) -> None:
            assert ends(library, found, text) == [matcher.match(text, at) for at in range(len(text) + 1)]

        check()


def test_what_follows_a_table_is_left(library: ctypes.CDLL) -> None:
    content = compile_literal("é.").to_bytes()
    with guarded(content + b"more") as address:
        assert opened(library, address, len(content) + 4)[0] == len(content)


SMALL = compile_regex("ab|a(?!b)")
CONTENT = SMALL.to_bytes()
ENTRIES = SMALL.next.size * 2
PLACES = st.one_of(
    st.integers(0, 31),
    st.integers(0, len(CONTENT) - 1),
    st.integers(len(CONTENT) - (ENTRIES + 3) // 4 * 4, len(CONTENT) - 1),
)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=3), st.sampled_from([0, 0, 0, 1, 2, 4, 256, 8000]))
def test_no_table_makes_it_read_outside(library: ctypes.CDLL, changes: list[tuple[int, int]], missing: int) -> None:
    content = bytearray(CONTENT[: len(CONTENT) - missing])
    for place, value in changes:
        if place < len(content):
            content[place] = value
    with guarded(bytes(content)) as address:
        used, found = opened(library, address, len(content))
        assert used <= len(content)
        if used:
            for text in ("ab", "aab\u00e9", "\U0010ffff\ud7ffa", ""):
                assert len(ends(library, found, text)) == len(text) + 1


HEAD = 8
FIRST_ENTRY = len(CONTENT) - (ENTRIES + 3) // 4 * 4
DAMAGE = {
    "no states": (0, struct.pack("<I", 0)),
    "no start": (0, struct.pack("<I", 1)),
    "more states than 15 bits": (0, struct.pack("<I", 0x8001)),
    "states whose size overflows": (0, struct.pack("<I", 0xFFFFFFFF)),
    "no classes": (4, struct.pack("<I", 0)),
    "too many classes": (4, struct.pack("<I", 256)),
    "fewer classes than characters have": (4, struct.pack("<I", SMALL.next.shape[1] - 2)),
    "more pages than are there": (HEAD, struct.pack("<I", 0xFFFFFFFF)),
    "a page that is not there": (HEAD + 8, struct.pack("<H", 0xFFFF)),
    "a state that is not there": (FIRST_ENTRY, struct.pack("<H", len(SMALL.next))),
    "an empty match": (FIRST_ENTRY + 2 * START * SMALL.next.shape[1], struct.pack("<H", MATCHED)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_seen(library: ctypes.CDLL, damage: str) -> None:
    place, value = DAMAGE[damage]
    content = CONTENT[:place] + value + CONTENT[place + len(value) :]
    with guarded(content) as address:
        assert opened(library, address, len(content))[0] == 0


def test_a_part_of_a_table_is_seen(library: ctypes.CDLL) -> None:
    for size in (0, 4, 8, 12, 1000, len(CONTENT) - 300, len(CONTENT) - 4, len(CONTENT) - 1):
        with guarded(CONTENT[:size]) as address:
            assert opened(library, address, size)[0] == 0
