"""What an adapter's file does to which tensor of the base: low-rank pairs and whole replacements.

Keys are `base_model.model.<module>` with `.lora_A.weight` and `.lora_B.weight` (linears),
`.lora_embedding_A` and `.lora_embedding_B` (embedding), `.base_layer.weight` (the base's own
weight, which peft saves beside an adapted embedding or head), or the name of a whole tensor
(`modules_to_save`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slmc.architecture import EMBEDDING, HEAD, Architecture, TensorSpec
from slmc.checkpoint.adapter_config import AdapterConfig
from slmc.checkpoint.reader import TensorReader
from slmc.errors import AdapterError, CheckpointError

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_BASE_LAYER = ".base_layer.weight"
_PAIR_SUFFIXES = {
    ".lora_A.weight": ("A", False),
    ".lora_B.weight": ("B", False),
    ".lora_embedding_A": ("A", True),
    ".lora_embedding_B": ("B", True),
}


@dataclass(frozen=True)
class LowRank:
    """Keys of a pair: scaling · B A is added to a linear's weight, its transpose to an embedding's."""

    a: str
    b: str
    scaling: float


@dataclass(frozen=True)
class Change:
    """What becomes of one tensor of the base."""

    replacement: str | None = None
    """The key with the whole tensor; None where the base's own stays underneath."""
    low_rank: LowRank | None = None


def weights_path(adapter: Path) -> Path:
    """Raises AdapterError where there is only a pickle, or nothing."""
    path = adapter / WEIGHTS
    if path.is_file():
        return path
    pickled = (adapter / "adapter_model.bin").is_file()
    raise AdapterError(
        "the adapter is a pickle, which can run code when it is read" if pickled else "no weights in the adapter",
        where=adapter,
        expected=WEIGHTS,
        todo="save it again with peft: save_pretrained writes safetensors",
    )


@contextmanager
def told_as_adapter_errors() -> Iterator[None]:
    """What reading says of a checkpoint's files, said of the adapter's."""
    try:
        yield
    except CheckpointError as error:
        raise AdapterError(error.what, where=error.where, expected=error.expected, todo=error.todo) from None


def adaptable(architecture: Architecture) -> dict[str, TensorSpec]:
    """The base's tensors by name; a tied head too, as an adapter can part it from the embedding."""
    specs = {spec.name: spec for spec in architecture.tensors()}
    return specs | {HEAD: TensorSpec(HEAD, specs[EMBEDDING].shape, "head")}


def read_changes(reader: TensorReader, config: AdapterConfig, architecture: Architecture) -> dict[str, Change]:
    """Every key accounted for. Raises AdapterError naming the key that does not fit this base."""
    keys = _Keys(reader, config, adaptable(architecture))
    for key in reader.names:
        keys.sort_in(key)
    if not reader.names:
        raise AdapterError("the adapter holds no tensor", where=reader.place)
    if architecture.tied and EMBEDDING in keys.bases:
        # peft loads the saved base weight into the one parameter that head and embedding share.
        keys.bases.setdefault(HEAD, keys.bases[EMBEDDING])
    pairs = {name: keys.low_rank(name) for name in keys.pairs}
    return {
        name: Change(keys.replacements.get(name, keys.bases.get(name)), pairs.get(name))
        for name in keys.specs
        if name in pairs or name in keys.replacements or name in keys.bases
    }


@dataclass(frozen=True)
class _Keys:
    """The adapter's keys by the tensor that each is about."""

    reader: TensorReader
    config: AdapterConfig
    specs: Mapping[str, TensorSpec]
    pairs: dict[str, dict[str, str]] = field(default_factory=dict)
    """A and B."""
    replacements: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)

    def sort_in(self, key: str) -> None:
        name = key.removeprefix(_PREFIX)
        if name == key:
            raise self._error(key, "is not a key that peft saves", f"keys that begin with {_PREFIX}")
        if name in self.specs:
            self._check_shape(key, self.specs[name].shape)
            self.replacements[name] = key
        elif name.endswith(_BASE_LAYER):
            tensor = self._tensor(key, name.removesuffix(_BASE_LAYER))
            self._check_shape(key, self.specs[tensor].shape)
            self.bases[tensor] = key
        else:
            self._sort_in_pair(key, name)

    def _sort_in_pair(self, key: str, name: str) -> None:
        suffix = next((suffix for suffix in _PAIR_SUFFIXES if name.endswith(suffix)), None)
        if suffix is None:
            raise self._error(key, "fits no tensor of the base", "LoRA pairs and whole tensors of this base")
        half, of_embedding = _PAIR_SUFFIXES[suffix]
        tensor = self._tensor(key, name.removesuffix(suffix))
        wanted = ("embedding",) if of_embedding else ("linear", "head")
        if self.specs[tensor].role not in wanted:
            raise self._error(key, f"can't adapt {tensor}", f"half of a pair for {' or '.join(wanted)}")
        self.pairs.setdefault(tensor, {})[half] = key

    def low_rank(self, tensor: str) -> LowRank:
        pair, module = self.pairs[tensor], tensor.removesuffix(".weight")
        for half, other in (("A", "B"), ("B", "A")):
            if half not in pair:
                raise self._error(pair[other], f"has no {half} beside it", "both halves of the pair")
        if tensor in self.replacements:
            raise self._error(pair["A"], f"adapts a tensor that {self.replacements[tensor]} replaces", "one of them")
        rank, shape = self.config.rank_of(module), self.specs[tensor].shape
        rows, columns = reversed(shape) if self.specs[tensor].role == "embedding" else shape
        self._check_shape(pair["A"], (rank, columns))
        self._check_shape(pair["B"], (rows, rank))
        return LowRank(pair["A"], pair["B"], self.config.scaling_of(module))

    def _tensor(self, key: str, module: str) -> str:
        tensor = module + ".weight"
        if tensor not in self.specs:
            raise self._error(key, f"adapts {module}, which the base does not have", "an adapter for this base")
        return tensor

    def _check_shape(self, key: str, expected: tuple[int, ...]) -> None:
        if self.reader.shape(key) != expected:
            raise self._error(
                key,
                f"has shape {list(self.reader.shape(key))}",
                f"{list(expected)}, by the base and {self.config.path.name}",
            )

    def _error(self, key: str, what: str, expected: str) -> AdapterError:
        return AdapterError(f"{key} {what}", where=self.reader.place, expected=expected)
