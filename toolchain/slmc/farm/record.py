"""What one night says of one bundle on one device: what history keeps and reports show."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, Field, model_validator

from slmc.names import BackendName, TargetName
from slmc.strict import Strict
from slmc.validate.report import RungName

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""As large as a database holds."""
Words = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""PostgreSQL has no text with a zero byte."""
Outcome = Literal["pass", "fail", "unclear", "not run"]


class Series(Strict):
    """What is followed from night to night; all else about it may change."""

    recipe: Words
    target: TargetName
    backend: BackendName
    device: Words
    """As the farm file calls it."""

    def __str__(self) -> str:
        return f"{self.recipe} for {self.target} with {self.backend} on {self.device}"


class Circumstances(Strict):
    """What a night's measurement hung on, each a version or a digest: where one changes, so may the measurement."""

    recipe: Words
    """Digest of the recipe with its data and weights."""
    toolchain: Words
    """slmc's version and the digest of its code."""
    bundle: Words
    control: Words | None
    """Digest of the frozen bundle that speed is held against; None where no speed was asked for."""
    model: Words
    """Of the device."""
    os: Words
    runtime: Words
    """With its version and kernels or delegate."""


class Accuracy(Strict):
    """Of the task's items."""

    items: Annotated[int, Field(gt=0, lt=1 << 31)]
    right: Count
    asked: Words
    """Digest of the workload: nights that asked the same can be compared item by item."""
    answered: str
    """A bit an item in the workload's order, 1 where it was answered right: base64 of numpy.packbits."""

    @model_validator(mode="after")
    def _agree(self) -> Accuracy:
        bits = self.bits()
        if base64.b64encode(np.packbits(bits).tobytes()).decode() != self.answered:
            raise ValueError("bits behind the last item's, or base64 that says the same in another way")
        if int(bits.sum()) != self.right:
            raise ValueError(f"{self.right} right, but {int(bits.sum())} bits that say so")
        return self

    def bits(self) -> npt.NDArray[np.bool_]:
        """[items]: which were answered right. Raises ValueError where there are not so many."""
        packed = np.frombuffer(base64.b64decode(self.answered, validate=True), np.uint8)
        if len(packed) != -(-self.items // 8):
            raise ValueError(f"{len(packed)} bytes are not the bits of {self.items} items")
        return np.unpackbits(packed, count=self.items).astype(np.bool_)


class Conditions(Strict):
    """The worst that a device told of itself between rounds; None where it doesn't tell."""

    load: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    """The most, of the last minute: how many processes ran or waited to run, a core."""
    clock: Share | None
    """The least: what the slowest-set core may have of its highest clock."""
    thermal: Words | None
    """How far the system slowed itself down, in Android's words."""
    temperature: Annotated[float, Field(allow_inf_nan=False)] | None
    """The highest, in degrees Celsius."""
    battery: Share | None
    """The least."""
    charging: bool | None
    """At the end."""


class Speed(Strict):
    """Of decisions, the bundle and its control in turn on the same device."""

    verdict: Literal["measured", "unclear"]
    """Unclear: the rounds varied by more than the limit, or the device was too hot or its battery too low."""
    reason: Words
    """Why it is unclear, and why what was asked for is missing; empty where nothing is."""
    ratio: Positive
    """Median over rounds of the bundle's time to the control's: below 1 is faster."""
    variation: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Of the rounds' ratios: standard deviation over mean."""
    rounds: Annotated[int, Field(gt=0, lt=1 << 31)]
    decision_ms_p50: Positive
    decision_ms_p95: Positive
    first_token_ms: Positive
    prefill_tokens_per_s: Positive | None
    decode_tokens_per_s: Positive | None
    sustained: Positive | None
    """Decisions in the last tenth of a time without a pause, over those in the first: below 1 the device slowed down.
    None where it was not asked for, or can't be told.
    """
    load_ms: Positive
    """The first load's."""
    energy_mj: Positive | None
    """Of a decision in that time, by the battery's counter; None where that can't be told."""
    control_ms_p50: Positive | None
    """The control's own time, median over rounds: what a device that slows down as a whole is seen by. None in nights
    that were kept before it was.
    """
    conditions: Conditions | None
    """None likewise."""


class RungShown(Strict):
    """A rung of the ladder that the device is the last of."""

    name: RungName
    status: Literal["ran", "failed", "not run"]
    right: Count | None
    """Of the task's items; None where it did not run. So are those below, and for the reference."""
    lost: Count | None
    """Items that the rung below it answered right and this one wrong."""
    won: Count | None
    changed: Count | None
    """Answered otherwise than by the rung below, lost and won ones too."""


class FlipShown(Strict):
    """An item that was answered otherwise from some rung on."""

    id: str
    rung: RungName
    kind: Literal["lost", "won", "other"]
    text: str
    expected: str
    before: str
    after: str


class Ladder(Strict):
    """Where answers changed on the way to the device."""

    rungs: Annotated[tuple[RungShown, ...], Field(min_length=1)]
    flips: tuple[FlipShown, ...]
    """Lost ones first; not all where there are many."""
    more: Count
    """That are not told here."""


class Run(Strict):
    """One bundle on one device in one night."""

    series: Series
    circumstances: Circumstances | None
    """None where the night did not come so far as to know them."""
    outcome: Outcome
    """Of the gate between the device and the reference; not run where there is no result."""
    reason: Words
    """Why it is not a pass, in a sentence; empty where it is."""
    accuracy: Accuracy | None
    speed: Speed | None
    peak_memory_bytes: Count | None
    memory_limit_bytes: Count | None
    """Of the device's class."""
    device_class: Words | None
    """Of the target's, as the farm file names it."""
    ladder: Ladder | None
    """None where it was not judged."""


class Control(Strict):
    """What the frozen control said of a device before bundles were asked there."""

    device: Words
    outcome: Literal["pass", "fail", "not run"]
    """Fail: it ended otherwise than it always did, so the device is not fit to say anything of a bundle."""
    reason: Words
    """Empty where it is a pass."""
    decision_ms_p50: Positive | None


class Night(Strict):
    """One run of the farm."""

    id: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]
    started: AwareDatetime
    finished: AwareDatetime
    runs: tuple[Run, ...]
    controls: tuple[Control, ...]
    """Of the devices that have one."""

    @model_validator(mode="after")
    def _once(self) -> Night:
        for what, seen in (
            ("a series", [run.series for run in self.runs]),
            ("a device's control", [control.device for control in self.controls]),
        ):
            if len(set(seen)) != len(seen):
                raise ValueError(f"{what} twice in one night")
        return self
