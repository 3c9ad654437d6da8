"""Text in, decision out: the native library's prompt, tokenizer and search against the same in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from slmc.errors import RunnerError
from slmc.runners.choose import UNEXPLORED
from slmc.runners.loop import decide
from slmc.runners.native_decider import NativeDecider
from slmc.runners.native_engine import NativeEngine
from slmc.text.choices import tree
from slmc.text.golden import Golden
from slmc.text.task import Task, write_task

from ..native_files import MODELS
from ..task_files import LABELS, codec, task_bytes
from ..tokenizer_kinds import SENTENCES
from .native_model import write_model

pytestmark = pytest.mark.build

KINDS = ("llama3", "gemma", "unigram_bytes")


class Case:
    """A random model with a task."""

    def __init__(self, folder: Path, model: str, kind: str, library: Path) -> None:
        own = MODELS[model]
        self.model, self.task, self.library = folder / "model", folder / "task.slm", library
        write_model(self.model, replace(own, config=replace(own.config, vocab_size=1000)))
        task_bytes(folder, kind)
        self.codec = codec(kind)

    def decider(self, **options: object) -> NativeDecider:
        return NativeDecider(self.model, self.task, library=self.library, **options)  # type: ignore[arg-type]


@pytest.fixture(
    scope="module", params=[(model, kind) for model in MODELS for kind in KINDS[: 1 if model == "plain" else 3]]
)
def case(request: pytest.FixtureRequest, host_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"), *request.param, host_library)


def items() -> list[Mapping[str, str]]:
    random = Random(3)
    texts = [*SENTENCES, "", " ", "a", "<|user|>", "weather\n\n", "e\u0301" * 9]
    return [{"text": random.choice(texts)[:40], "more": random.choice(texts)[:20]} for _ in range(25)]


@pytest.mark.parametrize("threads", [1, 2])
def test_decisions_are_those_of_the_search_in_python(case: Case, threads: int) -> None:
    engine, root = NativeEngine(case.model, library=case.library), tree([tuple(case.codec.answer(x)) for x in LABELS])
    decider = case.decider(threads=threads)
    for fields in items():
        found = decider.classify(fields)
        assert list(found.prompt_ids) == case.codec.prompt(fields)[1]
        engine.rewind(0)
        wanted = decide(engine, found.prompt_ids, root)
        assert found.choice == wanted.choice
        assert found.probability == pytest.approx(2.718281828459045 ** wanted.logprobs[wanted.choice], abs=1e-6)
        assert 0 <= found.unexplored < UNEXPLORED
        for choice in found.logprobs.keys() & wanted.logprobs.keys():
            assert found.logprobs[choice] == pytest.approx(wanted.logprobs[choice], abs=1e-9)


def test_what_was_asked_before_changes_nothing(case: Case) -> None:
    asked = items()
    fresh = [case.decider().classify(fields) for fields in asked]
    decider = case.decider()
    for index in Random(1).sample(range(len(asked)), len(asked)):
        again = decider.classify(asked[index])
        assert (again.choice, again.logprobs) == (fresh[index].choice, fresh[index].logprobs)


def test_what_prompts_begin_with_is_read_once(case: Case, tmp_path: Path) -> None:
    fields, file = items()[0], tmp_path / "prefix.slm"
    file.write_bytes(case.decider().prefix())
    known, fresh = case.decider(prefix=file).classify(fields), case.decider().classify(fields)
    assert (known.choice, known.logprobs) == (fresh.choice, fresh.logprobs)
    assert known.prefill_tokens < fresh.prefill_tokens == len(fresh.prompt_ids)


def test_a_beginning_that_is_another_s_is_refused(case: Case, host_library: Path, tmp_path: Path) -> None:
    whole, file = case.decider().prefix(), tmp_path / "prefix.slm"
    code, weights, digest = 24, 48, 80
    for changed, said in (
        (whole[:-1], "another prompt"),
        (b"x" + whole[1:], "not a prompt's beginning"),
        (whole[:code] + b"\1" * 8 + whole[code + 8 :], "another version of the library"),
        (whole[:weights] + bytes(32) + whole[weights + 32 :], "another model"),
        (whole[:digest] + bytes(32) + whole[digest + 32 :], "other bytes than its digest"),
        (whole[:112] + bytes([whole[112] ^ 1]) + whole[113:], "another prompt"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "other bytes than its digest"),
    ):
        file.write_bytes(changed)
        with pytest.raises(RunnerError, match=said):
            case.decider(prefix=file)
    with pytest.raises(RunnerError, match="can't be opened"):
        case.decider(prefix=tmp_path / "none")


def golden(case: Case, decider: NativeDecider) -> list[Golden]:
    decided = [(fields, decider.classify(fields)) for fields in items()[:5]]
    return [
        Golden(f"item {number}", fields, found.prompt_ids, found.choice, found.probability)
        for number, (fields, found) in enumerate(decided)
    ]


def test_the_canary_names_what_broke(case: Case, tmp_path: Path) -> None:
    task = Task(case.task.with_name("tokenizer.json"), case.codec, LABELS, items())
    good, path = golden(case, case.decider()), tmp_path / "task.slm"
    other = (good[2].choice or 0) ^ 1
    for changed, failed, said in (
        (good, None, ""),
        ([*good[:2], replace(good[2], choice=other), *good[3:]], 2, "item item 2: the model says label"),
        ([*good[:3], replace(good[3], probability=good[3].probability + 0.01), *good[4:]], 3, "the model says label"),
        ([*good[:4], replace(good[4], ids=[*good[4].ids[:-1], 7])], 4, "item item 4: the prompt has other tokens"),
    ):
        write_task(task, path, changed)
        found = NativeDecider(case.model, path, library=case.library).self_test()
        assert (found.items, found.failed) == (5, failed)
        assert said in found.text


def test_what_can_not_be_decided_is_refused_and_the_next_is_decided(case: Case) -> None:
    decider = case.decider()
    wanted = decider.classify(items()[0])
    with pytest.raises(RunnerError, match="in a context of 200"):
        decider.classify({"text": "Zürich " * 300, "more": ""})
    decider.cancel()
    with pytest.raises(RunnerError, match="cancelled"):
        decider.classify(items()[1])
    again = decider.classify(items()[0])
    assert (again.choice, again.logprobs) == (wanted.choice, wanted.logprobs)


def test_below_the_threshold_it_abstains(case: Case) -> None:
    fields = items()[0]
    found = case.decider().classify(fields)
    assert not found.abstained
    assert not case.decider(abstain_below=found.probability - 1e-4).classify(fields).abstained
    assert case.decider(abstain_below=found.probability + 1e-4).classify(fields).abstained


def test_only_rows_that_labels_need_are_kept(case: Case) -> None:
    branches = tree([tuple(case.codec.answer(label)) for label in LABELS])
    tokens, nodes = set[int](), [branches]
    for node in nodes:
        tokens |= node.below.keys()
        nodes += node.below.values()
    assert case.decider().head_rows == (-(-len(tokens) // 32) * 32, 1024)


def test_a_task_of_another_vocabulary_is_refused(case: Case, host_library: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "small", MODELS["plain"])
    with pytest.raises(RunnerError, match="they don't belong together"):
        NativeDecider(tmp_path / "small", case.task, library=host_library)
