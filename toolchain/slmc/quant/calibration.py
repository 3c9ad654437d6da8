"""What calibrated methods are asked for and learn from: the recipe's own prompts with their answers, as token ids."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Sequence:
    """A prompt followed by its expected answer and the end token."""

    ids: tuple[int, ...]
    prompt: int
    """How many of the ids are the prompt's: at least one, and not all."""


@dataclass(frozen=True)
class Calibration:
    sequences: tuple[Sequence, ...]
    prompt_weight: float = 1.0
    """What an error at a prompt's position counts in a layer, where one at an answer's counts 1.

    Less was not surely better: see docs/quantization.md. The answers have their say in the survey.
    """


@dataclass(frozen=True)
class Order:
    """What is to be done."""

    method: Literal["rtn", "gptq", "tuned"]
    budget: float | None = None
    """Mean bits, scales included, that the quantized tensors may take a weight; None where nothing limits them."""
    matrices: Several[tuple[str, ...]] = ()
    """Names of tensors that must share their bits; a limit is spent on one of these after another."""
    seed: int = 0
    threads: int = 1
    """Whatever the process is set to: sums in another order round to other codes."""
