"""What every runner does with an item before the model: read the prompt, and check that it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from slmc.errors import InputError
from slmc.prompt import Codec
from slmc.runners.contract import GenerateItem, Ids, Item, ScoreItem, Workload


class Limits(Protocol):
    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...


def read_prompts(workload: Workload, codec: Codec | None, limits: Limits) -> dict[str, Ids]:
    """The prompt's ids of each item, through the runner's own tokenizer where there is one.

    Raises InputError naming the item that the model can't hold.
    """
    prompts = {item.id: _prompt_ids(item, codec) for item in workload.items}
    for item in workload.items:
        prompt = prompts[item.id]
        after = longest_answer(item, workload.header.choices)
        if len(prompt) + after > limits.context:
            raise InputError(
                f"item {item.id!r} needs {len(prompt)} + {after} tokens",
                expected=f"at most the model's context, {limits.context}",
                todo="raise `context` in the recipe, or shorten the item",
            )
        if max((*prompt, *_named_ids(item))) >= limits.vocab_size:
            raise InputError(f"item {item.id!r} has a token beyond the vocabulary of {limits.vocab_size}")
    header = workload.header
    choice_ids = (token for choices in header.choices.values() for choice in choices for token in choice)
    if max((header.end_id, *choice_ids)) >= limits.vocab_size:
        raise InputError(f"a choice has a token beyond the vocabulary of {limits.vocab_size}")
    return prompts


def _prompt_ids(item: Item, codec: Codec | None) -> Ids:
    if codec is None or item.fields is None:
        return item.input_ids
    return tuple(codec.prompt(item.fields)[1])


def longest_answer(item: Item, choices: Mapping[str, Sequence[Ids]]) -> int:
    """Tokens that may go through the model after the prompt; an answer's last one never does."""
    if isinstance(item, GenerateItem):
        return item.max_tokens - 1
    if isinstance(item, ScoreItem):
        return len(item.score_ids) - 1
    return max(len(choice) for choice in choices[item.choices]) - 1


def _named_ids(item: Item) -> Ids:
    """Ids that the item names beside its prompt."""
    if not isinstance(item, ScoreItem):
        return ()
    return (*item.score_ids, *(token for watched in item.watch or () for token in watched))
