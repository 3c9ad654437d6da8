"""From recipe and target to everything a build will do, before it does any of it.

`resolve` settles each choice and remembers whether it was the recipe's, the target's or the
caller's; `foretell` predicts sizes; the stages' keys tell what the store already holds.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, Literal, TypeVar

from slmc import __version__, digest
from slmc.architecture import Architecture, TensorSpec, read_architecture
from slmc.errors import InputError, RecipeError
from slmc.names import BackendName, SchemeName
from slmc.recipe import LoadedRecipe, TargetOverrides
from slmc.sources import locate, source_digest
from slmc.store import Stage
from slmc.target import DeviceClass, Target, TvmVariant, host_variant

DEFAULT_CONTEXT = 512
Origin = Literal["default", "recipe", "target", "option"]
Value = TypeVar("Value")

TOOLS: Mapping[str, tuple[str, ...]] = {
    "reference": ("torch", "transformers"),
    "tvm": ("apache-tvm", "apache-tvm-ffi", "ziglang"),
    "executorch": ("executorch", "torch"),
    "coreml": ("coremltools",),
    "mlc": ("apache-tvm", "apache-tvm-ffi"),
}
"""The installed packages that decide what a stage makes."""


@dataclass(frozen=True)
class Choice(Generic[Value]):
    value: Value
    origin: Origin


@dataclass(frozen=True)
class Forecast:
    """Bytes, foretold from the architecture alone."""

    weights: int
    kv_cache: int
    activations: int

    @property
    def memory(self) -> int:
        return self.weights + self.kv_cache + self.activations


@dataclass(frozen=True)
class Fit:
    """Whether the forecast fits what one process may use on a class of devices."""

    device: DeviceClass
    share: float

    @property
    def fits(self) -> bool:
        return self.share <= 1.0


@dataclass(frozen=True)
class Plan:
    recipe: LoadedRecipe
    target: Target
    backend: Choice[BackendName]
    scheme: Choice[SchemeName]
    context: Choice[int]
    variant: TvmVariant | None
    validate: bool
    architecture: Architecture
    forecast: Forecast
    merge: Stage
    quantize: Stage
    compile: Stage
    bundle: Stage

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.merge, self.quantize, self.compile, self.bundle)

    @property
    def name(self) -> str:
        """The bundle's folder name."""
        recipe = self.recipe.recipe
        return f"{recipe.name}-{recipe.version}-{self.target.name}-{self.backend.value}"

    def fits(self) -> tuple[Fit, ...]:
        limit = 1024 * 1024
        return tuple(
            Fit(device, self.forecast.memory / (device.process_mib * limit)) for device in self.target.memory_classes()
        )


@dataclass(frozen=True)
class Options:
    """What the caller asked for on the command line."""

    backend: BackendName | None = None
    validate: bool = True
    """Run the reference and the ladder; without them the golden file has the data's answers alone."""


def resolve(recipe: LoadedRecipe, target: Target, options: Options | None = None) -> Plan:
    """Settle everything. Raises RecipeError, CheckpointError or InputError where something can't be.

    Reads the base's config and, for local folders, the digests of all their files; never torch.
    """
    options = options or Options()
    overrides = recipe.recipe.targets.get(target.name, TargetOverrides())
    backend = _backend(target, overrides, options)
    scheme = _scheme(recipe, overrides)
    architecture = read_architecture(locate(recipe, recipe.recipe.base, weights=False))
    context = _context(recipe, overrides, architecture)
    _check_context(recipe, context.value, architecture)
    variant = host_variant(target) if backend.value == "tvm" and target.name == "host" else None
    merge = _merge_stage(recipe)
    quantize = _quantize_stage(recipe, scheme.value, merge)
    compile_ = _compile_stage(target, variant, backend.value, context.value, quantize)
    return Plan(
        recipe=recipe,
        target=target,
        backend=backend,
        scheme=scheme,
        context=context,
        variant=variant,
        validate=options.validate,
        architecture=architecture,
        forecast=foretell(architecture, scheme.value, recipe.recipe.quantization.keep, context.value),
        merge=merge,
        quantize=quantize,
        compile=compile_,
        bundle=_bundle_stage(recipe, compile_, options),
    )


def foretell(architecture: Architecture, scheme: SchemeName, keep: tuple[str, ...], context: int) -> Forecast:
    """Bytes of weights, KV cache (fp16) and a full prefill's activations (fp32, one layer alive)."""
    a, group = architecture, int(scheme.rpartition("-g")[2])
    weights = sum(_tensor_bytes(tensor, group, keep, a.dtype) for tensor in a.tensors())
    kv_cache = 2 * a.layers * a.kv_heads * a.head_dim * context * 2
    qkv = (a.heads + 2 * a.kv_heads) * a.head_dim
    widest = max(qkv + a.heads * a.head_dim, 2 * a.intermediate_size) + 2 * a.hidden_size
    return Forecast(weights, kv_cache, activations=4 * (context * widest + a.vocab_size))


def _tensor_bytes(tensor: TensorSpec, group: int, keep: tuple[str, ...], dtype: str) -> int:
    if tensor.role in ("norm", "bias"):
        return 4 * tensor.size
    if any(fnmatch.fnmatchcase(tensor.name, pattern) for pattern in keep):
        return (4 if dtype == "float32" else 2) * tensor.size
    return tensor.size // 2 + 2 * (tensor.size // group)


def _backend(target: Target, overrides: TargetOverrides, options: Options) -> Choice[BackendName]:
    asked: Choice[BackendName] = Choice(target.backends[0], "target")
    if overrides.backend is not None:
        asked = Choice(overrides.backend, "recipe")
    if options.backend is not None:
        asked = Choice(options.backend, "option")
    if asked.value not in target.backends:
        raise InputError(
            f"target {target.name} has no backend {asked.value!r}", expected=f"one of {', '.join(target.backends)}"
        )
    return asked


def _scheme(recipe: LoadedRecipe, overrides: TargetOverrides) -> Choice[SchemeName]:
    if overrides.scheme is not None:
        return Choice(overrides.scheme, "recipe")
    quantization = recipe.recipe.quantization
    return Choice(quantization.scheme, "recipe" if "scheme" in quantization.model_fields_set else "default")


def _context(recipe: LoadedRecipe, overrides: TargetOverrides, architecture: Architecture) -> Choice[int]:
    asked = overrides.context or recipe.recipe.context
    if asked is not None:
        return Choice(asked, "recipe")
    return Choice(min(DEFAULT_CONTEXT, architecture.max_context), "default")


def _check_context(recipe: LoadedRecipe, context: int, architecture: Architecture) -> None:
    if context > architecture.max_context:
        raise RecipeError(
            f"context {context} is longer than the model's own {architecture.max_context}",
            where=recipe.folder / "recipe.yaml",
            expected=f"at most {architecture.max_context} (max_position_embeddings)",
        )


def _merge_stage(recipe: LoadedRecipe) -> Stage:
    adapter = recipe.recipe.adapter
    return Stage(
        "merge",
        {
            "code": code_digest(),
            "base": source_digest(recipe, recipe.recipe.base),
            "adapter": None if adapter is None else source_digest(recipe, adapter),
        },
    )


def _quantize_stage(recipe: LoadedRecipe, scheme: SchemeName, merge: Stage) -> Stage:
    quantization = recipe.recipe.quantization
    inputs = {"merge": merge.key, "scheme": scheme, "method": quantization.method, "keep": list(quantization.keep)}
    return Stage("quantize", inputs)


def _compile_stage(
    target: Target, variant: TvmVariant | None, backend: BackendName, context: int, quantize: Stage
) -> Stage:
    inputs = {
        "quantize": quantize.key,
        "target": target.digest(),
        "variant": None if variant is None else variant.model_dump(mode="json"),
        "backend": backend,
        "context": context,
        "tools": tool_versions(TOOLS[backend]),
    }
    return Stage("compile", inputs)


def _bundle_stage(recipe: LoadedRecipe, compile_: Stage, options: Options) -> Stage:
    inputs = {
        "compile": compile_.key,
        "recipe": recipe.digest(),
        "data": data_digests(recipe),
        # Its golden file holds the reference's answers.
        "reference": tool_versions(TOOLS["reference"]) if options.validate else None,
    }
    return Stage("bundle", inputs)


def data_digests(recipe: LoadedRecipe) -> dict[str, str]:
    """Digest of each file that the recipe names beside its models."""
    data, task = recipe.recipe.data, recipe.recipe.task
    named = [data.evaluation, data.calibration, getattr(task, "json_schema", None), getattr(task, "labels", None)]
    return {name: digest.of_file(recipe.file(name)) for name in named if isinstance(name, str)}


def tool_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions; "not installed" where a package is missing."""
    return {package: _version(package) for package in packages}


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@cache
def code_digest() -> str:
    """Digest of slmc's own sources: a change of the code is a change of what it makes."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return digest.of_value([__version__, *(digest.of_file(path) for path in sources)])
