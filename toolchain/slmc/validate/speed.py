"""How fast: a protocol for `slmc bench`, and what a task's own result tells.

The protocol: random prompts of 128 and of 512 tokens, so that no cache helps; warm-up first; then
several rounds in which the two lengths alternate, so that a machine that slows down slows both.
64 tokens are written after the short prompt, whatever they are.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmc.errors import InputError
from slmc.runners.contract import Answer, Environment, GenerateItem, Result, Workload
from slmc.runners.files import make, write_workload
from slmc.strict import Strict
from slmc.validate.workload import TASK

SHORT, LONG, WRITTEN = 128, 512, 64
"""Tokens of the two prompts, and tokens written."""
WARM_UP, ROUNDS = 2, 7
SEED = 20


class Spread(Strict):
    """Repeated measurements of one thing."""

    median: float
    least: float
    most: float
    variation: float
    """Standard deviation over mean."""
    count: int


class PrefillSpeed(Strict):
    """Reading a prompt."""

    prompt_tokens: int
    wanted_tokens: int
    """More than prompt_tokens where the model's context is too small for the protocol."""
    tokens_per_s: Spread
    first_token_ms: Spread


class Speed(Strict):
    """What `slmc bench` measured."""

    environment: Environment
    short: PrefillSpeed
    long: PrefillSpeed
    decoded_tokens: int
    decode_tokens_per_s: Spread
    load_ms: float
    peak_memory_bytes: int | None


class TaskSpeed(Strict):
    """Speed on the task's own items, one decision each."""

    batched: bool
    """Timings are shares of batches: throughput, and no user's wait."""
    first_token_ms_p50: float
    """From a prompt in to its first logits out."""
    decision_ms_p50: float
    decision_ms_p95: float
    decision_ms: tuple[float, ...]
    """Quantiles in equal steps of probability, from the least to the greatest."""
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    load_ms: float
    peak_memory_bytes: int | None


def bench_workload(vocab_size: int, context: int, end_id: int, out: Path, *, rounds: int = ROUNDS) -> Workload:
    """Write the protocol's workload, its prompts cut to a small context. Raises InputError below 2 * WRITTEN tokens."""
    if context < 2 * WRITTEN:
        raise InputError(f"a context of {context} tokens is too small to measure speed", expected=f"{2 * WRITTEN}")
    lengths = {"short": min(SHORT, context - WRITTEN + 1), "long": min(LONG, context)}
    rng = np.random.default_rng(SEED)
    names = [f"{'warm-up' if turn < WARM_UP else 'round'}/{turn}" for turn in range(WARM_UP + rounds)]
    items = [
        GenerateItem(
            id=f"{kind}/{name}",
            input_ids=tuple(int(token) for token in rng.integers(0, vocab_size, length)),
            max_tokens=WRITTEN if kind == "short" else 1,
            ignore_end=True,
        )
        for name in names
        for kind, length in lengths.items()
    ]
    workload = make(end_id, {}, items)
    write_workload(workload, out)
    return workload


def summarize(result: Result) -> Speed:
    """The measurements of a bench workload's result, warm-up left out."""
    if result.environment.simulated:
        raise InputError("the times of a simulation are no speed", todo="run it on a Mac")
    short, long = _rounds(result, "short"), _rounds(result, "long")
    return Speed(
        environment=result.environment,
        short=_prefill_speed(short, SHORT),
        long=_prefill_speed(long, LONG),
        decoded_tokens=short[0].decode_tokens + 1,
        decode_tokens_per_s=_spread([_rate(answer.decode_tokens, answer.decode_ms) for answer in short]),
        load_ms=result.footer.load_ms,
        peak_memory_bytes=result.footer.peak_memory_bytes,
    )


def task_speed(result: Result) -> TaskSpeed:
    answers = [answer for name, answer in result.answers.items() if name.startswith(TASK)]
    waits = np.array([answer.prefill_ms + answer.decode_ms for answer in answers])
    return TaskSpeed(
        batched=result.environment.batched,
        first_token_ms_p50=float(np.quantile([answer.prefill_ms for answer in answers], 0.5)),
        decision_ms_p50=float(np.quantile(waits, 0.5)),
        decision_ms_p95=float(np.quantile(waits, 0.95)),
        decision_ms=tuple(float(value) for value in np.quantile(waits, np.linspace(0, 1, 101))),
        prefill_tokens_per_s=_overall(
            sum(answer.prefill_tokens for answer in answers), sum(answer.prefill_ms for answer in answers)
        ),
        decode_tokens_per_s=_overall(
            sum(answer.decode_tokens for answer in answers), sum(answer.decode_ms for answer in answers)
        ),
        load_ms=result.footer.load_ms,
        peak_memory_bytes=result.footer.peak_memory_bytes,
    )


def _rounds(result: Result, kind: str) -> list[Answer]:
    found = [answer for name, answer in result.answers.items() if name.startswith(f"{kind}/round/")]
    if not found:
        raise InputError("the result is not one of a bench workload")
    return found


def _prefill_speed(answers: Sequence[Answer], wanted: int) -> PrefillSpeed:
    return PrefillSpeed(
        prompt_tokens=answers[0].prefill_tokens,
        wanted_tokens=wanted,
        tokens_per_s=_spread([_rate(answer.prefill_tokens, answer.prefill_ms) for answer in answers]),
        first_token_ms=_spread([answer.prefill_ms for answer in answers]),
    )


def _rate(tokens: int, ms: float) -> float:
    """Tokens per second. Raises InputError for a timing of nothing."""
    rate = _overall(tokens, ms)
    if rate is None:
        raise InputError("the result has no timings to compute a speed from")
    return rate


def _overall(tokens: int, ms: float) -> float | None:
    return 1000 * tokens / ms if tokens and ms > 0 else None


def _spread(values: Sequence[float]) -> Spread:
    mean = statistics.fmean(values)
    return Spread(
        median=statistics.median(values),
        least=min(values),
        most=max(values),
        variation=statistics.pstdev(values) / mean if mean else 0.0,
        count=len(values),
    )
