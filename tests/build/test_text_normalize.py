"""native/normalize.c on compiled normalizers: what the `tokenizers` library makes of the same text, and no crash."""

from __future__ import annotations

import ctypes
import json
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import slmc.text
from slmc.text.characters import every_character
from slmc.text.normalizer import compile_normalizer, steps_bytes

pytestmark = pytest.mark.build

NATIVE = Path(slmc.text.__file__).parent / "native"

Node = dict[str, object]


def bert(**change: object) -> Node:
    flags = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return {"type": "BertNormalizer", **flags, **change}


def replace(pattern: str, content: str) -> Node:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def prepend(text: str) -> Node:
    return {"type": "Prepend", "prepend": text}


def strip(left: bool, right: bool) -> Node:
    return {"type": "Strip", "strip_left": left, "strip_right": right}


def sequence(*nodes: Node) -> Node:
    return {"type": "Sequence", "normalizers": list(nodes)}


def plain(*names: str) -> list[Node]:
    return [{"type": name} for name in names]


NODES: dict[str, Node] = {
    **{name: {"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD")},
    **{name: {"type": name} for name in ("Lowercase", "StripAccents", "Nmt", "ByteLevel")},
    "strip": strip(True, True),
    "strip left": strip(True, False),
    "strip right": strip(False, True),
    "strip nothing": strip(False, False),
    "prepend": prepend("é▁"),
    "prepend nothing": prepend(""),
    "replace": replace("aa", "ab"),
    "replace marks": replace("\u0301\u0301", "\u0323"),
    "replace by nothing": replace(" ", ""),
    "replace what a regex means otherwise": replace(".*[\\s]$", "x"),
    "BERT": bert(),
    "BERT cased": bert(lowercase=False),
    "BERT cased without accents": bert(lowercase=False, strip_accents=True),
    "BERT lower with accents": bert(strip_accents=False),
    "BERT clean": bert(handle_chinese_chars=False, lowercase=False),
    "BERT spaced": bert(clean_text=False, lowercase=False),
    "BERT unclean": bert(clean_text=False, handle_chinese_chars=False),
    "BERT nothing": bert(clean_text=False, handle_chinese_chars=False, lowercase=False),
    "without accents": sequence(*plain("NFD", "StripAccents", "Lowercase")),
    "Llama 2": sequence(prepend("▁"), replace(" ", "▁")),
    "Gemma": replace(" ", "▁"),
    "ALBERT": sequence(replace("``", '"'), replace("''", '"'), *plain("NFKD", "StripAccents", "Lowercase")),
    "nested": sequence(sequence(*plain("Nmt", "NFKC")), sequence(), sequence(strip(True, True), *plain("ByteLevel"))),
    "nothing": sequence(),
}


def library_normalizer(node: Node) -> Callable[[str], str]:
    model = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}
    parts = dict.fromkeys(("truncation", "padding", "pre_tokenizer", "post_processor", "decoder"))
    text = json.dumps({"version": "1.0", "added_tokens": [], **parts, "normalizer": node, "model": model})
    found: Callable[[str], str] = Tokenizer.from_str(text).normalizer.normalize_str
    return found


class Buffer(ctypes.Structure):
    """struct buffer of native/buffer.h."""

    _fields_ = (("bytes", ctypes.c_void_p), ("size", ctypes.c_size_t), ("capacity", ctypes.c_size_t))


class Normalizer(ctypes.Structure):
    """struct normalizer of native/normalize.h."""

    _fields_ = (("steps", ctypes.c_void_p), ("count", ctypes.c_uint32))


class Native:
    """normalize.c with one table."""

    def __init__(self, library: ctypes.CDLL, table: bytes) -> None:
        self.library, self.libc = library, ctypes.CDLL(None)
        self.libc.malloc.restype = ctypes.c_void_p
        self.table = (ctypes.c_uint32 * (len(table) // 4 + 1)).from_buffer_copy(table + bytes(4 - len(table) % 4))
        self.normalizer = Normalizer()
        opened = library.slm_normalizer_open(self.table, ctypes.c_size_t(len(table)), ctypes.byref(self.normalizer))
        self.opened = bool(opened)

    def bytes(self, text: bytes) -> bytes | None:
        buffer, spare = Buffer(self.libc.malloc(max(len(text), 1)), len(text), max(len(text), 1)), Buffer()
        ctypes.memmove(buffer.bytes, text, len(text))
        done = self.library.slm_normalize(*map(ctypes.byref, (self.normalizer, buffer, spare)))
        found = ctypes.string_at(buffer.bytes, buffer.size) if buffer.size else b""
        for used in (buffer, spare):
            self.libc.free(ctypes.c_void_p(used.bytes))
        return found if done else None

    def __call__(self, text: str) -> str:
        found = self.bytes(text.encode())
        assert found is not None
        return found.decode()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Undefined behaviour ends the process."""
    file = tmp_path_factory.mktemp("normalize") / "normalize.so"
    flags = ("-std=c11", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Wconversion")
    command = [sys.executable, "-m", "ziglang", "cc", *flags, "-Werror", "-fPIC", "-shared"]
    subprocess.run([*command, NATIVE / "normalize.c", "-o", file], check=True)
    return ctypes.CDLL(str(file))


Both = tuple[Callable[[str], str], Callable[[str], str]]


@pytest.fixture(scope="module", params=NODES)
def both(request: pytest.FixtureRequest, library: ctypes.CDLL) -> Both:
    """A compiled normalizer, and the library's own."""
    node = NODES[request.param]
    native = Native(library, steps_bytes(compile_normalizer(node)))
    assert native.opened
    return native, library_normalizer(node)


def chunks(texts: str | list[str], between: str) -> Iterator[str]:
    for start in range(0, len(texts), 4096):
        yield between.join(texts[start : start + 4096])


def test_every_character_alone_and_beside_its_neighbours(both: Both) -> None:
    native, library = both
    for between in ("!#", "\u0345\u0334"):
        for text in chunks(every_character(), between):
            assert native(text) == library(text)


def test_texts_of_one_character(both: Both) -> None:
    native, library = both
    for character in ["", *every_character()[:0x3400:31], *map(chr, range(0x2000, 0x2070)), "\x85", "\u3000"]:
        assert native(character) == library(character)


def decomposing() -> list[str]:
    return [c for c in every_character() if unicodedata.decomposition(c)]


MARKS = [c for c in every_character() if unicodedata.combining(c)]
JAMO = [*map(chr, (*range(0x1100, 0x1200), *range(0xA960, 0xA980), *range(0xD7B0, 0xD800), *range(0xAC00, 0xAC40)))]
WHITE = list(" \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u200b\u2028\u3000\ufeff")
EXCLUDED = list("\u0340\u0341\u0343\u0344\u0374\u0958\u0f43\u0f73\u0f75\u0f81\u2126\u212a\u2adc\uf900\ufb1d\U0001d15e")
SECONDS = list("\u09be\u0b3e\u0b57\u0bbe\u0cc2\u0d57\u0dcf\u102e\u1b35\U000110ba\U00011127\U0001133e\U000114b0")
FIRSTS = [unicodedata.normalize("NFD", c)[0] for c in decomposing()]

Texts = st.one_of(
    st.text(),
    *(
        st.lists(st.one_of(*map(st.sampled_from, alphabets)), max_size=120).map("".join)
        for alphabets in (
            (MARKS, ["a", "o", "ṩ"]),
            (JAMO,),
            (decomposing(), MARKS),
            (FIRSTS, SECONDS, MARKS[:80]),
            (WHITE, ["a", "一", "É", "''", "aa"], EXCLUDED),
        )
    ),
)


@given(text=Texts)
@settings(max_examples=100, deadline=None)
def test_any_text(both: Both, text: str) -> None:
    native, library = both
    assert native(text) == library(text)
    assert native(f" {text * 3}\n") == library(f" {text * 3}\n")


@pytest.mark.parametrize("name", ["NFC", "NFD", "NFKC", "NFKD"])
def test_every_pair_that_might_compose(library: ctypes.CDLL, name: str) -> None:
    native, wanted = Native(library, steps_bytes(compile_normalizer(NODES[name]))), library_normalizer(NODES[name])
    wholes = [unicodedata.normalize("NFD", whole) for whole in decomposing()]
    pairs = [whole + second for whole in wholes for second in (*SECONDS, *MARKS[:40])]
    pairs += [first + second for first in map(chr, range(0x10FE, 0x1114)) for second in map(chr, range(0x115F, 0x1178))]
    pairs += [chr(0xAC00 + i) + chr(second) for i in range(0, 0x2BA4, 7) for second in range(0x11A6, 0x11C5)]
    for text in chunks(pairs, "!"):
        assert native(text) == wanted(text)


@pytest.mark.parametrize("name", ["NFC", "NFD", "BERT"])
@pytest.mark.parametrize("count", [31, 32, 33, 100_000])
def test_runs_of_marks_have_no_limit(library: ctypes.CDLL, name: str, count: int) -> None:
    native, wanted = Native(library, steps_bytes(compile_normalizer(NODES[name]))), library_normalizer(NODES[name])
    for text in ("a" + "\u0301\u0323\u0345" * count + "\u0302b", "\u0345\u0301" * count):
        assert native(text) == wanted(text)


def test_a_text_that_grows_without_end_is_refused(library: ctypes.CDLL) -> None:
    native = Native(library, steps_bytes(compile_normalizer(sequence(*[replace("a", "aa")] * 64))))
    assert native.opened
    assert native.bytes(b"a") is None
    assert native.bytes(b"b") == b"b"


# ---- Steps that were changed -------------------------------------------------------------------------------------

WHOLE = [
    steps_bytes(compile_normalizer(NODES[name]))
    for name in ("NFC", "Nmt", "ByteLevel", "strip", "replace", "Llama 2", "nested", "BERT spaced")
]
TEXTS = [
    "",
    "aa \u0301\u0323\x01 é 한 \u1100\u1161\u11a8 一 ﬁ ﷺ \u200b `` \U0001d15e",
    "".join(every_character()[::97]),
    "".join(MARKS[::5]),
]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """Whole steps with words and bytes changed, near the heads more often, or cut off."""
    image = bytearray(draw(st.sampled_from(WHOLE)))
    places = st.one_of(st.integers(0, min(len(image) // 4 - 1, 12)), st.integers(0, len(image) // 4 - 1))
    words = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 300), st.sampled_from([2**31, 2**32 - 1, 0xD800]))
    for _ in range(draw(st.integers(1, 4))):
        place = 4 * draw(places)
        if draw(st.booleans()):
            struct.pack_into("<I", image, place, draw(words))
        else:
            image[place + draw(st.integers(0, 3))] = draw(st.integers(0, 255))
    return bytes(image[: draw(st.one_of(st.just(len(image)), st.integers(0, len(image))))])


@given(table=changed())
@settings(max_examples=1000, deadline=None)
def test_changed_steps_are_refused_or_make_valid_text(library: ctypes.CDLL, table: bytes) -> None:
    native = Native(library, table)
    for text in TEXTS if native.opened else []:
        found = native.bytes(text.encode())
        assert found is None or found.decode() is not None


@pytest.mark.parametrize("whole", WHOLE)
def test_steps_that_are_cut_off_or_too_long_are_refused(library: ctypes.CDLL, whole: bytes) -> None:
    assert Native(library, whole).opened
    for end in (0, 3, 4, 11, len(whole) // 2, len(whole) - 1):
        assert not Native(library, whole[:end]).opened
    assert not Native(library, whole + bytes(4)).opened
