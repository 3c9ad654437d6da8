"""A recipe with a few hundred items, and results of any rung written as a test wants them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from slmc.prompt import Codec, compile_prompt
from slmc.recipe import Example, LoadedRecipe, load_recipe
from slmc.runners.contract import (
    ChooseItem,
    Chosen,
    Environment,
    Footer,
    Generated,
    Ids,
    Item,
    Result,
    ResultHeader,
    Scored,
    ScoredPosition,
    ScoreItem,
    Workload,
)
from slmc.runners.files import ResultWriter, read_result
from slmc.validate.workload import LABELS, make_workload, with_watch

ITEMS = 400
OTHER = 7
"""A token that is never expected: the reference gives it what the expected one leaves."""
SURE = 0.9


@dataclass(frozen=True)
class Lab:
    """Writes results for one watched workload. `wrong` items answer with the next label."""

    folder: Path
    recipe: LoadedRecipe
    codec: Codec
    plain: Workload
    workload: Workload
    examples: tuple[Example, ...]

    def result(
        self,
        name: str,
        wrong: Collection[str] = (),
        *,
        sure: float = SURE,
        swapped: Collection[str] = (),
        read: Mapping[str, Ids] | None = None,
        texts: Mapping[str, str] | None = None,
        batched: bool = False,
        workload: Workload | None = None,
        probabilities: Mapping[str, float] | None = None,
    ) -> Path:
        """`sure`: probability of the expected token, and of chosen labels where `probabilities` names no other.

        `swapped`: scored items with another first choice.
        """
        asked = workload or self.workload
        path = self.folder / f"{name}.jsonl"
        with ResultWriter(path, ResultHeader(workload=asked.digest, environment=environment(batched))) as writer:
            for index, item in enumerate(asked.items):
                common = {
                    "id": item.id,
                    "prefill_ms": 2.0 + index % 10,
                    "decode_ms": 1.0,
                    "prefill_tokens": len(item.input_ids),
                    "decode_tokens": 1,
                    "decode_steps": 1,
                    "input_ids": (read or {}).get(item.id),
                }
                writer.answer(self._answer(item, common, wrong, sure, swapped, texts or {}, probabilities or {}))
            writer.finish(Footer(peak_memory_bytes=50 * 2**20, load_ms=12.0))
        return path

    def read(self, path: Path) -> Result:
        return read_result(path, self.workload)

    def _answer(
        self,
        item: Item,
        common: dict[str, object],
        wrong: Collection[str],
        sure: float,
        swapped: Collection[str],
        texts: Mapping[str, str],
        probabilities: Mapping[str, float],
    ) -> Chosen | Generated | Scored:
        name = item.id.partition("/")[2]
        if isinstance(item, ScoreItem):
            positions = [position(item, index, sure, name in swapped) for index in range(len(item.score_ids))]
            return Scored.model_validate({**common, "positions": tuple(positions)})
        expected = next(example.answer for example in self.examples if example.id == name)
        if isinstance(item, ChooseItem):
            labels = self.recipe.labels()
            choice = (labels.index(expected) + (name in wrong)) % len(labels)
            ids = self.workload.header.choices[LABELS][choice]
            logprob = float(np.log(probabilities.get(name, sure)))
            told = {"choice": choice, "output_ids": ids, "text": None, "choice_logprobs": ((choice, logprob),)}
            return Chosen.model_validate({**common, **told, "unexplored": 0.0})
        text = texts.get(name, "wrong" if name in wrong else expected)
        return Generated.model_validate(
            {**common, "output_ids": (1,), "ended": True, "text": text, "logprobs": (-0.1,)}
        )


def position(item: ScoreItem, index: int, sure: float, swapped: bool) -> ScoredPosition:
    token = item.score_ids[index]
    told = {token: float(np.log(sure)), OTHER: float(np.log(1 - sure))}
    top = sorted(told.items(), key=lambda pair: -pair[1], reverse=swapped)
    watched = None if item.watch is None else tuple(told[token] for token in item.watch[index])
    return ScoredPosition(top=tuple(top), logprob=told[token], watched=watched)


def environment(batched: bool = False) -> Environment:
    return Environment(
        device="a machine",
        os="an OS",
        runtime="fake",
        version="1",
        threads=None,
        thermal=None,
        artifact="f00d",
        precision="float32",
        batched=batched,
    )


@pytest.fixture
def lab(recipe_folder: Path, tmp_path: Path) -> Lab:
    labels = ("yes", "no", "maybe")
    return make_lab(
        recipe_folder,
        tmp_path,
        'task: {kind: classify, labels: ["yes", "no", "maybe"]}',
        [{"id": f"i{n}", "text": f"say {n}", "label": labels[n % 3]} for n in range(ITEMS)],
    )


def make_lab(recipe_folder: Path, tmp_path: Path, task: str, items: list[dict[str, object]]) -> Lab:
    path = recipe_folder / "recipe.yaml"
    path.write_text(path.read_text().replace('task: {kind: classify, labels: ["yes", "no"]}', task))
    (recipe_folder / "eval.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    recipe = load_recipe(recipe_folder)
    examples = recipe.examples("eval.jsonl")
    codec = compile_prompt(recipe, recipe_folder / "base", examples)
    folder = tmp_path / "lab"
    folder.mkdir()
    plain = make_workload(recipe, codec, folder / "plain.jsonl", context=1024, score_items=100)
    draft = Lab(folder, recipe, codec, plain, plain, examples)
    reference = read_result(draft.result("reference"), plain)
    watched = with_watch(plain, reference, folder / "watched.jsonl")
    return Lab(folder, recipe, codec, plain, watched, examples)
