"""A base that was quantized before: what its `quantization_config` says of each tensor.

Of compressed-tensors' pack-quantized format, which llm-compressor writes, we read signed integers of
4 or 8 bits, symmetric, in groups along the input axis. Everything else that would change the numbers
is refused by its key; keys without effect on stored weights (observers, versions) are let pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from slmc.architecture import MATRICES, Architecture, TensorSpec
from slmc.config_json import read_config
from slmc.errors import CheckpointError
from slmc.names import SCHEMES, Scheme

CONFIG_KEY = "quantization_config"
_TODO = "use the checkpoint from before it was quantized"
_REGEX = "re:"


def imported_schemes(folder: Path, architecture: Architecture) -> dict[str, Scheme]:
    """The scheme of each tensor that is packed in the folder, by its name; empty where none is.

    Raises CheckpointError naming the key that we can't take as it is.
    """
    config, where = read_config(folder).get(CONFIG_KEY), f"{folder / 'config.json'}: {CONFIG_KEY}"
    if config is None:
        return {}
    section = _Section.of(config, where)
    targets, ignored = _targets(section), section.names("ignore")
    found = {}
    for spec in architecture.tensors():
        if spec.role in MATRICES and not any(_matches(pattern, spec, where) for pattern in ignored):
            scheme = next((scheme for target, scheme in targets if _matches(target, spec, where)), None)
            if scheme is not None:
                found[spec.name] = scheme
    sizes = sorted({scheme.group_size for scheme in found.values()})
    if len(sizes) > 1:
        raise section.refuse(f"groups of {sizes[0]} and of {sizes[1]}", "one size for all")
    return found


def _targets(section: _Section) -> list[tuple[str, Scheme]]:
    """In compressed-tensors' order of precedence: names, then regular expressions, then classes of modules."""
    section.one_of("quant_method", "compressed-tensors")
    section.one_of("format", "pack-quantized")
    section.one_of("quantization_status", "compressed")
    for key in ("kv_cache_scheme", "transform_config", "moe_sparsity_config"):
        section.nothing(key)
    if section.values.get("sparsity_config"):
        section.section("sparsity_config").one_of("format", "dense")
    groups = section.section("config_groups")
    found = {target: scheme for name in groups.values for target, scheme in _group(groups.section(name))}
    return sorted(found.items(), key=lambda item: (item[0] in _CLASSES.values(), item[0].startswith(_REGEX), item[0]))


def _group(group: _Section) -> Iterator[tuple[str, Scheme]]:
    group.one_of("format", None, "pack-quantized")
    group.nothing("input_activations")
    group.nothing("output_activations")
    weights = group.section("weights")
    weights.one_of("type", None, "int")
    weights.one_of("symmetric", None, True)
    weights.one_of("strategy", None, "group")
    weights.one_of("dynamic", None, False)
    weights.one_of("actorder", None, "weight", "static")
    bits = weights.one_of("num_bits", 4, 8)
    size = weights.one_of("group_size", *sorted({scheme.group_size for scheme in SCHEMES.values()}))
    scheme = next(scheme for scheme in SCHEMES.values() if (scheme.bits, scheme.group_size) == (bits, size))
    for target in group.names("targets"):
        yield target, scheme


_CLASSES = {"embedding": "Embedding", "head": "Linear", "linear": "Linear"}
"""torch's class of a tensor's module, by the tensor's role."""


def _matches(pattern: str, spec: TensorSpec, where: str) -> bool:
    """As compressed-tensors has it: a module's name, its class, or a regular expression for the name's beginning."""
    module = spec.name.removesuffix(".weight")
    if not pattern.startswith(_REGEX):
        return pattern in (module, _CLASSES[spec.role])
    try:
        return re.match(pattern.removeprefix(_REGEX), module) is not None
    except re.error as error:
        raise CheckpointError(f"{pattern!r} is no regular expression: {error}", where=where) from None


@dataclass(frozen=True)
class _Section:
    """A JSON object of the config; every error names the key."""

    values: Mapping[str, object]
    where: str

    @classmethod
    def of(cls, value: object, where: str) -> _Section:
        if not isinstance(value, dict):
            raise CheckpointError(f"not an object but {value!r}", where=where)
        return cls(value, where)

    def section(self, key: str) -> _Section:
        return self.of(self.values.get(key), f"{self.where}.{key}")

    def names(self, key: str) -> list[str]:
        found = self.values.get(key) or []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise self.refuse(f"{key} is {found!r}", "a list of names")
        return found

    def one_of(self, key: str, *allowed: object) -> object:
        """The value of a key, None where it is missing."""
        value = self.values.get(key)
        if not any(value is one or (value == one and type(value) is type(one)) for one in allowed):
            raise self.refuse(f"{key} is {value!r}", " or ".join(repr(one) for one in allowed if one is not None))
        return value

    def nothing(self, key: str) -> None:
        if self.values.get(key):
            raise self.refuse(f"{key} is {self.values[key]!r}", "none")

    def refuse(self, what: str, expected: str) -> CheckpointError:
        return CheckpointError(what, where=self.where, expected=expected, todo=_TODO)
