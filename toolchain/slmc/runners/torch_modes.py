"""The three modes of the contract for a batch of items on a torch model.

A batch's time is shared evenly among its rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from slmc.runners.answers import Times
from slmc.runners.choose import Logits, Verdict, search
from slmc.runners.contract import GenerateItem, Ids, ScoredPosition, ScoreItem
from slmc.runners.logprobs import log_softmax, position
from slmc.runners.torch_batch import last_logits, logits_at, read
from slmc.runners.torch_model import TorchModel
from slmc.text.choices import Branch

if TYPE_CHECKING:
    import torch


class _Clock:
    """Milliseconds since it was last asked, shared by a batch's rows; waits for the device first."""

    def __init__(self, loaded: TorchModel, rows: int) -> None:
        self._device = loaded.device
        self._rows = rows
        self._start = time.perf_counter()

    def share(self) -> float:
        _wait(self._device)
        start, self._start = self._start, time.perf_counter()
        return (self._start - start) * 1000 / self._rows


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


class _Seeker:
    """One row's search, and what it cost."""

    def __init__(self, root: Branch) -> None:
        self._read = len(root.path)
        self._steps = search(root)
        self.verdict: Verdict | None = None
        self.path: Ids = ()
        """Wanted next, after the prompt and the root's path, which are read at first; empty when it is over."""
        self.tokens = 0
        self.calls = 0
        self._take(None)

    def send(self, logits: Logits) -> None:
        if self.verdict is None:
            self._take(logits)

    def _take(self, logits: Logits | None) -> None:
        try:
            wanted = next(self._steps) if logits is None else self._steps.send(logits)
        except StopIteration as done:
            self.path, self.verdict = (), done.value
            return
        self.path = wanted[self._read :]
        self.tokens += len(self.path)
        self.calls += bool(self.path)


def choose(loaded: TorchModel, prompts: Sequence[Ids], roots: Sequence[Branch]) -> Iterator[tuple[Verdict, Times]]:
    """Each row's choice: the searches go on side by side until the last is over."""
    clock = _Clock(loaded, len(prompts))
    rows = [(*prompt, *root.path) for prompt, root in zip(prompts, roots, strict=True)]
    seekers = [_Seeker(root) for root in roots]
    hidden, past = read(loaded, rows)
    for seeker, logits in zip(seekers, last_logits(loaded, hidden, rows), strict=True):
        seeker.send(logits)
    prefill_ms = clock.share()
    while going := [index for index, seeker in enumerate(seekers) if seeker.path]:
        paths = [seekers[index].path for index in going]
        hidden, _ = read(loaded, paths, past.select(going))
        for index, logits in zip(going, last_logits(loaded, hidden, paths), strict=True):
            seekers[index].send(logits)
    decode_ms = clock.share()
    for row, seeker in zip(rows, seekers, strict=True):
        assert seeker.verdict is not None
        yield seeker.verdict, _times(prefill_ms, decode_ms, len(row), seeker.tokens, seeker.calls)


class _Writing:
    """One row's text while it grows."""

    def __init__(self, item: GenerateItem, end_id: int) -> None:
        self._max_tokens = item.max_tokens
        self._end_id = None if item.ignore_end else end_id
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.going = True

    def take(self, logits: Logits) -> None:
        token = int(logits.argmax())
        self.logprobs.append(float(log_softmax(logits)[token]))
        if token != self._end_id:
            self.ids.append(token)
        self.going = token != self._end_id and len(self.ids) < self._max_tokens


def generate(
    loaded: TorchModel, prompts: Sequence[Ids], items: Sequence[GenerateItem], end_id: int
) -> Iterator[tuple[list[int], list[float], Times]]:
    """Each row's greedy ids and their log-probabilities; rows leave the batch as they end."""
    clock = _Clock(loaded, len(prompts))
    texts = [_Writing(item, end_id) for item in items]
    hidden, past = read(loaded, prompts)
    for text, logits in zip(texts, last_logits(loaded, hidden, prompts), strict=True):
        text.take(logits)
    prefill_ms = clock.share()
    there = list(range(len(texts)))  # the batch's rows in `past`
    while going := [index for index in there if texts[index].going]:
        if len(going) < len(there):
            past = past.select([there.index(index) for index in going])
            there = going
        step = [(texts[index].ids[-1],) for index in going]
        hidden, past = read(loaded, step, past)
        for index, logits in zip(going, last_logits(loaded, hidden, step), strict=True):
            texts[index].take(logits)
    decode_ms = clock.share()
    for prompt, text in zip(prompts, texts, strict=True):
        steps = len(text.logprobs) - 1
        yield text.ids, text.logprobs, _times(prefill_ms, decode_ms, len(prompt), steps, steps)


def score(
    loaded: TorchModel, prompts: Sequence[Ids], items: Sequence[ScoreItem]
) -> Iterator[tuple[list[ScoredPosition], Times]]:
    """Each row's positions, all read at once: so there is no decode time, and the continuation counts as prompt."""
    clock = _Clock(loaded, len(prompts))
    rows = [(*prompt, *item.score_ids[:-1]) for prompt, item in zip(prompts, items, strict=True)]
    hidden, _ = read(loaded, rows)
    starts = [len(prompt) - 1 for prompt in prompts]
    places = [
        (row, start + index)
        for row, (start, item) in enumerate(zip(starts, items, strict=True))
        for index in range(len(item.score_ids))
    ]
    logits = logits_at(loaded, hidden, places)
    found = [[_position(next(logits), item, index) for index in range(len(item.score_ids))] for item in items]
    prefill_ms = clock.share()
    for row, positions in zip(rows, found, strict=True):
        yield positions, _times(prefill_ms, 0.0, len(row), 0, 0)


def _position(logits: Logits, item: ScoreItem, index: int) -> ScoredPosition:
    watch = None if item.watch is None else item.watch[index]
    return position(log_softmax(logits), item.score_ids[index], watch)


def _times(prefill_ms: float, decode_ms: float, prefill_tokens: int, decode_tokens: int, steps: int) -> Times:
    return Times(
        prefill_ms=prefill_ms,
        decode_ms=decode_ms,
        prefill_tokens=prefill_tokens,
        decode_tokens=decode_tokens,
        decode_steps=steps,
    )
