from __future__ import annotations

from pathlib import Path

import pytest

from slmc.errors import RecipeError, RunnerError
from slmc.runners.contract import ChooseItem, GenerateItem, Result, Scored, ScoreItem
from slmc.runners.files import read_workload
from slmc.validate.workload import LABELS, make_workload, with_watch

from .conftest import ITEMS, Lab, make_lab


def test_every_example_is_asked_and_some_are_scored(lab: Lab) -> None:
    chosen = [item for item in lab.plain.items if isinstance(item, ChooseItem)]
    scored = [item for item in lab.plain.items if isinstance(item, ScoreItem)]
    assert [item.id for item in chosen] == [f"task/i{n}" for n in range(ITEMS)]
    assert [item.id for item in scored] == [f"score/i{n}" for n in range(0, ITEMS, 4)]
    text, ids = lab.codec.prompt({"text": "say 4"})
    assert (chosen[4].prompt, chosen[4].fields, chosen[4].input_ids) == (text, {"text": "say 4"}, tuple(ids))
    assert list(scored[1].score_ids) == lab.codec.answer(lab.examples[4].answer)
    labels = lab.plain.header.choices[LABELS]
    assert [list(ids) for ids in labels] == [lab.codec.answer(label) for label in lab.recipe.labels()]
    assert lab.plain.header.end_id == lab.codec.end_id == labels[0][-1]


def test_a_limit_is_spread_over_the_file(lab: Lab, tmp_path: Path) -> None:
    few = make_workload(lab.recipe, lab.codec, tmp_path / "w", context=64, limit=4, score_items=2)
    assert [item.id for item in few.items] == [
        *("task/i0", "task/i100", "task/i200", "task/i300"),
        *("score/i0", "score/i200"),
    ]
    assert read_workload(tmp_path / "w") == few


def test_other_tasks_are_written_out(recipe_folder: Path, tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"id": "a", "text": "x", "answer": "long"}]
    lab = make_lab(recipe_folder, tmp_path, "task: {kind: generate, max_tokens: 9}", items)
    first = lab.plain.items[0]
    assert isinstance(first, GenerateItem)
    assert (first.max_tokens, first.ignore_end, lab.plain.header.choices) == (9, False, {})


def test_watching_asks_for_the_references_likeliest_tokens(lab: Lab, tmp_path: Path) -> None:
    plain = lab.result("reference", workload=lab.plain)
    reference = Result(lab.read(plain).header, lab.read(plain).answers, lab.read(plain).footer)
    watched = with_watch(lab.plain, reference, tmp_path / "w")
    assert watched.digest == lab.plain.digest
    for item in watched.items:
        if isinstance(item, ScoreItem):
            answer = reference.answers[item.id]
            assert isinstance(answer, Scored)
            assert item.watch == tuple(tuple(token for token, _ in position.top) for position in answer.positions)


def test_a_reference_without_scores_can_not_be_watched(lab: Lab, tmp_path: Path) -> None:
    found = lab.read(lab.result("reference"))
    with pytest.raises(RunnerError, match="no scores"):
        with_watch(lab.plain, Result(found.header, {}, found.footer), tmp_path / "w")


def test_a_prompt_longer_than_the_context_is_named(lab: Lab, tmp_path: Path) -> None:
    needed = max(len(item.input_ids) for item in lab.plain.items) + len("maybe")  # the end token is never read
    make_workload(lab.recipe, lab.codec, tmp_path / "w", context=needed)
    with pytest.raises(RecipeError, match=r"item 'i100' needs .*\n.*\n  expected: at most"):
        make_workload(lab.recipe, lab.codec, tmp_path / "w2", context=needed - 1)
    assert not (tmp_path / "w2").exists()


def test_a_label_that_can_not_be_spelled_is_named(recipe_folder: Path, tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"id": "a", "text": "x", "label": "yes"}]
    with pytest.raises(RecipeError, match="can't spell the label"):
        make_lab(recipe_folder, tmp_path, "task: {kind: classify, labels: ['yes', 'n<|end|>o']}", items)
