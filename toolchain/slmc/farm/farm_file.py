"""farm.yaml: which recipes are built and asked on which devices every night."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, field_validator, model_validator

from slmc.errors import RecipeError
from slmc.names import BackendName, TargetName
from slmc.strict import Strict, parse
from slmc.target import load_target

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
WITHOUT_APP: BackendName = "tvm"
"""Whose bundles a device runs by `slm-run`."""
Seconds = Annotated[float, Field(ge=0)]


class FarmDevice(Strict):
    """A device of the farm."""

    at: str = Field(
        description="local, ssh:[USER@]HOST[:PORT], adb:SERIAL, apple:UDID, or aws-device-farm:ARN, a device of AWS "
        "Device Farm: billed to the project whose ARN is in SLMC_DEVICE_FARM_PROJECT"
    )
    target: TargetName = Field(description="whose bundles it is asked")
    backends: Annotated[tuple[BackendName, ...], Field(min_length=1)] = Field(
        default=(WITHOUT_APP,),
        description="of the target's; others than tvm run on this machine alone (`at: local`), by their Python runner",
    )
    device_class: str | None = Field(
        default=None, description="of the target's, whose limit of memory it is held against; by default none"
    )

    @model_validator(mode="after")
    def _has_class(self) -> FarmDevice:
        known = [one.name for one in load_target(self.target).device_classes]
        if self.device_class is not None and self.device_class not in known:
            raise ValueError(f"{self.device_class!r} is no class of target {self.target}: {', '.join(known) or 'none'}")
        return self

    @model_validator(mode="after")
    def _runs(self) -> FarmDevice:
        known = load_target(self.target).backends
        for backend in self.backends:
            if self.backends.count(backend) > 1:
                raise ValueError(f"{backend!r} twice")
            if backend not in known:
                raise ValueError(f"{backend!r} is no backend of target {self.target}: {', '.join(known)}")
            if backend != WITHOUT_APP and self.at != "local":
                raise ValueError(f"{self.at} runs bundles of backend {WITHOUT_APP}, of {backend} within an app alone")
        return self


class SpeedPlan(Strict):
    """How the speed of decisions is measured: the bundle and its control in turn, in processes of their own."""

    rounds: Annotated[int, Field(ge=3)] = Field(default=7, description="after one that is left out")
    items: Annotated[int, Field(gt=0)] = Field(default=100, description="of the task's, each round")
    most_variation: Annotated[float, Field(gt=0)] = Field(
        default=0.05, description="of the rounds' ratios, standard deviation over mean: above it the verdict is unclear"
    )
    cool_down_s: Seconds = Field(default=300, description="that a hot device is waited for, in all")
    sustained_s: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=0,
        description="that each bundle is asked without a pause on each device, after its rounds: 600 tells how "
        "a device that becomes hot slows down, and what a decision takes from the battery; 0, no such run",
    )


class Farm(Strict):
    devices: dict[Name, FarmDevice] = Field(min_length=1)
    recipes: Annotated[tuple[str, ...], Field(min_length=1)] = Field(description="folders, from this file's own")
    controls: dict[TargetName, str] = Field(
        default_factory=dict,
        description="by target, a bundle that is never built anew, from this file's folder: what speed is held against",
    )
    speed: SpeedPlan = SpeedPlan()

    @field_validator("devices")
    @classmethod
    def _apart(cls, devices: dict[str, FarmDevice]) -> dict[str, FarmDevice]:
        places = [entry.at for entry in devices.values()]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is two devices: it would do two things at once")
        return devices

    @field_validator("recipes")
    @classmethod
    def _named_once(cls, recipes: tuple[str, ...]) -> tuple[str, ...]:
        names = [Path(recipe).name for recipe in recipes]
        if len(set(names)) < len(names):
            raise ValueError("two recipes in folders of one name")
        return recipes


def load_farm(path: Path) -> Farm:
    """Raises RecipeError naming the key that is wrong."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"the farm file can't be read: {error}", where=path) from None
    return parse(Farm, raw, path, RecipeError)
