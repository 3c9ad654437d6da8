"""Answers in text: the same as step by step in Python, always within the grammar, never half a character."""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_size_t, c_void_p
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from slmc.errors import InputError, RunnerError
from slmc.prompt import Codec, PromptFormat
from slmc.runners.chooser_decider import ChooserDecider
from slmc.runners.contract import GenerateItem
from slmc.runners.engine import Engine
from slmc.runners.loop import _generate, _Timed
from slmc.runners.native_decider import NativeDecider
from slmc.runners.native_engine import NativeEngine
from slmc.text.automaton import DEAD, START
from slmc.text.grammar import compile_schema
from slmc.text.native_text import Done, NativeTask, NativeWriter, Piece, Sampling, Text, texts_of
from slmc.text.sections import Section, write_sections
from slmc.text.task import Task, write_task

from ..json_schemas import ORDER, fits
from ..native_files import PLAIN, Model
from ..tokenizer_kinds import KINDS
from .native_model import write_model

pytestmark = pytest.mark.build

ITEM = {"text": "a table for 7"}
SMALL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "date": {"type": ["string", "null"], "maxLength": 6},
        "kind": {"enum": ["food", "drink", 'süß "é"\n']},
        "many": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        "people": {"type": "integer"},
    },
    "required": ["kind", "people"],
}


@dataclass
class Case:
    """A small random model, with a tokenizer of some kind."""

    folder: Path
    codec: Codec
    tokens: int
    library: Path

    def task(self, schema: dict[str, Any] | None = None, name: str = "task.slm") -> Path:
        task = Task(self.folder / "tokenizer.json", self.codec, (), [ITEM], schema)
        write_task(task, path := self.folder / name)
        return path

    def decider(self, schema: dict[str, Any] | None = None) -> NativeDecider:
        return NativeDecider(self.folder / "model", self.task(schema), library=self.library)

    def engine(self) -> NativeEngine:
        return NativeEngine(self.folder / "model", library=self.library)


def made(kind: str, prefix: str, folder: Path, library: Path) -> Case:
    KINDS[kind]().save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    form = PromptFormat(
        prefix="Find: ",
        message="{text}",
        suffix="\nAnswer:",
        trim=False,
        answer_prefix=prefix,
        special_tokens=True,
        end_token=tokenizer.id_to_token(1),
        end_id=1,
    )
    tokens = tokenizer.get_vocab_size()
    size = tokens + 5  # a model may have more than its tokenizer
    write_model(folder / "model", Model(replace(PLAIN.config, vocab_size=size), PLAIN.layers))
    return Case(folder, Codec(tokenizer, form), tokens, library)


@pytest.fixture(scope="module", params=[("llama3", " "), ("llama2", " "), ("unigram_bytes", "")], ids=str)
def case(request: pytest.FixtureRequest, host_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(*request.param, tmp_path_factory.mktemp("answers"), host_library)


@pytest.mark.parametrize("schema", [SMALL, ORDER], ids=["small", "order"])
def test_every_answer_is_json_that_fits(case: Case, schema: dict[str, Any]) -> None:
    decider = case.decider(schema)
    automaton = compile_schema(schema)
    ended = 0
    for seed in range(1000):
        found = decider.generate(ITEM, temperature=1 + seed % 7, seed=seed, top_k=seed % 3 * 20, max_tokens=100)
        assert found.text == case.codec.decode(found.ids)
        if found.done == Done.ENDED:
            ended += 1
            assert automaton.accepts(found.text.encode())
            assert fits(schema, json.loads(found.text))
        else:
            state = START
            for byte in found.text.rstrip("\ufffd").encode():
                state = int(automaton.next[state, byte])
            assert found.done == Done.LENGTH
            assert state != DEAD
    assert ended > 100


def test_a_greedy_answer_within_a_grammar_fits(case: Case) -> None:
    found = case.decider({"enum": ["transfer", "weather"]}).generate(ITEM)
    assert found.done == Done.ENDED
    assert found.text in ('"transfer"', '"weather"')
    assert len(found.logprobs) == len(found.ids) + 1


def test_a_greedy_answer_is_that_of_the_engine(case: Case) -> None:
    decider, engine = case.decider(), case.engine()
    for text in ("a", "for 7 people", "é漢\n", "x" * 30):
        ids = tuple(case.codec.prompt({"text": text})[1])
        item = GenerateItem(id="a", input_ids=ids, max_tokens=20)
        wanted, logprobs = _generate(_Timed(engine), ids, item, 1)
        found = decider.generate({"text": text}, max_tokens=20)
        assert list(found.ids) == wanted
        assert found.logprobs == pytest.approx(logprobs, abs=1e-9)
        assert found.text == case.codec.decode(wanted)
        assert found.done == (Done.ENDED if len(logprobs) > len(wanted) else Done.LENGTH)


def test_log_probabilities_are_the_models_whatever_is_allowed(case: Case) -> None:
    found = case.decider(SMALL).generate(ITEM, temperature=2, seed=3, top_k=5, max_tokens=30)
    engine = case.engine()
    logits = engine.extend(case.codec.prompt(ITEM)[1]).astype(np.float64)
    for id, logprob in zip(found.ids, found.logprobs, strict=False):
        whole = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
        assert logprob == pytest.approx(logits[id] - whole, abs=1e-9)
        logits = engine.extend([id]).astype(np.float64)


def test_the_text_is_what_the_codec_decodes(case: Case) -> None:
    """Special tokens, bytes that make no character, ids without a token; and each part was whole, or it could not be
    read."""
    decider = case.decider()
    for seed in range(200):
        found = decider.generate(ITEM, temperature=100, seed=seed, max_tokens=30)
        assert found.text == case.codec.decode(found.ids)


def cut(text: str, stops: list[str]) -> str:
    """Before the stop string that is whole first, of those the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - len(max(found, key=len))]
    return text


def test_stop_strings_end_it_wherever_tokens_part(case: Case) -> None:
    decider, random = case.decider(), Random(5)
    stopped = 0
    for seed in range(200):
        whole = decider.generate(ITEM, temperature=50, seed=seed, max_tokens=20)
        stops = ["never comes", "\x00\x01"]
        for _ in range(random.randrange(3)):
            begin = random.randrange(len(whole.text) or 1)
            stops += [whole.text[begin : begin + random.randrange(1, 6)]]
        stops = [stop for stop in stops if stop]
        found = decider.generate(ITEM, temperature=50, seed=seed, max_tokens=20, stops=stops)
        assert found.text == cut(whole.text, stops)
        assert found.ids == whole.ids[: len(found.ids)]
        stopped += found.done == Done.STOPPED
    assert stopped > 50


def test_the_same_seed_gives_the_same_answer(case: Case) -> None:
    decider = case.decider()
    made = [decider.generate(ITEM, temperature=2, seed=seed, max_tokens=10) for seed in (1, 2, 1)]
    assert made[0] == made[2] != made[1]


def test_an_answer_ends_with_the_context(case: Case) -> None:
    decider, prompt = case.decider(ORDER), case.codec.prompt(ITEM)[1]
    for seed in range(50):
        found = decider.generate(ITEM, temperature=0.2, seed=seed)
        assert len(found.ids) <= PLAIN.config.context - len(prompt) + 1
        assert found.done == (Done.ENDED if len(found.logprobs) > len(found.ids) else Done.LENGTH)
    free = case.decider().generate(ITEM, temperature=0)
    assert free.done == Done.ENDED or len(free.ids) == PLAIN.config.context - len(prompt) + 1


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": ({"temperature": -1.0}, "temperature"),
    "no number": ({"temperature": float("nan")}, "temperature"),
    "top_p": ({"top_p": 1.5}, "top_p"),
    "top_k": ({"top_k": -1}, "top_k"),
    "max_tokens": ({"max_tokens": -1}, "max_tokens"),
    "an empty stop": ({"stops": ["a", ""]}, "stop string"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_can_not_be_meant_so_is_refused(case: Case, what: str) -> None:
    asked, said = BAD[what]
    with pytest.raises(RunnerError, match=said):
        case.decider().generate(ITEM, **asked)


def test_a_prompt_that_does_not_fit_is_refused(case: Case) -> None:
    with pytest.raises(RunnerError, match="context of"):
        case.decider().generate({"text": "7" * 300})


@dataclass
class Calls:
    """The library's own functions."""

    decider: NativeDecider

    def __post_init__(self) -> None:
        self.slm, self.at = self.decider._slm, self.decider._decider
        self.slm.slm_decider_cancel.argtypes = [c_void_p]
        self.content = [ITEM["text"].encode()]
        self.fields = (Text * 1)(Text.of(self.content[0]))

    def begin(self, sampling: Sampling | None = None) -> int:
        return int(self.slm.slm_answer_begin(self.at, self.fields, 1, None if sampling is None else byref(sampling)))

    def next(self) -> tuple[int, str, int]:
        text, done = Text(), c_int32()
        status = int(self.slm.slm_answer_next(self.at, byref(text), byref(done)))
        return status, "" if status else str(text), done.value


def test_an_answer_goes_on_after_it_was_cancelled(case: Case) -> None:
    calls = Calls(case.decider(SMALL))
    wanted = calls.decider.generate(ITEM)
    calls.slm.slm_decider_cancel(calls.at)
    assert calls.begin() == 7
    assert calls.next()[0] == 1
    assert calls.begin() == 0
    parts, done = [], 0
    while not done:
        calls.slm.slm_decider_cancel(calls.at)
        status, text, done = calls.next()
        assert status in (0, 7)  # what was read with the prompt needs no call that could be cancelled
        if status:
            status, text, done = calls.next()
        parts.append(text)
    assert "".join(parts) == wanted.text
    assert calls.next() == (0, "", done)


def test_without_a_beginning_there_is_no_next(case: Case) -> None:
    calls = Calls(case.decider())
    assert calls.next()[0] == 1
    calls.slm.slm_decider_error_text.argtypes, calls.slm.slm_decider_error_text.restype = [c_void_p], c_char_p
    assert b"begun" in calls.slm.slm_decider_error_text(calls.at)
    assert calls.begin() == 0
    calls.decider.prefix()  # reads another prompt
    assert calls.next()[0] == 1
    assert calls.slm.slm_answer_next(calls.at, POINTER(Text)(), None) == 1


def test_a_grammar_with_no_way_on_is_told(case: Case) -> None:
    task = Task(case.folder / "tokenizer.json", case.codec, (), [ITEM], SMALL)
    sections = dict(task.sections)
    grammar = bytearray(sections[Section.GRAMMAR])
    states, _, _, masks, _ = struct.unpack_from("<5I", grammar)
    at = 20 + 256 + 8 * masks
    sections[Section.GRAMMAR] = bytes(grammar[:at] + bytes(4 * states) + grammar[at + 4 * states :])
    write_sections(sections, path := case.folder / "damaged.slm")
    decider = NativeDecider(case.folder / "model", path, library=case.library)
    with pytest.raises(RunnerError, match="no way on"):
        decider.generate(ITEM)
    writer = NativeWriter(decider.task, path)
    logits = case.engine().extend(writer.begin(ITEM, 100, Sampling()))
    with pytest.raises(RunnerError, match="no way on"):
        writer.give(logits)


# ---- Driven by another runtime's logits --------------------------------------------------------------------------


def pieces(writer: NativeWriter, engine: Engine, context: int, sampling: Sampling) -> Iterator[Piece]:
    """An item's answer as an app of another runtime writes it."""
    engine.rewind(0)
    logits = engine.extend(writer.begin(ITEM, context, sampling))
    while (piece := writer.give(logits)).done == Done.MORE:
        yield piece
        logits = engine.extend([piece.id])
    yield piece


ASKED: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 3, "top_k": 20, "top_p": 0.9, "max_tokens": 60},
    "any": {"temperature": 100, "max_tokens": 30},
    "short": {"temperature": 100, "max_tokens": 2},
    "stops": {"temperature": 50, "max_tokens": 40, "stops": ["a", "e ", "é", '"', "never comes"]},
}
ENUM: dict[str, Any] = {"enum": ["transfer", "weather", 7]}


@pytest.mark.parametrize("schema", [None, SMALL, ENUM], ids=["free", "json", "enum"])
def test_the_writer_answers_as_the_decider(case: Case, schema: dict[str, Any] | None) -> None:
    decider, engine = case.decider(schema), case.engine()
    calls, writer = Calls(decider), NativeWriter(decider.task, case.folder)
    ways = set()
    for asked in ASKED.values():
        for seed in range(20 if "temperature" in asked else 1):
            sampling = Sampling(**asked, seed=seed)
            told = list(pieces(writer, engine, engine.context, sampling))
            assert calls.begin(sampling) == 0
            assert [(0, piece.text, piece.done) for piece in told] == [calls.next() for _ in told]
            wanted = decider.generate(ITEM, **asked, seed=seed)
            assert writer.answer() == (wanted.ids, wanted.logprobs)
            assert ("".join(piece.text for piece in told), told[-1].done) == (wanted.text, wanted.done)
            assert [piece.id for piece in told] == [*wanted.ids, -1][: len(wanted.logprobs)]
            ways |= {wanted.done, wanted.text[-1:]}
    # What is compared comes up, one schema with another.
    assert ways >= ({Done.ENDED} if schema is ENUM else set() if schema else {Done.STOPPED, Done.LENGTH, "\ufffd"})


def test_the_context_is_room_for_the_prompt_and_all_but_the_last_token(case: Case) -> None:
    decider, engine = case.decider({"type": "string", "minLength": 60}), case.engine()
    writer, prompt = NativeWriter(decider.task, case.folder), len(case.codec.prompt(ITEM)[1])
    whole = decider.generate(ITEM).ids
    for room in range(1, 6):
        *_, last = pieces(writer, engine, prompt + room - 1, Sampling())
        assert last.done == Done.LENGTH
        assert writer.answer()[0] == whole[:room]
    with pytest.raises(RunnerError, match=f"a prompt of {prompt} tokens in a context of {prompt - 1}"):
        writer.begin(ITEM, prompt - 1, Sampling())


def test_any_logits_are_taken(case: Case) -> None:
    """Of a head with as many rows as the tokenizer has tokens, or more."""
    random, tokens = np.random.default_rng(3), case.tokens
    writer = NativeWriter(case.decider().task, case.folder)
    for more in (0, 1, 1000):
        logits = random.normal(0, 9, (30, tokens + more)).astype(np.float32)
        logits[:, 1] = -99  # the end
        writer.begin(ITEM, 1 << 62, Sampling(max_tokens=30))
        told = [writer.give(row) for row in logits]
        wanted = logits.argmax(1)
        assert [piece.id for piece in told] == wanted.tolist()
        assert told[-1].done == Done.LENGTH
        exact = logits.astype(np.float64)
        logprobs = exact[range(30), wanted] - np.log(np.exp(exact).sum(1))
        assert writer.answer()[1] == pytest.approx(logprobs, abs=1e-9)
        assert "".join(piece.text for piece in told) == case.codec.decode(wanted.tolist())


def test_an_app_of_another_runtime_answers_alike(case: Case) -> None:
    native = case.decider(SMALL)
    decider = ChooserDecider(case.engine(), case.library, case.folder / "task.slm")
    for most in (3, 60):
        wanted, found = native.write(ITEM, most), decider.write(ITEM, most)
        assert (found.prompt, found.ids, found.logprobs) == (wanted.prompt, wanted.ids, wanted.logprobs)
        assert found.times["decode_steps"] == len(found.logprobs) - 1
    with pytest.raises(InputError, match="no labels"):
        decider.decide(ITEM)


class Raw:
    """A writer's own functions, in a library that ends the process where its behaviour is undefined."""

    def __init__(self, library: ctypes.CDLL, path: Path) -> None:
        self.task = NativeTask(library, path)
        self.writer = NativeWriter(self.task, path)
        self.slm, self.at = library, self.writer._handle
        self.ids, self.count = POINTER(c_int32)(), c_size_t()
        self.id, self.text, self.done = c_int32(), Text(), c_int32()
        self.size = 2000
        self.logits = (c_float * self.size)(*range(self.size))

    def begin(self, *contents: bytes, **changed: Any) -> int:
        given = {"at": self.at, "fields": texts_of(contents), "count": len(contents), "sampling": None, "context": 99}
        given |= {"ids": byref(self.ids), "id_count": byref(self.count)} | changed
        return int(self.slm.slm_writer_begin(*given.values()))

    def give(self, **changed: Any) -> int:
        given = {"at": self.at, "logits": self.logits, "size": self.size}
        given |= {"id": byref(self.id), "text": byref(self.text), "done": byref(self.done)} | changed
        return int(self.slm.slm_writer_give(*given.values()))

    def said(self) -> str:
        text: bytes = self.slm.slm_writer_error_text(self.at)
        return text.decode()


@pytest.fixture(scope="module")
def free(case: Case) -> Path:
    return case.task(name="free.slm")


@pytest.fixture
def raw(free: Path, native_text: ctypes.CDLL) -> Raw:
    return Raw(native_text, free)


def asking(stops: Sequence[bytes] = (), **changed: Any) -> Any:
    made = Sampling(**changed)
    made.kept, made.stops, made.stop_count = stops, texts_of(stops), len(stops)
    return byref(made)


WRONG_BEGIN: dict[str, tuple[tuple[bytes, ...], dict[str, Any], int, str]] = {
    "no fields": ((b"a",), {"fields": None}, 1, "needs fields"),
    "too few": ((), {}, 1, "0 fields"),
    "too many": ((b"a", b"b"), {}, 1, "2 fields"),
    "a field without bytes": ((b"a",), {"fields": (Text * 1)(Text(None, 3))}, 1, "without bytes"),
    "a field that is no UTF-8": ((b"a\xff",), {}, 9, "a field is not UTF-8"),
    "half a character": ((b"a\xc3",), {}, 9, "a field is not UTF-8"),
    "no place for ids": ((b"a",), {"ids": None}, 1, "places"),
    "no place for their count": ((b"a",), {"id_count": None}, 1, "places"),
    "an empty stop": ((b"a",), {"sampling": asking([b"x", b""])}, 1, "without characters"),
    "a stop that is no UTF-8": ((b"a",), {"sampling": asking([b"x", b"\xe9"])}, 9, "a stop string that is not UTF-8"),
    "a temperature that is no number": ((b"a",), {"sampling": asking(temperature=float("nan"))}, 1, "temperature"),
    "no context": ((b"a",), {"context": 0}, 6, "in a context of 0"),
}


@pytest.mark.parametrize("what", WRONG_BEGIN)
def test_a_wrong_beginning_is_refused(raw: Raw, what: str) -> None:
    contents, changed, status, said = WRONG_BEGIN[what]
    assert raw.begin(b"a") == 0
    assert raw.begin(*contents, **changed) == status
    assert said in raw.said()
    assert raw.give() == 1  # what was begun before has ended
    assert raw.begin(b"a") == 0
    assert raw.give() == 0


def test_stops_that_are_not_there_are_refused(raw: Raw) -> None:
    made = Sampling()
    made.stops, made.stop_count = None, 3
    assert raw.begin(b"a", sampling=byref(made)) == 1


WRONG_GIVE: dict[str, dict[str, Any]] = {
    "no logits": {"logits": None},
    "no place for the id": {"id": None},
    "no place for the text": {"text": None},
    "no place for the end": {"done": None},
    "no logits at all": {"size": 0},
    "more than ids": {"size": (1 << 64) - 1},
}


@pytest.mark.parametrize("what", [*WRONG_GIVE, "fewer than tokens"])
def test_a_wrong_gift_is_refused(case: Case, raw: Raw, what: str) -> None:
    assert raw.give() == 1
    assert "begun" in raw.said()
    assert raw.begin(b"a") == 0
    changed = WRONG_GIVE.get(what, {"size": case.tokens - 1})
    assert raw.give(**changed) == 1
    assert raw.said()
    assert raw.give() == 1
    assert "failed" in raw.said()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 7, -1])
def test_logits_that_are_no_numbers_are_told(raw: Raw, value: float, place: int) -> None:
    assert raw.begin(b"a") == raw.give() == 0
    raw.logits[place] = value
    assert raw.give() == 8
    assert "no numbers" in raw.said()
    assert raw.give() == 1
    assert len(raw.writer.answer()[0]) == 1


def test_logits_at_the_ends_of_what_floats_can_be_are_taken(raw: Raw) -> None:
    greatest = float(np.finfo(np.float32).max)
    for sampling in (asking(), asking(temperature=1e-45, top_k=3), asking(temperature=1000, top_p=1e-30)):
        for low, high in ((-greatest, greatest), (0.0, 0.0), (-greatest, -greatest), (1e-45, 2e-45)):
            raw.logits = (c_float * raw.size)(*[low] * raw.size)
            raw.logits[5] = high
            assert raw.begin(b"a", sampling=sampling) == raw.give() == 0
            assert np.isfinite(raw.writer.answer()[1]).all()


def test_nothing_is_given_after_the_end(raw: Raw) -> None:
    raw.logits[1] = 1e9
    assert raw.begin(b"a") == raw.give() == 0
    assert (raw.done.value, raw.id.value, str(raw.text)) == (Done.ENDED, -1, "")
    assert raw.give() == 1
    assert "done" in raw.said()
    assert (raw.writer.answer()[0], len(raw.writer.answer()[1])) == ((), 1)


def test_a_writer_needs_a_task_with_a_prompt(case: Case, native_text: ctypes.CDLL) -> None:
    sections = dict(Task(case.folder / "tokenizer.json", case.codec, ("a", "b"), [ITEM]).sections)
    del sections[Section.PROMPT]
    write_sections(sections, path := case.folder / "without.slm")
    with pytest.raises(RunnerError, match="damaged: the prompt"):
        NativeTask(native_text, path)  # what labels are chosen for
    del sections[Section.CHOICES]
    write_sections(sections, path)
    with pytest.raises(RunnerError, match="a tokenizer, but no prompt"):
        NativeWriter(NativeTask(native_text, path), path)


def test_calls_without_a_writer_are_refused(raw: Raw) -> None:
    at = c_void_p()
    assert raw.slm.slm_writer_new(None, byref(at), None) == 1
    assert raw.slm.slm_writer_new(raw.task.handle, None, None) == 1
    assert raw.begin(b"a", at=None) == raw.give(at=None) == 1
    raw.slm.slm_writer_free(None)
