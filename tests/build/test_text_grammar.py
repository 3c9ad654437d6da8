"""native/grammar.c and sampling.c: what Python says, and no table makes them read outside."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmc.backends.tvm.library import zig_tools
from slmc.text import NATIVE as TEXT
from slmc.text.automaton import DEAD, START
from slmc.text.grammar import compile_schema, grammar_bytes
from slmc.text.sections import Section, write_sections
from slmc.text.token_masks import Spelled, token_masks
from slmc.text.tokenizer import compile_tokenizer

from ..json_schemas import BOOKING
from ..tokenizer_kinds import KINDS
from .test_text_automaton import guarded

pytestmark = pytest.mark.build
NATIVE = Path(__file__).parent.parent / "native"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Ends the process where its behaviour is undefined."""
    path = tmp_path_factory.mktemp("grammar") / "libgrammar.so"
    flags = ["-std=c11", "-O1", "-g", "-shared", "-fPIC", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror"]
    flags += ["-ffp-contract=off", "-fsanitize=undefined", "-fsanitize-trap=undefined", f"-I{TEXT}"]
    sources = [*map(str, sorted(TEXT.glob("*.c"))), str(NATIVE / "grammar.c")]
    with zig_tools() as zig:
        zig(["cc", *flags, *sources, "-o", str(path)], "host")
    made = ctypes.CDLL(str(path))
    made.slm_task_open.argtypes = [c_char_p, POINTER(c_void_p), c_void_p]
    for name in ("test_tokenizer", "test_grammar", "test_open"):
        getattr(made, name).restype = c_void_p
    made.test_tokenizer.argtypes = made.test_grammar.argtypes = [c_void_p]
    made.test_open.argtypes = [c_void_p, c_size_t, c_void_p]
    made.test_accepts.argtypes = [c_void_p, c_uint32]
    made.test_states.argtypes, made.test_states.restype = [c_void_p], c_uint32
    made.slm_grammar_allowed.argtypes, made.slm_grammar_allowed.restype = [c_void_p, c_uint32, c_void_p], c_size_t
    made.slm_grammar_step.argtypes = [c_void_p, c_void_p, c_uint32, c_uint32, c_int]
    made.slm_grammar_step.restype = c_uint32
    made.test_sample.argtypes = [c_void_p, c_size_t, c_double, c_size_t, c_double, c_uint64, c_void_p, c_size_t]
    made.test_sample.restype = None
    return made


@dataclass
class Opened:
    """A grammar with its tokenizer."""

    library: ctypes.CDLL
    tokenizer: int
    grammar: int
    tokens: int

    def allowed(self, state: int) -> list[int]:
        ids = (c_int32 * self.tokens)()
        return ids[: self.library.slm_grammar_allowed(self.grammar, state, ids)]

    def step(self, state: int, id: int, *, first: bool = False) -> int:
        found: int = self.library.slm_grammar_step(self.grammar, self.tokenizer, state, id, first)
        return found


@dataclass
class Case:
    sections: dict[Section, bytes]
    opened: Opened


PREFIX = " "


@pytest.fixture(scope="module", params=["llama3", "llama2", "unigram_bytes"])
def case(request: pytest.FixtureRequest, library: ctypes.CDLL, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param]().save(str(folder / "tokenizer.json"))
    sections = dict(compile_tokenizer(folder / "tokenizer.json"))
    sections[Section.GRAMMAR] = grammar_bytes(BOOKING, PREFIX, 1, sections)
    write_sections(sections, folder / "task.slm")
    task = c_void_p()
    assert library.slm_task_open(str(folder / "task.slm").encode(), byref(task), None) == 0
    count = struct.unpack_from("<5I", sections[Section.GRAMMAR])[2]
    return Case(sections, Opened(library, library.test_tokenizer(task), library.test_grammar(task), count))


def test_masks_and_steps_are_those_of_python(case: Case) -> None:
    automaton = compile_schema(BOOKING, PREFIX)
    spelled = Spelled.of(case.sections, PREFIX, 1)
    masks = token_masks(automaton, spelled)
    for state in range(len(automaton.next)):
        mask = np.unpackbits(np.frombuffer(masks.get(state, b""), np.uint8), bitorder="little")
        wanted = np.flatnonzero(mask).tolist()
        assert case.opened.allowed(state) == wanted
        assert case.opened.library.test_accepts(case.opened.grammar, state) == automaton.accepting[state]
        for id in wanted[:: 1 + len(wanted) // 20]:
            assert case.opened.step(state, id) == walked(automaton.next, state, spelled.later[id])
    for id in case.opened.allowed(START):
        found = walked(automaton.next, START, spelled.later[id]) or walked(automaton.next, START, spelled.first[id])
        assert case.opened.step(START, id, first=True) == found != DEAD


def walked(table: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], state: int, piece: bytes) -> int:
    for byte in piece:
        state = int(table[state, byte])
    return state


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(head=st.booleans(), changes=CHANGES, missing=st.sampled_from([0, 0, 0, 0, 1, 4, 64, 4000]), random=st.randoms())
def test_no_table_makes_it_read_outside(
    case: Case, head: bool, changes: list[tuple[float, int]], missing: int, random: Random
) -> None:
    whole = case.sections[Section.GRAMMAR]
    content = bytearray(whole[: max(0, len(whole) - missing)])
    for place, value in changes:
        content[int(place * min(len(content) - 1, 19 if head else 1 << 30))] = value
    with guarded(bytes(content)) as address:
        grammar = case.opened.library.test_open(address, len(content), case.opened.tokenizer)
        if grammar is None:
            return
        assert missing == 0
        wander(Opened(case.opened.library, case.opened.tokenizer, grammar, case.opened.tokens), random)


def wander(opened: Opened, random: Random) -> None:
    """Through any states, by tokens that are allowed and by others."""
    states = opened.library.test_states(opened.grammar)
    for _ in range(30):
        state = random.randrange(states)
        ids = opened.allowed(state)
        assert ids == sorted(set(ids))
        assert all(0 <= id < opened.tokens for id in ids)
        for id in [*ids[:5], *(random.randrange(opened.tokens) for _ in range(5))]:
            assert opened.step(state, id, first=random.random() < 0.5) < states


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    states, classes, tokens, masks, words = struct.unpack_from("<5I", content)

    def changed(at: int, *numbers: int, form: str = "<I") -> bytes:
        found = bytearray(content)
        for place, number in enumerate(numbers):
            struct.pack_into(form, found, at + struct.calcsize(form) * place, number)
        return bytes(found)

    yield "nothing", b""
    yield "cut off", content[:-4]
    yield "more than it says", content + bytes(4)
    yield "no states", changed(0, 1)
    yield "too many states", changed(0, 0x10001)
    yield "sizes that overflow", changed(0, 0x10000, 256, tokens, 0xFFFFFFFF, 0xFFFFFFFF)
    yield "no classes", changed(4, 0)
    yield "tokens of another tokenizer", changed(8, tokens + 1)
    yield "no masks", changed(12, 0)
    yield "a class that is not there", changed(20, classes, form="<B")
    at = 20 + 256
    yield "a mask beyond the words", changed(at + 8, words, 1)
    yield "a mask of more than the words", changed(at + 8, 0, 0xFFFFFFFF)
    numbers = at + 8 * masks
    yield "a mask that is not there", changed(numbers, masks << 1)
    first = numbers + 4 * states
    yield "a state that is not there", changed(first + 4 * words, states, form="<H")
    lists = [struct.unpack_from("<2I", content, at + 8 * mask) for mask in range(masks)]
    begin, count = next(one for one in lists if 2 <= one[1] < -(-tokens // 32))
    one, other = struct.unpack_from("<2I", content, first + 4 * begin)
    yield "a token that is not there", changed(first + 4 * (begin + count - 1), tokens)
    yield "tokens out of order", changed(first + 4 * begin, other, one)
    begin, count = next(one for one in lists if one[1] >= -(-tokens // 32))
    yield "another number of bits", changed(first + 4 * begin, *([0] * -(-tokens // 32)))
    if tokens % 32:
        last = first + 4 * (begin + tokens // 32)
        yield "a bit beyond the tokens", changed(last, struct.unpack_from("<I", content, last)[0] | 1 << 31)


def test_damage_is_seen(case: Case) -> None:
    for what, content in damages(case.sections[Section.GRAMMAR]):
        with guarded(content) as address:
            assert case.opened.library.test_open(address, len(content), case.opened.tokenizer) is None, what


# ---- Sampling --------------------------------------------------------------------------------------------------------


def sampled(
    library: ctypes.CDLL, logits: list[float], draws: int, *, temperature: float, top_k: int, top_p: float, seed: int
) -> list[int]:
    given, drawn = (c_float * len(logits))(*logits), (c_int32 * draws)()
    library.test_sample(given, len(logits), temperature, top_k, top_p, seed, drawn, draws)
    return list(drawn)


def kept(logits: list[float], temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """The probability of each token that can be drawn."""
    order = sorted(range(len(logits)), key=lambda id: (-logits[id], id))[: top_k or None]
    weights = {id: math.exp((logits[id] - max(logits)) / temperature) for id in order}
    whole, found = sum(weights.values()), {}
    for id in order:
        if sum(found.values()) >= top_p * whole and top_p < 1:
            break
        found[id] = weights[id]
    return {id: weight / sum(found.values()) for id, weight in found.items()}


LOGITS = st.lists(st.sampled_from([-30.0, -1.0, 0.0, 0.5, 1.0, 1.5]), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(LOGITS, st.sampled_from([0.1, 0.7, 1.0, 3.0]), st.integers(0, 13), st.sampled_from([0.05, 0.5, 0.92, 1.0]))
def test_tokens_are_drawn_by_what_the_cuts_leave(
    library: ctypes.CDLL, logits: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    shares = kept(logits, temperature, top_k, top_p)
    draws = 2000
    drawn = sampled(library, logits, draws, temperature=temperature, top_k=top_k, top_p=top_p, seed=len(logits))
    assert set(drawn) <= set(shares)
    for id, share in shares.items():
        # Six standard deviations; a rare token may be missing.
        assert abs(drawn.count(id) - draws * share) <= 6 * math.sqrt(draws * share * (1 - share)) + 1


def test_greedy_takes_the_first_of_equal_tokens(library: ctypes.CDLL) -> None:
    assert sampled(library, [0.0, 2.0, 2.0, 1.0], 3, temperature=0, top_k=0, top_p=1, seed=1) == [1, 1, 1]


def test_the_same_seed_draws_the_same_anywhere(library: ctypes.CDLL) -> None:
    """What SplitMix64 gives for seed 7, by the shares of four equal tokens, the last first."""
    drawn = sampled(library, [1.0] * 4, 8, temperature=1, top_k=0, top_p=1, seed=7)
    state, wanted = 7, []
    for _ in range(8):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        wanted.append(3 - ((z ^ z >> 31) >> 62))
    assert drawn == wanted
