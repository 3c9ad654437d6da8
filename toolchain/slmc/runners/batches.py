"""Answering a workload with a torch model, items of one mode and similar length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from slmc.prompt import Codec
from slmc.runners import torch_modes
from slmc.runners.answers import Answering
from slmc.runners.contract import Answer, ChooseItem, GenerateItem, Ids, ScoreItem, Workload
from slmc.runners.items import read_prompts
from slmc.runners.torch_model import TorchModel
from slmc.text.choices import tree

BATCH_TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 16384}
"""Prompt tokens that go through the model at once, padding included."""

Asked = TypeVar("Asked", ChooseItem, GenerateItem, ScoreItem)


def answers(loaded: TorchModel, workload: Workload, codec: Codec | None) -> Iterator[Answer]:
    """In the order of their batches. Raises InputError for an item that the model can't hold, before any answer."""
    prompts = read_prompts(workload, codec, loaded)
    trees = {name: tree(choices) for name, choices in workload.header.choices.items()}
    answering = Answering(workload, codec)
    limit = BATCH_TOKENS[loaded.device.type]

    choose = [item for item in workload.items if isinstance(item, ChooseItem)]
    for choosing, rows in _batches(choose, prompts, limit):
        verdicts = torch_modes.choose(loaded, rows, [trees[item.choices] for item in choosing])
        for item, row, (verdict, times) in zip(choosing, rows, verdicts, strict=True):
            yield answering.chosen(item, row, verdict, times)

    generate = [item for item in workload.items if isinstance(item, GenerateItem)]
    for writing, rows in _batches(generate, prompts, limit):
        texts = torch_modes.generate(loaded, rows, writing, workload.header.end_id)
        for text_item, row, (ids, logprobs, times) in zip(writing, rows, texts, strict=True):
            yield answering.generated(text_item, row, ids, logprobs, times)

    score = [item for item in workload.items if isinstance(item, ScoreItem)]
    for scoring, rows in _batches(score, prompts, limit):
        scored = torch_modes.score(loaded, rows, scoring)
        for score_item, row, (positions, times) in zip(scoring, rows, scored, strict=True):
            yield answering.scored(score_item, row, positions, times)


def _batches(items: Sequence[Asked], prompts: dict[str, Ids], limit: int) -> Iterator[tuple[list[Asked], list[Ids]]]:
    """Items with their prompts by length, as many at once as the limit holds."""
    batch: list[Asked] = []
    for item in sorted(items, key=lambda item: len(prompts[item.id])):
        if batch and (len(batch) + 1) * len(prompts[item.id]) > limit:
            yield batch, [prompts[one.id] for one in batch]
            batch = []
        batch.append(item)
    if batch:
        yield batch, [prompts[one.id] for one in batch]
