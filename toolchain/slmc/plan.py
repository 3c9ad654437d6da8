"""From recipe and target to everything a build will do, before it does any of it.

`resolve` settles each choice and remembers whether it was the recipe's, the base's, the target's or
the caller's; `forecast` predicts sizes; the stages' keys tell what the store already holds.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, Literal, TypeVar

from slmc import digest, integration
from slmc.architecture import CALIBRATED, EMBEDDING, HEAD, Architecture
from slmc.config_json import read_architecture
from slmc.errors import InputError, RecipeError
from slmc.forecast import Forecast, bit_budget, foretell
from slmc.imported import imported_schemes
from slmc.mlc_llm import PROGRAM, MlcLlm, find_mlc_llm, on_path, refusal
from slmc.names import ACTIVATIONS, BITS, SCHEMES, Activations, BackendName, Bits, DelegateName, Scheme, SchemeName
from slmc.provenance import TOOLS, code_digest, data_digests, tool_versions
from slmc.recipe import LoadedRecipe, Quantization, TargetOverrides
from slmc.sources import locate, source_digest
from slmc.store import Stage
from slmc.target import DeviceClass, Target, native_triples

DEFAULT_CONTEXT = 512
Origin = Literal["default", "recipe", "target", "option", "base"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Choice(Generic[Value]):
    value: Value
    origin: Origin


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
    delegate: Choice[DelegateName] | None
    """None for a backend without."""
    triples: tuple[str, ...]
    """That backend tvm builds for; empty for any other."""
    activations: Choice[Activations]
    mlc_llm: Choice[MlcLlm | None]
    """What compiles backend mlc's library; None for slmc's own compiler, and for any other backend."""
    task_file: bool
    """Tokenizer, prompt and labels are compiled too; backend mlc's engine has its own."""
    validate: bool
    architecture: Architecture
    quantization: Quantization
    """The recipe's; each of the `steps` has its own."""
    bits: Mapping[str, Bits]
    """Of tensors for which recipe or base name them."""
    merge: Stage

    @cached_property
    def budget(self) -> float | None:
        """Mean bits, scales included, that the quantized tensors may take a weight; None where nothing limits them."""
        return bit_budget(self.architecture, SCHEMES[self.scheme.value], self.bits, self.quantization)

    @cached_property
    def forecast(self) -> Forecast:
        return foretell(
            self.architecture,
            SCHEMES[self.scheme.value],
            self.bits,
            self.quantization,
            self.context.value,
            self.backend.value,
            self.activations.value,
        )

    @cached_property
    def quantize(self) -> Stage:
        """Of the merged model; where the adapter stays unmerged, the foundation with the adapter beside it."""
        if self.unmerged:
            return Stage("beside", {"foundation": self.foundation.key, "merge": self.merge.key})
        return self._quantized(self.merge)

    @cached_property
    def foundation(self) -> Stage:
        """The base quantized without an adapter: the same for each that stays unmerged."""
        return self._quantized(_merge_stage(self.recipe, adapted=False))

    def _quantized(self, source: Stage) -> Stage:
        chosen = self.quantization.model_dump(mode="json", exclude={"scheme"})
        learned = _learned_from(self.recipe) if self.quantization.calibrated else None
        inputs = {"merge": source.key, "scheme": self.scheme.value, **chosen, "calibration": learned}
        return Stage("quantize", inputs)

    @property
    def unmerged(self) -> bool:
        """The adapter stays in full precision beside the quantized base."""
        return self.recipe.recipe.unmerged

    @cached_property
    def compile(self) -> Stage:
        inputs = {
            "quantize": self.quantize.key,
            "target": self.target.digest(),
            "triples": self.triples,
            "activations": self.activations.value,
            "backend": self.backend.value,
            "context": self.context.value,
            "tools": tool_versions(TOOLS[self.backend.value]),
        }
        if self.backend.value in ("executorch", "coreml", "mlc"):
            # The artifact says which token ends an answer or how to ask it, which the prompt's format decides.
            inputs["prompt"] = self.recipe.recipe.prompt.model_dump(mode="json")
        if self.backend.value == "mlc":
            tool, data = self.mlc_llm.value, self.recipe.recipe.data.evaluation
            inputs["mlc_llm"] = None if tool is None else tool.version
            inputs["checked"] = digest.of_file(self.recipe.file(data))
        if self.backend.value in ("coreml", "mlc"):
            inputs["recipe"] = [self.recipe.recipe.name, self.recipe.recipe.version]
        if self.delegate is not None:
            inputs["delegate"] = self.delegate.value
        return Stage("compile", inputs)

    @cached_property
    def task(self) -> Stage | None:
        """What an app asks by. The compiled model is asked the golden items, where this machine can run it."""
        if not self.task_file:
            return None
        inputs = {
            "compile": self.compile.key,
            "recipe": self.recipe.digest(),
            "data": data_digests(self.recipe),
            "integration": integration.digest_of(self.target.name, self.backend.value),
            "tools": tool_versions(("tokenizers", "outlines-core", *TOOLS["tvm"])),
        }
        return Stage("task", inputs)

    @cached_property
    def bundle(self) -> Stage:
        inputs = {
            "compile": self.compile.key,
            "task": None if self.task is None else self.task.key,
            "recipe": self.recipe.digest(),
            "data": data_digests(self.recipe),
            # Its golden file holds the reference's answers.
            "reference": tool_versions(TOOLS["reference"]) if self.validate else None,
        }
        return Stage("bundle", inputs)

    @property
    def stages(self) -> tuple[Stage, ...]:
        foundation = (self.foundation,) if self.unmerged else ()
        task = () if self.task is None else (self.task,)
        return (self.merge, *foundation, self.quantize, self.compile, *task, self.bundle)

    @property
    def steps(self) -> tuple[Plan, ...]:
        """What method `auto` tries in turn, the cheapest first; for any other method the plan itself."""
        asked = self.quantization
        if asked.method != "auto":
            return (self,)
        unlimited = {"budget": None, "max_size_mb": None}
        tried = [asked.model_copy(update={"method": method, **unlimited}) for method in ("rtn", "gptq", "tuned")]
        if asked.limited:
            tried.append(asked.model_copy(update={"method": "tuned"}))
        return tuple(replace(self, quantization=quantization) for quantization in tried)

    @property
    def name(self) -> str:
        """The bundle's folder name."""
        recipe = self.recipe.recipe
        name = f"{recipe.name}-{recipe.version}-{self.target.name}-{self.backend.value}"
        if self.delegate is None or self.delegate.value == self.target.delegates[self.backend.value][0]:
            return name
        return f"{name}-{self.delegate.value}"

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
    delegate: DelegateName | None = None


def resolve(recipe: LoadedRecipe, target: Target, options: Options | None = None) -> Plan:
    """Settle everything. Raises RecipeError, CheckpointError or InputError where something can't be.

    Reads the base's config and, for local folders, the digests of all their files; never torch.
    """
    options = options or Options()
    overrides = recipe.recipe.targets.get(target.name, TargetOverrides())
    backend = _backend(target, overrides, options)
    base = locate(recipe, recipe.recipe.base, weights=False)
    architecture = read_architecture(base)
    imported = imported_schemes(base, architecture)
    _check_imported(recipe, imported)
    scheme = _scheme(recipe, overrides, _commonest(imported, architecture))
    quantization, named = recipe.recipe.quantization, SCHEMES[scheme.value]
    bits = quantization.bits(architecture) | {name: one.bits for name, one in imported.items()}
    _check_bits(recipe, named, bits, backend.value, architecture)
    bit_budget(architecture, named, bits, quantization)  # raises for a limit that can't be met
    _check_method(recipe, options)
    delegate = _delegate(recipe, target, overrides, options, backend)
    _check_unmerged(recipe, delegate)
    _check_calibrated(recipe, architecture)
    context = _context(recipe, overrides, architecture)
    _check_context(recipe, context.value, architecture)
    return Plan(
        recipe=recipe,
        target=target,
        backend=backend,
        scheme=scheme,
        context=context,
        delegate=delegate,
        triples=native_triples(target) if backend.value == "tvm" else (),
        activations=_activations(recipe, overrides, backend.value),
        mlc_llm=_mlc_llm(recipe, overrides, backend.value, architecture),
        task_file=overrides.task_file and backend.value != "mlc",
        validate=options.validate,
        architecture=architecture,
        quantization=quantization,
        bits=bits,
        merge=_merge_stage(recipe),
    )


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


def _delegate(
    recipe: LoadedRecipe, target: Target, overrides: TargetOverrides, options: Options, backend: Choice[BackendName]
) -> Choice[DelegateName] | None:
    known = target.delegates.get(backend.value, ())
    if not known:
        if options.delegate is not None:
            raise InputError(
                f"backend {backend.value} has no delegates", expected="--backend executorch or coreml beside --delegate"
            )
        if overrides.delegate is not None and backend.origin != "option":
            raise RecipeError(
                f"backend {backend.value} has no delegates",
                where=f"{recipe.folder / 'recipe.yaml'}: targets.{target.name}.delegate",
                todo="add backend: executorch or coreml, or leave delegate out",
            )
        return None
    asked: Choice[DelegateName] = Choice(known[0], "target")
    if overrides.delegate is not None:
        asked = Choice(overrides.delegate, "recipe")
    if options.delegate is not None:
        asked = Choice(options.delegate, "option")
    if asked.value not in known:
        raise InputError(
            f"backend {backend.value} for target {target.name} has no delegate {asked.value!r}",
            expected=f"one of {', '.join(known)}",
        )
    return asked


def _scheme(recipe: LoadedRecipe, overrides: TargetOverrides, imported: Scheme | None) -> Choice[SchemeName]:
    """Of most tensors; what the base was quantized with stays."""
    quantization = recipe.recipe.quantization
    named = overrides.scheme or (quantization.scheme if "scheme" in quantization.model_fields_set else None)
    if imported is None:
        return Choice(quantization.scheme, "default") if named is None else Choice(named, "recipe")
    if named not in (None, imported.name):
        raise RecipeError(
            f"the base is quantized already, and not as {named}",
            where=recipe.folder / "recipe.yaml",
            expected=f"{imported.name}, or no scheme",
        )
    return Choice(imported.name, "base")


def _commonest(imported: Mapping[str, Scheme], architecture: Architecture) -> Scheme | None:
    """The scheme of most weights that were quantized before."""
    weights: Counter[Scheme] = Counter()
    for spec in architecture.tensors():
        if spec.name in imported:
            weights[imported[spec.name]] += spec.size
    return max(weights, key=weights.__getitem__, default=None)


def _check_imported(recipe: LoadedRecipe, imported: Mapping[str, Scheme]) -> None:
    """What was quantized before is not changed again."""
    quantization, where = recipe.recipe.quantization, recipe.folder / "recipe.yaml"
    if imported and recipe.recipe.adapter is not None:
        raise RecipeError(
            "the base is quantized already, and an adapter can't be merged into it",
            where=f"{where}: adapter",
            todo="name the base from before it was quantized, or a base with the adapter merged",
        )
    asked = {
        "method": "method" in quantization.model_fields_set and quantization.method != "rtn",
        "budget": quantization.budget is not None,
        "max_size_mb": quantization.max_size_mb is not None,
        "keep": any(fnmatch.filter(imported, pattern) for pattern in quantization.keep),
        "embedding": quantization.embedding is not None and EMBEDDING in imported,
        "head": quantization.head is not None and HEAD in imported,
    }
    for key, present in asked.items():
        if imported and present:
            raise RecipeError(
                f"the base is quantized already, and {key} would change it",
                where=f"{where}: quantization.{key}",
                todo=f"leave {key} out, or name the base from before it was quantized",
            )


def _check_bits(
    recipe: LoadedRecipe, scheme: Scheme, bits: Mapping[str, Bits], backend: BackendName, architecture: Architecture
) -> None:
    quantization, where = recipe.recipe.quantization, f"{recipe.folder / 'recipe.yaml'}: quantization"
    embedding, head = (bits or scheme.bits for bits in (quantization.embedding, quantization.head))
    if architecture.tied and quantization.head is not None and head != embedding:
        raise RecipeError(
            f"the head has {head} bits and the embedding {embedding}, but the model's head is its embedding",
            where=where,
            todo=f"give embedding: {head}, or leave head out",
        )
    limited = quantization.budget is not None or quantization.max_size_mb is not None
    asked = {scheme.bits, *bits.values(), *((8,) if limited else ())}
    lacking = asked - BITS[backend]
    if lacking:
        held = " or ".join(str(bits) for bits in sorted(BITS[backend]))
        raise RecipeError(
            f"backend {backend!r} can't hold codes of {lacking.pop()} bits",
            where=where,
            expected=f"codes of {held} bits in scheme, embedding and head, and neither budget nor max_size_mb",
        )


def _check_method(recipe: LoadedRecipe, options: Options) -> None:
    if recipe.recipe.quantization.method == "auto" and not options.validate:
        raise RecipeError(
            "method auto asks the gate which method is enough, and nothing is to be validated",
            where=f"{recipe.folder / 'recipe.yaml'}: quantization.method",
            todo="name the method, or build without --no-validate",
        )


def _check_unmerged(recipe: LoadedRecipe, delegate: Choice[DelegateName] | None) -> None:
    assert not recipe.recipe.adapters, "each adapter has a plan of its own"
    if recipe.recipe.unmerged and (delegate is None or delegate.value != "xnnpack"):
        raise RecipeError(
            "an adapter can stay unmerged with backend executorch and delegate xnnpack alone",
            where=recipe.folder / "recipe.yaml",
            todo="add --backend executorch --delegate xnnpack, or merge it: give it as adapter, without unmerged",
        )


def _check_calibrated(recipe: LoadedRecipe, architecture: Architecture) -> None:
    quantization, family = recipe.recipe.quantization, architecture.family
    if not quantization.calibrated or family in CALIBRATED:
        return
    key = "method" if quantization.method != "rtn" else "budget" if quantization.budget is not None else "max_size_mb"
    raise RecipeError(
        f"{key} {getattr(quantization, key)} needs a calibrated method, and there is none for {family} models",
        where=f"{recipe.folder / 'recipe.yaml'}: quantization.{key}",
        expected=f"a model of one of the families {', '.join(CALIBRATED)}, or method rtn without a limit",
        todo="set method: rtn and leave budget and max_size_mb out",
    )


def _activations(recipe: LoadedRecipe, overrides: TargetOverrides, backend: BackendName) -> Choice[Activations]:
    asked, able = overrides.activations, ACTIVATIONS.get(backend, ("int8",))
    if asked is None:
        return Choice(able[0], "default")
    if asked not in able:
        raise RecipeError(
            f"backend {backend!r} does not have activations of {asked}",
            where=f"{recipe.folder / 'recipe.yaml'}: targets",
            expected="; ".join(f"{' or '.join(able)} with backend {name}" for name, able in ACTIVATIONS.items()),
        )
    return Choice(asked, "recipe")


def _mlc_llm(
    recipe: LoadedRecipe, overrides: TargetOverrides, backend: BackendName, architecture: Architecture
) -> Choice[MlcLlm | None]:
    """One that the recipe names must do; one on the PATH is taken where it can."""
    named = overrides.mlc_llm
    if backend != "mlc" or named == "none":
        return Choice(None, "default" if named is None else "recipe")
    refused = refusal(architecture, keeps=bool(recipe.recipe.quantization.keep))
    if named is None:
        return Choice(find_mlc_llm(PROGRAM) if refused is None and on_path() else None, "default")
    if refused is not None:
        where = f"{recipe.folder / 'recipe.yaml'}: targets"
        raise RecipeError(refused, where=where, todo="leave mlc_llm out, for slmc's own compiler")
    return Choice(find_mlc_llm(named), "recipe")


def _context(recipe: LoadedRecipe, overrides: TargetOverrides, architecture: Architecture) -> Choice[int]:
    asked = overrides.context or recipe.recipe.context
    if asked is not None:
        return Choice(asked, "recipe")
    return Choice(min(DEFAULT_CONTEXT, architecture.most_context), "default")


def _check_context(recipe: LoadedRecipe, context: int, architecture: Architecture) -> None:
    most = architecture.most_context
    if context > most:
        beyond = "max_position_embeddings"
        if most < architecture.max_context:
            beyond = "original_max_position_embeddings: beyond it the model turns positions by other factors, longrope"
        raise RecipeError(
            f"context {context} is longer than the model's own {most}",
            where=recipe.folder / "recipe.yaml",
            expected=f"at most {most} ({beyond})",
        )


def _merge_stage(recipe: LoadedRecipe, *, adapted: bool = True) -> Stage:
    adapter = recipe.recipe.adapter if adapted else None
    return Stage(
        "merge",
        {
            "code": code_digest(),
            "base": source_digest(recipe, recipe.recipe.base),
            "adapter": None if adapter is None else source_digest(recipe, adapter),
        },
    )


def _learned_from(recipe: LoadedRecipe) -> dict[str, object]:
    """What a calibrated method's result depends on beside weights and options."""
    file = recipe.recipe.data.calibration
    assert file is not None, "the recipe was checked for one"
    return {
        "data": digest.of_file(recipe.file(file)),
        "prompt": recipe.recipe.prompt.model_dump(mode="json"),
        "tools": tool_versions(TOOLS["reference"]),
    }
