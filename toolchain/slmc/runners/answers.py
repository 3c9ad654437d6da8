"""Answers from what a model said, in the contract's form: the same for one item at a time and for batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from slmc.prompt import Codec
from slmc.runners.choose import Verdict
from slmc.runners.contract import (
    ChooseItem,
    Chosen,
    Generated,
    GenerateItem,
    Ids,
    Item,
    Scored,
    ScoredPosition,
    ScoreItem,
    Workload,
)
from slmc.runners.logprobs import rounded


class Times(TypedDict):
    """An answer's timings, as the contract names them."""

    prefill_ms: float
    decode_ms: float
    prefill_tokens: int
    decode_tokens: int
    decode_steps: int


@dataclass(frozen=True)
class Answering:
    workload: Workload
    codec: Codec | None

    def chosen(self, item: ChooseItem, prompt: Ids, verdict: Verdict, times: Times) -> Chosen:
        ids = self.workload.header.choices[item.choices][verdict.choice]
        return Chosen(
            id=item.id,
            choice=verdict.choice,
            output_ids=ids,
            text=self._text(ids[:-1]),
            choice_logprobs=tuple((choice, rounded(value)) for choice, value in sorted(verdict.logprobs.items())),
            unexplored=verdict.unexplored,
            input_ids=_own(item, prompt),
            **times,
        )

    def generated(
        self, item: GenerateItem, prompt: Ids, ids: Sequence[int], logprobs: Sequence[float], times: Times
    ) -> Generated:
        """`logprobs` has one value more than `ids` where the end token came."""
        return Generated(
            id=item.id,
            output_ids=tuple(ids),
            ended=len(logprobs) > len(ids),
            text=self._text(ids),
            logprobs=tuple(rounded(value) for value in logprobs),
            input_ids=_own(item, prompt),
            **times,
        )

    def scored(self, item: ScoreItem, prompt: Ids, positions: Sequence[ScoredPosition], times: Times) -> Scored:
        return Scored(id=item.id, positions=tuple(positions), input_ids=_own(item, prompt), **times)

    def _text(self, ids: Sequence[int]) -> str | None:
        return None if self.codec is None else self.codec.decode(ids)


def _own(item: Item, prompt: Ids) -> Ids | None:
    return None if prompt == item.input_ids else prompt
