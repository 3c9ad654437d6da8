from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmc.errors import RunnerError
from slmc.recipe import Example
from slmc.validate.metrics import FieldScore, field_scores, is_right, label_scores, micro_f1, texts

from .conftest import Lab, make_lab

EXTRACT = "task: {kind: extract, json_schema: schema.json}"


@pytest.fixture
def extract(recipe_folder: Path, tmp_path: Path) -> Lab:
    (recipe_folder / "schema.json").write_text("{}")
    items: list[dict[str, object]] = [{"id": str(n), "text": f"t{n}", "answer": {"n": n, "on": True}} for n in range(3)]
    return make_lab(recipe_folder, tmp_path, EXTRACT, items)


def test_choices_become_their_labels(lab: Lab) -> None:
    found = texts(lab.recipe, lab.read(lab.result("rung", wrong={"i1"})))
    assert [found[f"i{n}"] for n in range(4)] == ["yes", "maybe", "maybe", "yes"]
    assert len(found) == len(lab.examples)


def test_a_text_that_is_missing_is_an_error(extract: Lab) -> None:
    path = extract.result("rung")
    lines = path.read_text().split("\n")
    lines[1] = json.dumps(json.loads(lines[1]) | {"text": None})
    path.write_text("\n".join(lines))
    with pytest.raises(RunnerError, match="no text"):
        texts(extract.recipe, extract.read(path))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"n":1,"on":true}', True),
        (' {"on": true, "n": 1}\n', True),
        ('{"n":1,"on":1}', False),
        ('{"n":1}', False),
        ('{"n":1,"on":true,"x":0}', False),
        ("[1]", False),
        ("not JSON", False),
        ("[" * 100_000, False),
    ],
)
def test_an_extracted_object_is_right_whatever_its_layout(answer: str, right: bool, extract: Lab) -> None:
    assert is_right(extract.recipe, '{"n":1,"on":true}', answer) == right


def test_two_answers_that_are_no_objects_are_not_alike(extract: Lab) -> None:
    assert not is_right(extract.recipe, '{"n":1}', "null")


def test_text_is_right_but_for_white_space_around_it(lab: Lab) -> None:
    assert is_right(lab.recipe, "yes", " yes\n")
    assert not is_right(lab.recipe, "yes", "Yes")


def test_labels_are_counted(lab: Lab) -> None:
    answers = {example.id: example.answer for example in lab.examples} | {"i0": "no", "i3": "maybe", "i1": "yes"}
    yes, no, maybe = label_scores(lab.examples, answers, lab.recipe.labels())
    assert (yes.total, yes.right, yes.answered) == (134, 132, 133)
    assert (no.total, no.right, no.answered) == (133, 132, 133)
    assert (maybe.total, maybe.right, maybe.answered) == (133, 133, 134)


def test_fields_are_counted_one_by_one() -> None:
    examples = [Example("a", {}, '{"x":1,"y":2}'), Example("b", {}, '{"x":1}'), Example("c", {}, '{"y":3}')]
    answers = {"a": '{"x":1,"y":5}', "b": '{"x":1,"z":0}', "c": "nothing"}
    scores = field_scores(examples, answers)
    assert scores == (
        FieldScore(field="x", right=2, wrong=0, missed=0),
        FieldScore(field="y", right=0, wrong=1, missed=2),
        FieldScore(field="z", right=0, wrong=1, missed=0),
    )
    # precision 2/4, recall 2/4
    assert micro_f1(scores) == pytest.approx(0.5)
