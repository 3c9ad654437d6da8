"""What every rung of the ladder is asked: the recipe's task on its evaluation data, and next-token probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slmc.bundle.golden import evenly
from slmc.errors import RecipeError, RunnerError
from slmc.prompt import Codec
from slmc.recipe import Classify, Example, LoadedRecipe
from slmc.runners.contract import ChooseItem, GenerateItem, Ids, Item, Result, Scored, ScoreItem, Workload
from slmc.runners.files import make, write_workload
from slmc.runners.items import longest_answer

TASK = "task/"
"""Starts the id of an item that asks for the task; the example's id follows."""
SCORE = "score/"
"""Starts the id of an item that asks for probabilities along the expected answer."""
SCORE_ITEMS = 1000
SIDE_ITEMS = 1000
"""At most so many items are asked beside the ladder."""
LABELS = "labels"


def make_workload(
    recipe: LoadedRecipe,
    codec: Codec,
    out: Path,
    *,
    context: int,
    limit: int | None = None,
    score_items: int = SCORE_ITEMS,
) -> Workload:
    """Ask for the whole evaluation file, or an evenly spread part of it, and write the workload to `out`.

    `score_items` of the examples, evenly spread, are also scored along their expected answer, end token and all.
    Raises RecipeError for a prompt that does not fit the context or a label that the tokenizer can't spell.
    """
    file = recipe.recipe.data.evaluation
    examples = recipe.examples(file)
    asked = evenly(examples, len(examples) if limit is None else limit)
    items = [_task_item(recipe, codec, example) for example in asked]
    items += [_score_item(codec, example) for example in evenly(asked, score_items)]
    workload = _workload(recipe, codec, items, context, file)
    write_workload(workload, out)
    return workload


def calibration_workload(recipe: LoadedRecipe, codec: Codec, *, context: int) -> Workload:
    """Ask for the calibration examples' task, or for SIDE_ITEMS of them; errors as for `make_workload`."""
    file = recipe.recipe.data.calibration
    assert file is not None, "the recipe has no calibration file"
    asked = evenly(recipe.examples(file), SIDE_ITEMS)
    return _workload(recipe, codec, [_task_item(recipe, codec, example) for example in asked], context, file)


def base_workload(workload: Workload) -> Workload:
    """What the base is asked without the adapter: the task items, or SIDE_ITEMS of them."""
    items = [item for item in workload.items if item.id.startswith(TASK)]
    return make(workload.header.end_id, workload.header.choices, evenly(items, SIDE_ITEMS))


def with_watch(workload: Workload, reference: Result, out: Path) -> Workload:
    """The same questions, also asking for the log-probabilities of the reference's likeliest tokens.

    So the divergence from the reference can be computed without a whole vocabulary of numbers a token.
    """
    items = [_watching(item, reference) for item in workload.items]
    watching = make(workload.header.end_id, workload.header.choices, items)
    write_workload(watching, out)
    return watching


def _watching(item: Item, reference: Result) -> Item:
    if not isinstance(item, ScoreItem):
        return item
    answer = reference.answers.get(item.id)
    if not isinstance(answer, Scored):
        raise RunnerError(f"the reference's result has no scores for item {item.id!r}")
    watch = tuple(tuple(token for token, _ in position.top) for position in answer.positions)
    return item.model_copy(update={"watch": watch})


def _workload(recipe: LoadedRecipe, codec: Codec, items: Sequence[Item], context: int, file: str) -> Workload:
    """Checked items; `file` is the data file that they are from."""
    labels = recipe.labels()
    codec.check_labels(labels)
    choices = {LABELS: tuple(tuple(codec.answer(label)) for label in labels)} if labels else {}
    for item in items:
        answer = longest_answer(item, choices)
        check_length(item.id.partition("/")[2], len(item.input_ids), answer, context, recipe.file(file))
    return make(codec.end_id, choices, items)


def _task_item(recipe: LoadedRecipe, codec: Codec, example: Example) -> Item:
    text, ids = codec.prompt(example.fields)
    task = recipe.recipe.task
    name, prompt_ids = TASK + example.id, tuple(ids)
    if isinstance(task, Classify):
        return ChooseItem(id=name, prompt=text, fields=example.fields, input_ids=prompt_ids, choices=LABELS)
    return GenerateItem(id=name, prompt=text, fields=example.fields, input_ids=prompt_ids, max_tokens=task.max_tokens)


def _score_item(codec: Codec, example: Example) -> Item:
    text, ids = codec.prompt(example.fields)
    answer: Ids = tuple(codec.answer(example.answer))
    return ScoreItem(id=SCORE + example.id, prompt=text, fields=example.fields, input_ids=tuple(ids), score_ids=answer)


def check_length(name: str, prompt: int, answer: int, context: int, file: Path) -> None:
    """Raises RecipeError for an item of a data file whose prompt and answer, in tokens, do not fit the context."""
    if prompt + answer > context:
        raise RecipeError(
            f"item {name!r} needs {prompt} tokens for its prompt and {answer} for its answer",
            where=file,
            expected=f"at most {context}, the context that is built",
            todo="raise `context` in the recipe, or shorten the item",
        )
