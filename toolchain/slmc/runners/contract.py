"""The runner contract, version 1: a workload goes in, a result comes out, both JSON lines.

A runner is a program in any language. Its command line ends with

    --workload FILE --result FILE [--codec FOLDER] [--sustain SECONDS]

and it answers every item of the workload once, in any order. It writes `RESULT.partial`, a line
at a time, and renames it to RESULT when the last line is written: a result without its last line
is a truncated one, and no result.

    workload   line 1: WorkloadHeader    then an Item a line
    result     line 1: ResultHeader      then an Answer a line      last line: Footer

With `--codec`, the runner reads each item's prompt itself, from its fields, with the artifact's
own prompt format and tokenizer, and answers from *those* ids; where they are not the workload's,
the answer says so. This is how a changed chat template or tokenizer is caught.

With `--sustain`, which `slm-run` alone has, the runner goes on once every item is answered: it asks
the same items in turn until the time is over, the model loaded as it is. It writes none of these
answers, but how many there were.

All log-probabilities are natural logarithms. Unknown keys, NaN and infinity are errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from slmc.names import Activations
from slmc.strict import Strict

TOP = 64
"""How many of the likeliest next tokens a score answer gives at each position (fewer if the vocabulary is smaller)."""
TENTHS = 10

TokenId = Annotated[int, Field(ge=0)]
Ids = tuple[TokenId, ...]
SomeIds = Annotated[Ids, Field(min_length=1)]
LogProb = Annotated[float, Field(le=1e-3)]
"""Natural logarithm of a probability; a rounding error above zero is let pass."""
Milliseconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Line(Strict):
    """One line of either file."""

    model_config = ConfigDict(allow_inf_nan=False)


class WorkloadHeader(Line):
    slmc_workload: Literal[1] = 1
    digest: str
    """Of all that is asked: end_id, choices and items, whatever is to be watched."""
    end_id: TokenId
    choices: dict[str, tuple[SomeIds, ...]] = Field(default_factory=dict)
    """Sets of choices by name; each choice ends with end_id, so that none is the start of another."""


class _Question(Line):
    id: str
    prompt: str | None = None
    """The text that input_ids spell; None where there is no text, as in a speed measurement."""
    fields: dict[str, str] | None = None
    """What the prompt's placeholders stand for."""
    input_ids: SomeIds


class GenerateItem(_Question):
    """Write greedily until end_id or max_tokens."""

    mode: Literal["generate"] = "generate"
    max_tokens: Annotated[int, Field(gt=0)]
    ignore_end: bool = False
    """Write max_tokens whatever comes, to measure speed."""


class ChooseItem(_Question):
    """Name the likeliest of a set of choices, decoding only among them."""

    mode: Literal["choose"] = "choose"
    choices: str


class ScoreItem(_Question):
    """Log-probabilities at each position of a given continuation."""

    mode: Literal["score"] = "score"
    score_ids: SomeIds
    watch: tuple[Ids, ...] | None = None
    """For each position, the token ids whose log-probabilities are wanted."""


Item = Annotated[GenerateItem | ChooseItem | ScoreItem, Field(discriminator="mode")]


class Environment(Line):
    """Where and with what the answers were made; None where it can't be known."""

    device: str
    os: str
    runtime: str
    version: str
    threads: int | None
    thermal: str | None
    artifact: str
    """Digest of the files that were run."""
    precision: str
    activations: Activations | None = None
    """What weights are multiplied by; None where it is the checkpoint's own precision or not known."""
    simulated: bool = False
    """By an interpreter that stands in for the device's own runtime: its answers count, its times do not."""
    batched: bool
    """Many items at once: timings are shares of a batch, not what one user waits."""


class ResultHeader(Line):
    slmc_result: Literal[1] = 1
    workload: str
    """The workload's digest."""
    environment: Environment


class _Answered(Line):
    id: str
    prefill_ms: Milliseconds
    """From the first token in to the first logits out."""
    decode_ms: Milliseconds
    prefill_tokens: Count
    decode_tokens: Count
    """Tokens that went through the model after the prefill."""
    decode_steps: Count
    """Calls of the model after the prefill."""
    input_ids: SomeIds | None = None
    """What the runner made of the prompt, where that is not the workload's input_ids."""


class Generated(_Answered):
    mode: Literal["generate"] = "generate"
    output_ids: Ids
    """Without the end token."""
    ended: bool
    """The end token came before max_tokens was reached."""
    text: str | None
    logprobs: tuple[LogProb, ...]
    """Of each output id, and of the end token where it came."""


class Chosen(_Answered):
    mode: Literal["choose"] = "choose"
    choice: Count
    """Index into the set of choices: the likeliest, exactly."""
    output_ids: SomeIds
    """The choice's ids, end token and all."""
    text: str | None
    choice_logprobs: tuple[tuple[Count, LogProb], ...]
    """Choice and exact log-probability among the choices, for those that the search came to."""
    unexplored: Annotated[float, Field(ge=0, le=1)]
    """The probability that the other choices share."""


class ScoredPosition(Line):
    top: tuple[tuple[TokenId, LogProb], ...]
    """The TOP likeliest next tokens, likeliest first."""
    logprob: LogProb
    """Of the token that the continuation has here."""
    watched: tuple[LogProb, ...] | None = None


class Scored(_Answered):
    mode: Literal["score"] = "score"
    positions: tuple[ScoredPosition, ...]


Answer = Annotated[Generated | Chosen | Scored, Field(discriminator="mode")]


class Footer(Line):
    finished: Literal[True] = True
    peak_memory_bytes: Count | None
    load_ms: Milliseconds
    sustained: Annotated[tuple[Count, ...], Field(min_length=TENTHS, max_length=TENTHS)] | None = None
    """Answers in each tenth of the time that `--sustain` told; None without it."""


class Failure(Line):
    """A rung without answers: its runner died, was killed, hung, or wrote nonsense."""

    cause: Literal["exit code", "signal", "out of memory", "timeout", "hang", "no result", "nonsense"]
    what: str
    stderr: str = ""
    """The last lines that it wrote."""
    restarted: bool = False
    """The device did, and the runner was gone with it: nothing is said of the runner."""


@dataclass(frozen=True)
class Workload:
    header: WorkloadHeader
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        return self.header.digest


@dataclass(frozen=True)
class Result:
    header: ResultHeader
    answers: dict[str, Answer]
    """By item id, one for every item of the workload."""
    footer: Footer

    @property
    def environment(self) -> Environment:
        return self.header.environment
