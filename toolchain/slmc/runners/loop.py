"""Answering a workload with an engine, one item at a time, as a phone does it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from slmc.errors import InputError
from slmc.prompt import Codec
from slmc.runners.answers import Answering, Times
from slmc.runners.choose import Logits, Verdict, search
from slmc.runners.contract import (
    ChooseItem,
    GenerateItem,
    Ids,
    ScoredPosition,
    ScoreItem,
    Workload,
)
from slmc.runners.engine import Engine
from slmc.runners.files import ResultWriter
from slmc.runners.items import read_prompts
from slmc.runners.logprobs import log_softmax, position
from slmc.text.choices import Branch, tree


@dataclass(frozen=True)
class Written:
    prompt: Ids
    """As it was read."""
    ids: Ids
    """Without the end token."""
    logprobs: Sequence[float]
    """Of each id, and of the end token where it came."""
    times: Times


class Decider(Protocol):
    """What answers a task from an item's fields: text in, decision out."""

    @property
    def labels(self) -> Sequence[str]: ...

    def decide(self, fields: Mapping[str, str]) -> tuple[Ids, Verdict, Times]:
        """Choose among the task's own labels: the prompt's ids as it read them, the verdict and the times."""
        ...

    def write(self, fields: Mapping[str, str], max_tokens: int) -> Written:
        """Write greedily, within the task's grammar where it has one."""
        ...


def answer_all(
    engine: Engine, workload: Workload, codec: Codec | None, writer: ResultWriter, decider: Decider | None = None
) -> None:
    """Raises InputError for an item that the engine can't hold, before any is answered, or for choices that are not
    the decider's labels.
    """
    prompts = read_prompts(workload, codec, engine)
    trees = {name: tree(choices) for name, choices in workload.header.choices.items()}
    answering = Answering(workload, codec)
    if decider is not None:
        _check_labels(decider, workload)
    for item in workload.items:
        prompt, model = prompts[item.id], _Timed(engine)
        if decider is not None and isinstance(item, ChooseItem) and item.fields is not None:
            prompt, verdict, times = decider.decide(item.fields)
            writer.answer(answering.chosen(item, prompt, verdict, times))
        elif decider is not None and isinstance(item, GenerateItem) and item.fields is not None:
            written = decider.write(item.fields, item.max_tokens)
            writer.answer(answering.generated(item, written.prompt, written.ids, written.logprobs, written.times))
        elif isinstance(item, ChooseItem):
            verdict = decide(model, prompt, trees[item.choices])
            writer.answer(answering.chosen(item, prompt, verdict, model.times))
        elif isinstance(item, ScoreItem):
            writer.answer(answering.scored(item, prompt, _score(model, prompt, item), model.times))
        else:
            ids, logprobs = _generate(model, prompt, item, workload.header.end_id)
            writer.answer(answering.generated(item, prompt, ids, logprobs, model.times))


def _check_labels(decider: Decider, workload: Workload) -> None:
    for name, choices in workload.header.choices.items():
        if len(choices) != len(decider.labels):
            raise InputError(
                f"choices {name!r} of the workload are {len(choices)}, the task file has {len(decider.labels)} labels",
                todo="take the workload that was made for this bundle",
            )


class _Timed:
    """An engine from its start on one item: the first call is the prefill, the others decode."""

    def __init__(self, engine: Engine) -> None:
        engine.rewind(0)
        self._engine = engine
        self.times = Times(prefill_ms=0.0, decode_ms=0.0, prefill_tokens=0, decode_tokens=0, decode_steps=0)

    def extend(self, ids: Sequence[int]) -> Logits:
        start = time.perf_counter()
        logits = self._engine.extend(ids)
        spent = (time.perf_counter() - start) * 1000
        times = self.times
        if times["prefill_tokens"] == 0:
            times["prefill_ms"], times["prefill_tokens"] = spent, len(ids)
        else:
            times["decode_ms"] += spent
            times["decode_tokens"] += len(ids)
            times["decode_steps"] += 1
        return logits

    def rewind(self, position: int) -> None:
        self._engine.rewind(position)


class Stepping(Protocol):
    """What an engine and its like can do."""

    def extend(self, ids: Sequence[int]) -> Logits: ...

    def rewind(self, position: int) -> None: ...


def decide(model: Stepping, prompt: Ids, root: Branch) -> Verdict:
    """Which of the choices after a prompt. The model holds nothing before.

    Searches with one engine: step back to where the wanted path leaves the last one, and on from there.
    """
    steps = search(root)
    held: Ids | None = None
    try:
        wanted = next(steps)
        while True:
            if held is None:
                logits = model.extend((*prompt, *wanted))
            else:
                same = shared(held, wanted)
                model.rewind(len(prompt) + same)
                logits = model.extend(wanted[same:])
            held, wanted = wanted, steps.send(logits)
    except StopIteration as done:
        verdict: Verdict = done.value
        return verdict


def shared(first: Ids, second: Ids) -> int:
    """Length of the common start; less than all of `second`, as a search asks for no path that it has passed."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _generate(model: _Timed, prompt: Ids, item: GenerateItem, end_id: int) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    logprobs: list[float] = []
    logits = model.extend(prompt)
    while True:
        token = int(logits.argmax())
        logprobs.append(float(log_softmax(logits)[token]))
        if token == end_id and not item.ignore_end:
            return ids, logprobs
        ids.append(token)
        if len(ids) == item.max_tokens:
            return ids, logprobs
        logits = model.extend([token])


def _score(model: _Timed, prompt: Ids, item: ScoreItem) -> list[ScoredPosition]:
    positions = []
    logits = model.extend(prompt)
    for index, token in enumerate(item.score_ids):
        watch = None if item.watch is None else item.watch[index]
        positions.append(position(log_softmax(logits), token, watch))
        if index + 1 < len(item.score_ids):
            logits = model.extend([token])
    return positions
