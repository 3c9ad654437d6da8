"""Compiled tokenizers, in C, against the `tokenizers` library: the same ids and the same text for every string."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slmc.errors import RunnerError
from slmc.target import targets_folder
from slmc.text.native_text import NativeTask
from slmc.text.sections import write_sections
from slmc.text.tokenizer import compile_tokenizer

from ..tokenizer_kinds import KINDS, SENTENCES

pytestmark = pytest.mark.build

DEMO = targets_folder().parent / "recipes" / "intent-router"
SPARSE = (
    "\n\r\t\u00a0\u2003'ſK’\u0301\u0300\u0327\u1100\u1161\u11a8가각ﬁ½Ⅷ٣<|>▁#-_.,!?、"
    "\u200d\ufe0f\U0001f600\x00\x85\u2028\ufeff\ufffd"
)
"""Characters that some rule of some tokenizer is about."""
SOAK = 30_000
"""Random strings for each kind."""


class Pair:
    """A tokenizer, and what it was compiled to."""

    def __init__(self, library: Tokenizer, native: NativeTask) -> None:
        self.library, self.native = library, native
        self.added = [token.content for token in library.get_added_tokens_decoder().values()] or ["x"]
        self.size = library.get_vocab_size()

    def check(self, text: str) -> None:
        ids = self.library.encode(text).ids
        assert self.native.encode(text, special=True) == ids
        assert self.native.encode(text) == self.library.encode(text, add_special_tokens=False).ids
        self.check_spelling(ids)

    def check_spelling(self, ids: list[int]) -> None:
        """Each piece is whole characters already, or it could not be read."""
        assert "".join(self.native.spell(ids)) == self.library.decode(ids)


def compiled(path: Path, native_text: object, folder: Path) -> Pair:
    write_sections(compile_tokenizer(path), folder / "task.slm")
    library = Tokenizer.from_file(str(path))
    library.no_truncation()
    library.no_padding()
    return Pair(library, NativeTask(native_text, folder / "task.slm"))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, native_text: object, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param]().save(str(folder / "tokenizer.json"))
    return compiled(folder / "tokenizer.json", native_text, folder)


def texts(added: list[str]) -> st.SearchStrategy[str]:
    """Any characters, those that rules are about, and parts of sentences with added tokens between them."""
    dense = st.text(st.sampled_from(sorted({*SPARSE, *"".join(SENTENCES)})))
    parts = st.one_of(
        st.sampled_from(SENTENCES), st.sampled_from(added), st.sampled_from([" ", "  ", "\n", "\n\n", "\t"])
    )
    return st.one_of(st.text(), dense, st.lists(st.one_of(parts, dense), max_size=6).map("".join))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_ids_and_text_are_the_librarys(pair: Pair, data: st.DataObject) -> None:
    pair.check(data.draw(texts(pair.added)))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_ids_spell_what_the_library_spells(pair: Pair, data: st.DataObject) -> None:
    pair.check_spelling(data.draw(st.lists(st.integers(0, pair.size + 2), max_size=20)))


def test_long_texts_take_no_shortcut(pair: Pair) -> None:
    for text in ("a" * 3000, " " * 3000, "ab " * 1000, "é\u0301" * 1000, "\n" * 500 + "x", "".join(SENTENCES) * 20):
        pair.check(text)


def test_what_is_not_utf8_is_refused(pair: Pair) -> None:
    for content in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"):
        with pytest.raises(RunnerError, match="can't be encoded"):
            pair.native.encode(content)


def sentences(pair: Pair, random: Random, count: int) -> Iterator[str]:
    letters = sorted({*SPARSE, *"".join(SENTENCES)})
    for _ in range(count):
        if random.random() < 0.1:
            points = (random.choice((random.randrange(0xD800), random.randrange(0xE000, 0x110000))) for _ in range(9))
            yield "".join(map(chr, points))
        elif random.random() < 0.5:
            yield "".join(random.choices(letters, k=random.randrange(40)))
        else:
            starts = ((random.choice(SENTENCES), random.randrange(40)) for _ in range(random.randrange(5)))
            pieces = (text[start : start + random.randrange(20)] for text, start in starts)
            yield random.choice((" ", "", "\n", random.choice(pair.added))).join(pieces)


@pytest.mark.soak
def test_hundreds_of_thousands_of_strings(pair: Pair) -> None:
    for text in sentences(pair, Random(1), SOAK):
        pair.check(text)


def test_the_demos_own_sentences(native_text: object, tmp_path: Path) -> None:
    pair = compiled(DEMO / "base" / "tokenizer.json", native_text, tmp_path)
    files = [(DEMO / "data" / name).read_text(encoding="utf-8") for name in ("eval.jsonl", "calibration.jsonl")]
    lines = "".join(files).splitlines()
    assert len(lines) > 5000
    for line in lines:
        pair.check(json.loads(line)["text"])
