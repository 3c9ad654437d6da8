"""What a calibrated method is planned to learn from, and how `auto` goes from step to step. No torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from slmc import quantization
from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.errors import RecipeError
from slmc.plan import Options, Plan, resolve
from slmc.prompt import Codec, compile_prompt
from slmc.quantization import MOST_ITEMS, Chosen, calibration, choose
from slmc.recipe import load_recipe
from slmc.store import Entry, Store
from slmc.target import load_target
from slmc.validate.report import Step


def edit(folder: Path, quantization: str, *, data: str | None = "calibration.jsonl") -> None:
    """Have the recipe quantized so, and learn from three items of its own."""
    path, extra = folder / "recipe.yaml", "" if data is None else f"calibration: {data}, "
    text = path.read_text().replace("credit: ours", f"{extra}credit: ours")
    path.write_text(f"{text}quantization: {quantization}\n")
    write_items(folder, [("a", "say yes", "yes"), ("b", "do say no", "no"), ("c", "", "no")])


def write_items(folder: Path, items: list[tuple[str, str, str]]) -> None:
    lines = [json.dumps({"id": name, "text": text, "label": label}) + "\n" for name, text, label in items]
    (folder / "calibration.jsonl").write_text("".join(lines))


def plan(folder: Path, options: Options | None = None) -> Plan:
    return resolve(load_recipe(folder), load_target("host"), options)


def codec_of(found: Plan) -> Codec:
    return compile_prompt(found.recipe, found.recipe.folder / "base", ())


@pytest.mark.parametrize(
    ("quantization", "blamed"),
    [
        ("{method: gptq}", "gptq"),
        ("{method: tuned}", "tuned"),
        ("{method: auto}", "auto"),
        ("{method: gptq, budget: 5 bits}", "gptq"),
        ("{budget: 5 bits}", "a limit in quantization"),
        ("{max_size_mb: 1}", "a limit in quantization"),
    ],
)
def test_what_is_calibrated_needs_items(recipe_folder: Path, quantization: str, blamed: str) -> None:
    edit(recipe_folder, quantization, data=None)
    with pytest.raises(RecipeError, match=rf"{blamed} needs data\.calibration, which is not given"):
        load_recipe(recipe_folder)


def test_auto_asks_the_gate(recipe_folder: Path) -> None:
    edit(recipe_folder, "{method: auto}")
    assert plan(recipe_folder).validate
    with pytest.raises(RecipeError, match="nothing is to be validated") as caught:
        plan(recipe_folder, Options(validate=False))
    assert "quantization.method" in str(caught.value)
    assert "--no-validate" in str(caught.value)


@pytest.mark.parametrize("method", ["rtn", "gptq", "tuned"])
def test_any_other_method_needs_no_gate(recipe_folder: Path, method: str) -> None:
    edit(recipe_folder, f"{{method: {method}}}")
    found = plan(recipe_folder, Options(validate=False))
    assert found.steps == (found,)


@pytest.mark.parametrize(
    ("limit", "budgets"),
    [
        ("", [("rtn", None), ("gptq", None), ("tuned", None)]),
        (", budget: 5 bits", [("rtn", None), ("gptq", None), ("tuned", None), ("tuned", 5.0)]),
        (
            ", max_size_mb: 0.08",
            [("rtn", None), ("gptq", None), ("tuned", None), ("tuned", pytest.approx(5.32, abs=0.01))],
        ),
    ],
)
def test_auto_tries_the_cheapest_first(
    recipe_folder: Path, limit: str, budgets: list[tuple[str, float | None]]
) -> None:
    edit(recipe_folder, f"{{method: auto, seed: 4{limit}}}")
    steps = plan(recipe_folder).steps
    assert [(step.quantization.method, step.budget) for step in steps] == budgets
    assert {step.quantization.seed for step in steps} == {4}
    assert len({step.quantize.key for step in steps}) == len(steps)


def test_a_step_of_auto_is_the_method_itself(recipe_folder: Path) -> None:
    """What was quantized by name is in the store for auto, and the other way round."""
    edit(recipe_folder, "{method: auto, budget: 5 bits}")
    steps = plan(recipe_folder).steps
    path, text = recipe_folder / "recipe.yaml", (recipe_folder / "recipe.yaml").read_text()
    for step, asked in zip(steps, ("rtn", "gptq", "tuned", "tuned, budget: 5 bits"), strict=True):
        path.write_text(text.replace("auto, budget: 5 bits", asked))
        assert plan(recipe_folder).quantize.key == step.quantize.key


def test_what_is_learned_from_decides_the_result(recipe_folder: Path) -> None:
    """Calibration items and prompt do, for what looks at them alone; the evaluation's items don't."""
    edit(recipe_folder, "{method: gptq}")
    path, text = recipe_folder / "recipe.yaml", (recipe_folder / "recipe.yaml").read_text()

    def keys() -> list[str]:
        found = []
        for asked in ("method: gptq", "method: rtn", "budget: 5 bits"):
            path.write_text(text.replace("method: gptq", asked))
            found.append(plan(recipe_folder).quantize.key)
        return found

    before = keys()
    (recipe_folder / "eval.jsonl").write_text((recipe_folder / "eval.jsonl").read_text() + "\n")
    assert keys() == before
    write_items(recipe_folder, [("a", "say yes", "yes")])
    other_items = keys()
    assert [one == other for one, other in zip(before, other_items, strict=True)] == [False, True, False]
    text = text.replace("{kind: chat}", '{kind: chat, user: "Q: {text}"}')
    assert [one == other for one, other in zip(other_items, keys(), strict=True)] == [False, True, False]


# The calibration items.


def test_items_are_prompts_with_their_answers(recipe_folder: Path) -> None:
    edit(recipe_folder, "{method: gptq}")
    found = plan(recipe_folder)
    codec = codec_of(found)
    sequences = calibration(found, codec).sequences
    assert len(sequences) == 3
    for sequence, (text, label) in zip(sequences, [("say yes", "yes"), ("do say no", "no"), ("", "no")], strict=True):
        assert codec.decode(sequence.ids[sequence.prompt : -1]) == label
        assert sequence.ids[-1] == codec.end_id
        assert list(sequence.ids[: sequence.prompt]) == codec.encode(f"<|user|>{text}<|end|><|assistant|>")


def test_an_item_that_does_not_fit_the_context_is_named(recipe_folder: Path) -> None:
    edit(recipe_folder, "{method: gptq}")
    fits = 64 - 3 - len("yes") - 1  # three tokens of the template, and the end's own
    for length in (fits, fits + 1):
        write_items(recipe_folder, [("short", "hi", "no"), ("long one", "x" * length, "yes")])
        found = plan(recipe_folder)
        if length == fits:
            assert [len(one.ids) for one in calibration(found, codec_of(found)).sequences] == [3 + 2 + 2 + 1, 64]
            continue
        with pytest.raises(RecipeError, match="item 'long one' needs 61 tokens for its prompt and 4 for") as caught:
            calibration(found, codec_of(found))
        assert "calibration.jsonl" in str(caught.value)
        assert "at most 64" in str(caught.value)


def test_of_many_items_some_are_learned_from(recipe_folder: Path) -> None:
    edit(recipe_folder, "{method: gptq}")
    count = 3 * MOST_ITEMS
    write_items(recipe_folder, [(str(number), f"{number:04}", "no") for number in range(count)])
    found = plan(recipe_folder)
    codec = codec_of(found)
    sequences = calibration(found, codec).sequences
    numbers = [int(codec.decode(one.ids[1 : 1 + 4])) for one in sequences]
    assert len(numbers) == MOST_ITEMS
    assert numbers == sorted(set(numbers))
    gaps = {after - before for before, after in itertools.pairwise(numbers)}
    assert gaps <= {2, 3, 4}
    assert calibration(found, codec) == calibration(found, codec)


# Steps of auto, with what they find made up.

STEP = Step(
    method="",
    budget=None,
    bits=4.5,
    seconds=1.0,
    accuracy=0.9,
    divergence=0.1,
    kept=None,
    verdict="fail",
    evidence="made up",
)
Found = Mapping[tuple[str, float | None], tuple[str, float | None]]
"""Verdict and divergence, by method and limit."""


@pytest.fixture
def chosen(recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Found], Chosen]:
    """Let auto choose among steps of which this is found."""
    edit(recipe_folder, "{method: auto, budget: 5 bits}")
    whole = plan(recipe_folder)
    merged = MergedCheckpoint(tmp_path, whole.architecture, "merged")
    reference = Entry("reference", "key", tmp_path, reused=True, seconds=0)

    def stage(attempt: Plan, *_: object) -> Entry:
        return Entry("quantize", attempt.quantize.key, tmp_path / attempt.quantize.key, reused=False, seconds=7.0)

    def choosing(found: Found) -> Chosen:
        def judged(attempt: Plan, *others: object) -> Step:
            verdict, divergence = found[attempt.quantization.method, attempt.budget]
            seconds = others[-1]
            named = {"method": attempt.quantization.method, "budget": attempt.budget, "seconds": seconds}
            return STEP.model_copy(update={**named, "verdict": verdict, "divergence": divergence})

        monkeypatch.setattr(quantization, "quantize_stage", stage)
        monkeypatch.setattr(
            quantization, "open_quantized", lambda folder: QuantizedCheckpoint(folder, whole.architecture, folder.name)
        )
        monkeypatch.setattr(quantization, "_judged", judged)
        return choose(whole, Store(tmp_path / "store"), merged, codec_of(whole), reference)

    return choosing


ALL: Found = {("rtn", None): ("fail", 0.4), ("gptq", None): ("fail", 0.3), ("tuned", None): ("fail", 0.2)}


@pytest.mark.parametrize(
    ("found", "tried", "built"),
    [
        pytest.param({("rtn", None): ("pass", 0.4)}, 1, 0, id="the first is enough"),
        pytest.param(ALL | {("gptq", None): ("pass", 0.5)}, 2, 1, id="one that passes, however far it is"),
        pytest.param(ALL | {("tuned", 5.0): ("pass", 0.1)}, 4, 3, id="the last"),
        pytest.param({("rtn", None): ("unclear", 0.1), ("gptq", None): ("pass", 0.2)}, 2, 1, id="unclear is no pass"),
        pytest.param(ALL | {("tuned", 5.0): ("fail", 0.1)}, 4, 3, id="none, and the last is nearest"),
        pytest.param(ALL | {("tuned", 5.0): ("unclear", 0.35)}, 4, 2, id="none, and another is nearest"),
        pytest.param(ALL | {("tuned", 5.0): ("fail", None)}, 4, 2, id="one that could not be compared"),
        pytest.param(dict.fromkeys([*ALL, ("tuned", 5.0)], ("fail", None)), 4, 0, id="none could be compared"),
    ],
)
def test_the_first_step_that_passes_or_the_nearest(
    chosen: Callable[[Found], Chosen], recipe_folder: Path, found: Found, tried: int, built: int
) -> None:
    choice, steps = chosen(found), plan(recipe_folder).steps
    assert [(step.method, step.budget) for step in choice.steps] == [
        (step.quantization.method, step.budget) for step in steps[:tried]
    ]
    assert [(step.verdict, step.divergence) for step in choice.steps] == list(found.values())[:tried]
    assert all(step.seconds == 7.0 for step in choice.steps)
    assert choice.plan.quantize.key == choice.quantized.digest == steps[built].quantize.key
    assert choice.plan == replace(plan(recipe_folder), quantization=steps[built].quantization)
    assert choice.plan.quantization.method != "auto"
