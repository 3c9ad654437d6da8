"""`adapter_config.json` of a peft adapter: what decides the merge, and whether we merge it ourselves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slmc.checkpoint.folders import read_json_object
from slmc.errors import AdapterError

CONFIG = "adapter_config.json"

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # The other initialisations (pissa, olora, loftq, ...) also change the base when peft loads them.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
"""Values with which an adapter is W + scaling · B A and no more; a key not named here must be null, false or empty."""
_PLAIN = frozenset({"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"})
"""What our own merge reads."""
_WITHOUT_EFFECT = frozenset(
    {
        # which modules were trained: the file's keys tell
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
        # training, and the loading of models
        *("lora_dropout", "inference_mode", "runtime_config", "ensure_weight_tying", "task_type"),
        # of layers that these families do not have: peft turns fan_in_fan_out off for torch's Linear
        *("fan_in_fan_out", "megatron_core"),
        # for initialisations and variants that are switched on by other keys
        *("loftq_config", "eva_config", "qalora_group_size"),
        # where it comes from
        *("auto_mapping", "base_model_name_or_path", "revision", "peft_version"),
    }
)
_PEFT_KNOWS = frozenset(
    {
        *("alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config", "layer_replication", "lora_bias"),
        *("lora_ga_config", "megatron_config", "monteclora_config", "target_parameters", "trainable_token_indices"),
        *("use_bdlora", "use_dora", "use_qalora", "velora_config"),
    }
)
"""Further keys of peft's LoraConfig: where one is set, peft itself merges."""


@dataclass(frozen=True)
class AdapterConfig:
    path: Path
    rank: int
    alpha: float
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    rank_stabilised: bool
    needs_peft: str | None
    """The first key that our own merge does not cover, with its value; None where it covers all."""

    def rank_of(self, module: str) -> int:
        return int(self._by_pattern(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """The factor on B A, as peft computes it."""
        alpha, rank = self._by_pattern(self.alpha_pattern, module, self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    def _by_pattern(self, patterns: Mapping[str, float], module: str, default: float) -> float:
        """The first pattern that matches the end of the module's name, from a dot on (peft's get_pattern_key)."""
        for pattern, value in patterns.items():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
            except re.error as error:
                raise AdapterError(f"{pattern!r} is no regular expression: {error}", where=self.path) from None
        return default


def read_adapter_config(adapter: Path) -> AdapterConfig:
    """Raises AdapterError naming the key that is missing, of another type, or not known."""
    path = adapter / CONFIG
    config = read_json_object(path, AdapterError)
    kind = config.get("peft_type")
    if not isinstance(kind, str):
        raise AdapterError("no peft_type", where=path, expected="an adapter saved by peft")
    needs_peft = _first_special(config, path)
    if kind != "LORA":
        return AdapterConfig(path, 1, 1.0, {}, {}, False, needs_peft)
    return AdapterConfig(
        path,
        rank=int(_positive(config.get("r"), path, "r")),
        alpha=_positive(config.get("lora_alpha"), path, "lora_alpha"),
        rank_pattern=_pattern(config, path, "rank_pattern"),
        alpha_pattern=_pattern(config, path, "alpha_pattern"),
        rank_stabilised=bool(config.get("use_rslora", False)),
        needs_peft=needs_peft,
    )


def _first_special(config: Mapping[str, object], path: Path) -> str | None:
    special = [key for key, value in config.items() if not _covered(key, value)]
    if config["peft_type"] != "LORA":
        return f"peft_type = {config['peft_type']!r}"
    for key in special:
        if key not in _PEFT_KNOWS and key not in _NEUTRAL:
            raise AdapterError(
                f"{key} = {config[key]!r} is not known",
                where=f"{path}: {key}",
                expected="options of peft up to 0.21",
                todo="remove the key if it has no effect on the weights",
            )
    return f"{special[0]} = {config[special[0]]!r}" if special else None


def _covered(key: str, value: object) -> bool:
    if key in _PLAIN or key in _WITHOUT_EFFECT:
        return True
    if key in _NEUTRAL:
        return any(value is neutral or value == neutral for neutral in _NEUTRAL[key])
    return not value


def _positive(value: object, path: Path, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise AdapterError(f"{key} is {value!r}", where=f"{path}: {key}", expected="a positive number")
    return value


def _pattern(config: Mapping[str, object], path: Path, key: str) -> dict[str, float]:
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{key} is not an object", where=f"{path}: {key}", expected="pattern: number")
    return {str(pattern): _positive(value, path, f"{key}.{pattern}") for pattern, value in patterns.items()}
