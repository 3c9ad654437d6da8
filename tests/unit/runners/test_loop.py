"""The loop over an engine, against the fake model's own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slmc.errors import InputError, RunnerError
from slmc.prompt import Codec, compile_prompt
from slmc.recipe import load_recipe
from slmc.runners.contract import (
    ChooseItem,
    Chosen,
    Footer,
    Generated,
    GenerateItem,
    Result,
    ResultHeader,
    Scored,
    ScoreItem,
    Workload,
)
from slmc.runners.files import ResultWriter, make, read_result
from slmc.runners.loop import answer_all

from .conftest import CONTEXT, END, VOCAB, FakeEngine, next_logits


def answered(
    workload: Workload,
    header: ResultHeader,
    tmp_path: Path,
    engine: FakeEngine | None = None,
    codec: Codec | None = None,
) -> Result:
    path = tmp_path / "result.jsonl"
    with ResultWriter(path, header.model_copy(update={"workload": workload.digest})) as writer:
        answer_all(engine or FakeEngine(), workload, codec, writer)
        writer.finish(Footer(peak_memory_bytes=1, load_ms=2))
    return read_result(path, workload)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits.astype(np.float64)).sum())


def test_generate_is_greedy(workload: Workload, header: ResultHeader, tmp_path: Path) -> None:
    ids, logprobs = [5, 6], []
    while len(ids) < 2 + 4:
        logits = next_logits(ids)
        logprobs.append(log_softmax(logits).max())
        if logits.argmax() == END:
            break
        ids.append(int(logits.argmax()))
    answer = answered(workload, header, tmp_path).answers["g"]
    assert isinstance(answer, Generated)
    assert answer.output_ids == tuple(ids[2:])
    assert answer.logprobs == pytest.approx(logprobs, abs=1e-5)
    assert answer.ended == (len(logprobs) > len(ids) - 2)
    assert (answer.prefill_tokens, answer.decode_steps) == (2, len(logprobs) - 1)


def test_generate_ends_at_the_end_token_unless_told_not_to(header: ResultHeader, tmp_path: Path) -> None:
    end = int(next_logits([5]).argmax())
    both = make(
        end,
        {},
        [
            GenerateItem(id="ends", input_ids=(5,), max_tokens=3),
            GenerateItem(id="goes on", input_ids=(5,), max_tokens=3, ignore_end=True),
        ],
    )
    answers = answered(both, header, tmp_path).answers
    ends, goes_on = answers["ends"], answers["goes on"]
    assert isinstance(ends, Generated)
    assert isinstance(goes_on, Generated)
    assert (ends.output_ids, ends.ended) == ((), True)
    assert (len(goes_on.output_ids), goes_on.output_ids[0], goes_on.ended) == (3, end, False)
    assert goes_on.decode_steps == 2


def test_choose_restricts_each_branch_point(workload: Workload, header: ResultHeader, tmp_path: Path) -> None:
    root = next_logits([7, 8]).astype(np.float64)
    below = next_logits([7, 8, 1]).astype(np.float64)
    one = root[1] - np.logaddexp(root[1], root[4])
    wanted = [
        one + below[2] - np.logaddexp(below[2], below[3]),
        one + below[3] - np.logaddexp(below[2], below[3]),
        root[4] - np.logaddexp(root[1], root[4]),
    ]
    answer = answered(workload, header, tmp_path).answers["c"]
    assert isinstance(answer, Chosen)
    assert answer.choice == int(np.argmax(wanted))
    for choice, logprob in answer.choice_logprobs:
        assert logprob == pytest.approx(wanted[choice], abs=1e-5)


def test_the_engine_is_stepped_back_only_as_far_as_paths_differ(header: ResultHeader, tmp_path: Path) -> None:
    shared = (1, 2, 3)  # all choices start so: one prefill covers it
    choices = tuple((*shared, a, b, END) for a in (4, 5) for b in (6, 7))
    engine = FakeEngine()
    asked = make(END, {"labels": choices}, [ChooseItem(id="c", input_ids=(7, 8), choices="labels")])
    answer = answered(asked, header, tmp_path, engine).answers["c"]
    assert engine.calls == [(0, 5), (5, 1), (5, 1)]
    assert (answer.prefill_tokens, answer.decode_tokens, answer.decode_steps) == (5, 2, 2)


def test_score_tells_each_position(workload: Workload, header: ResultHeader, tmp_path: Path) -> None:
    answer = answered(workload, header, tmp_path).answers["s"]
    assert isinstance(answer, Scored)
    for index, (read, token) in enumerate((([3], 2), ([3, 2], 4), ([3, 2, 4], END))):
        wanted, position = log_softmax(next_logits(read)), answer.positions[index]
        assert position.logprob == pytest.approx(wanted[token], abs=1e-5)
        assert [token for token, _ in position.top] == list(np.argsort(-wanted))
        assert [logprob for _, logprob in position.top] == pytest.approx(sorted(wanted, reverse=True), abs=1e-5)
    assert answer.positions[1].watched == ()
    first = log_softmax(next_logits([3]))
    assert answer.positions[0].watched == pytest.approx([first[1], first[2]], abs=1e-5)


def test_a_runner_with_its_own_tokenizer_tells_other_ids(
    recipe_folder: Path, header: ResultHeader, tmp_path: Path
) -> None:
    recipe = load_recipe(recipe_folder)
    codec = compile_prompt(recipe, recipe_folder / "base", recipe.examples("eval.jsonl"))
    right = tuple(codec.prompt({"text": "a"})[1])
    items = [
        GenerateItem(id=name, fields={"text": "a"}, input_ids=ids, max_tokens=1)
        for name, ids in (("same", right), ("other", (*right[:-1], 1)))
    ]

    class Wide(FakeEngine):
        vocab_size = codec.vocab_size

    answers = answered(make(END, {}, items), header, tmp_path, Wide(), codec).answers
    assert answers["same"].input_ids is None
    assert answers["other"].input_ids == right
    first = answers["other"]
    assert isinstance(first, Generated)
    assert first.text == codec.decode(first.output_ids)


@pytest.mark.parametrize(
    ("item", "match"),
    [
        (GenerateItem(id="long", input_ids=(1,) * CONTEXT, max_tokens=2), "needs 16 \\+ 1 tokens"),
        (GenerateItem(id="odd", input_ids=(VOCAB,), max_tokens=1), "beyond the vocabulary"),
        (ScoreItem(id="odd", input_ids=(1,), score_ids=(1,), watch=((VOCAB,),)), "beyond the vocabulary"),
    ],
)
def test_an_item_that_the_model_can_not_hold_is_refused_before_any_answer(
    item: GenerateItem | ScoreItem, match: str, header: ResultHeader, tmp_path: Path
) -> None:
    engine = FakeEngine()
    good = GenerateItem(id="good", input_ids=(1,), max_tokens=1)
    with pytest.raises(InputError, match=match):
        answered(make(END, {}, [good, item]), header, tmp_path, engine)
    assert engine.calls == []


def test_an_item_may_fill_the_context_to_its_end(header: ResultHeader, tmp_path: Path) -> None:
    item = GenerateItem(id="full", input_ids=(1,) * (CONTEXT - 2), max_tokens=3, ignore_end=True)
    answer = answered(make(END, {}, [item]), header, tmp_path).answers["full"]
    assert isinstance(answer, Generated)
    assert len(answer.output_ids) == 3


@pytest.mark.parametrize("item", [0, 1, 2])
def test_logits_that_are_no_numbers_end_the_run(
    item: int, workload: Workload, header: ResultHeader, tmp_path: Path
) -> None:
    class Broken(FakeEngine):
        def extend(self, ids: list[int]) -> np.ndarray:
            return super().extend(ids) * np.float32("nan")

    with pytest.raises(RunnerError, match="not finite"):
        answered(make(END, workload.header.choices, [workload.items[item]]), header, tmp_path, Broken())
    assert not (tmp_path / "result.jsonl").exists()
