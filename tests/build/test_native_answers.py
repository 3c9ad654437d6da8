"""Answers in text: the same as step by step in Python, always within the grammar, never half a character."""

from __future__ import annotations

import json
import struct
from ctypes import POINTER, byref, c_char_p, c_int32, c_void_p
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from slmc.errors import RunnerError
from slmc.prompt import Codec, PromptFormat
from slmc.runners.contract import GenerateItem
from slmc.runners.loop import _generate, _Timed
from slmc.runners.native_decider import Done, NativeDecider
from slmc.runners.native_engine import NativeEngine
from slmc.text.automaton import DEAD, START
from slmc.text.grammar import compile_schema
from slmc.text.native_text import Text
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
    library: Path

    def decider(self, schema: dict[str, Any] | None = None) -> NativeDecider:
        task = Task(self.folder / "tokenizer.json", self.codec, (), [ITEM], schema)
        write_task(task, path := self.folder / "task.slm")
        return NativeDecider(self.folder / "model", path, library=self.library)


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
    size = tokenizer.get_vocab_size() + 5  # a model may have more than its tokenizer
    write_model(folder / "model", Model(replace(PLAIN.config, vocab_size=size), PLAIN.layers))
    return Case(folder, Codec(tokenizer, form), library)


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
    decider, engine = case.decider(), NativeEngine(case.folder / "model", library=case.library)
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
    engine = NativeEngine(case.folder / "model", library=case.library)
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

    def begin(self) -> int:
        return int(self.slm.slm_answer_begin(self.at, self.fields, 1, None))

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
