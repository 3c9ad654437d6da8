"""What to build: `recipe.yaml`, strictly read into frozen types.

A path in a recipe is relative to its folder and can't leave it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints, field_validator, model_validator

from slmc import digest
from slmc.architecture import Architecture
from slmc.errors import RecipeError
from slmc.names import Activations, BackendName, Bits, DelegateName, SchemeName, TargetName
from slmc.strict import Strict, parse

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Source(Strict):
    """A Hugging Face folder: a local path inside the recipe, or a hub id pinned to a revision."""

    path: str | None = None
    hub: str | None = None
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = Field(
        default=None, description="the commit's full hash, so that the same recipe is always the same weights"
    )

    @model_validator(mode="after")
    def _one_of(self) -> Source:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path or hub")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub needs a revision, and path has none")
        return self


class ChatPrompt(Strict):
    """The tokenizer's own chat template around one user message."""

    kind: Literal["chat"] = "chat"
    system: str | None = None
    user: str = "{text}"
    variables: dict[str, str | bool | int] = Field(
        default_factory=dict, description="for the template, such as enable_thinking: false"
    )

    @field_validator("user")
    @classmethod
    def _check(cls, user: str) -> str:
        return _placeholders_checked(user)


class PlainPrompt(Strict):
    """A template of our own, without chat markup."""

    kind: Literal["plain"]
    template: str
    answer_prefix: str = Field(default="", description='between prompt and answer, such as " "')

    @field_validator("template")
    @classmethod
    def _check(cls, template: str) -> str:
        return _placeholders_checked(template)


class Abstain(Strict):
    """When the app is to abstain: a threshold for the chosen label's probability, fitted to the calibration items."""

    max_error: Share = Field(description="highest share of wrong labels that is accepted among the answered items")


class Classify(Strict):
    """Choose one of the labels; an item's answer is its `label`."""

    kind: Literal["classify"]
    labels: tuple[str, ...] | str = Field(description="the labels, or a file with one a line")
    abstain: Abstain | None = None


class Extract(Strict):
    """Answer with a JSON object that fits the schema; an item's answer is its `answer` object."""

    kind: Literal["extract"]
    json_schema: str = Field(description="a file with the JSON Schema of the answer")
    max_tokens: Annotated[int, Field(gt=0)] = 128


class Generate(Strict):
    """Free text, judged by exact match; an item's answer is its `answer` string."""

    kind: Literal["generate"]
    max_tokens: Annotated[int, Field(gt=0)] = 128


class Data(Strict):
    """JSON lines: an `id`, the prompt's fields, and the task's answer."""

    evaluation: str
    calibration: str | None = None
    credit: str = Field(description="who made the data, and under which licence")


class Quantization(Strict):
    scheme: SchemeName = "int4-g32"
    method: Literal["rtn", "gptq", "tuned", "auto"] = "rtn"
    embedding: Bits | None = Field(default=None, description="bits of its codes; by default the scheme's")
    head: Bits | None = Field(
        default=None, description="bits of its codes; by default the scheme's. A tied head is the embedding"
    )
    keep: tuple[str, ...] = Field(
        default=(), description="tensors left unquantized, by name or shell pattern; each must match"
    )
    budget: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)? bits$")] | None = Field(
        default=None,
        description='mean bits a weight over the quantized tensors, scales included, such as "4.6 bits": '
        "what the scheme leaves of it goes where 8 bits help most",
    )
    max_size_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="the same as the size of all weights, in 10^6 bytes"
    )
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_limit(self) -> Quantization:
        if self.budget is not None and self.max_size_mb is not None:
            raise ValueError("give either budget or max_size_mb")
        return self

    @property
    def budget_bits(self) -> float | None:
        return None if self.budget is None else float(self.budget.removesuffix(" bits"))

    @property
    def limited(self) -> bool:
        """Some matrices get 8 bits, as far as a limit allows."""
        return self.budget is not None or self.max_size_mb is not None

    @property
    def calibrated(self) -> bool:
        """The calibration items are looked at."""
        return self.method != "rtn" or self.limited

    def bits(self, architecture: Architecture) -> dict[str, Bits]:
        """Of the tensors for which the recipe names them, by the tensor's name."""
        named = {"embedding": self.embedding, "head": self.head}
        chosen = {spec.name: named.get(spec.role) for spec in architecture.tensors()}
        return {name: bits for name, bits in chosen.items() if bits is not None}


class TargetOverrides(Strict):
    """What this recipe wants otherwise on one target."""

    backend: BackendName | None = None
    delegate: DelegateName | None = Field(
        default=None, description="backends executorch and coreml: what runs the matrix products"
    )
    scheme: SchemeName | None = None
    context: Annotated[int, Field(gt=0)] | None = None
    activations: Activations | None = Field(
        default=None,
        description="backend tvm: int8, the default, finds 8-bit integers for them as the model runs; float32 leaves "
        "them as they are, which is exact and slower. Backend mlc: float16, the default, or float32",
    )
    task_file: bool = Field(
        default=True,
        description="false leaves tokenizer, prompt and labels to the app, where the tokenizer has no compiled form",
    )
    mlc_llm: Annotated[str, StringConstraints(pattern=r"^(/.+|[A-Za-z0-9._-]+)$")] | None = Field(
        default=None,
        description="backend mlc: the command of MLC-LLM that compiles the library, by name or absolute path; none for "
        "slmc's own compiler. By default mlc_llm, where it is on the PATH and can",
    )


class Gates(Strict):
    """The recipe's promise, checked for every rung against the reference."""

    min_accuracy: Share | None = Field(default=None, description="of the reference itself")
    max_accuracy_drop: Share = Field(default=0.015, description="reference minus rung, paired by item")
    max_mean_kl: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="nats a token, of the reference's next token from the rung's"
    )
    min_agreement: Share = Field(
        default=0.98,
        description="share of next tokens on which the compiled rung's first choice is the quantized rung's",
    )
    max_outside_delegate: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="backend executorch: operators in one call that the delegate should run and does not",
    )
    min_survival: Share = Field(
        default=0.9,
        description="of the answers that the adapter changed, the share that a later rung gives as the reference does",
    )


class BesideAdapter(Source):
    """An adapter among several, with what it has of its own."""

    prompt: Annotated[ChatPrompt | PlainPrompt, Field(discriminator="kind")] | None = None
    task: Annotated[Classify | Extract | Generate, Field(discriminator="kind")] | None = None
    data: Data | None = None
    gates: Gates | None = None


class Recipe(Strict):
    """A recipe as written; `LoadedRecipe` is the same with its folder."""

    name: Name
    version: Name
    description: str = ""
    base: Source
    adapter: Source | None = None
    unmerged: bool = Field(
        default=False,
        description="leave the adapter in full precision beside the quantized base, in a file of its own; "
        "backend executorch",
    )
    adapters: dict[Name, BesideAdapter] = Field(
        default_factory=dict,
        description="several adapters on one base, each unmerged and a bundle of its own; the base's weights are one "
        "file, the same for each",
    )
    prompt: Annotated[ChatPrompt | PlainPrompt, Field(discriminator="kind")]
    task: Annotated[Classify | Extract | Generate, Field(discriminator="kind")]
    data: Data
    quantization: Quantization = Quantization()
    context: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="tokens of prompt and answer together; by default 512 or the model's own, if less"
    )
    targets: dict[TargetName, TargetOverrides] = Field(default_factory=dict)
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _check_unmerged(self) -> Recipe:
        if self.adapters and self.adapter is not None:
            raise ValueError("give either adapter or adapters")
        if self.unmerged and self.adapter is None:
            raise ValueError("unmerged needs an adapter; adapters are unmerged anyway")
        if self.quantization.calibrated and (self.unmerged or self.adapters):
            raise ValueError(
                "an unmerged adapter wants method rtn without a limit: what learns from calibration items would make "
                "another base for each adapter"
            )
        return self

    @model_validator(mode="after")
    def _has_calibration(self) -> Recipe:
        abstaining = isinstance(self.task, Classify) and self.task.abstain
        if self.data.calibration is None and abstaining:
            raise ValueError("task.abstain is fitted to data.calibration, which is not given")
        if self.data.calibration is None and self.quantization.calibrated:
            wanted = "a limit in quantization" if self.quantization.method == "rtn" else self.quantization.method
            raise ValueError(f"{wanted} needs data.calibration, which is not given")
        return self


@dataclass(frozen=True)
class Example:
    """One line of an evaluation or calibration file."""

    id: str
    fields: dict[str, str]
    """What the prompt's placeholders stand for."""
    answer: str
    """The expected answer as the model is to write it: a label, text, or compact JSON."""


@dataclass(frozen=True)
class LoadedRecipe:
    folder: Path
    recipe: Recipe

    def each(self) -> tuple[LoadedRecipe, ...]:
        """The recipe of each of its adapters; itself where it has not several.

        Raises RecipeError where what an adapter has of its own makes no recipe.
        """
        whole, found = self.recipe.model_dump(mode="json"), []
        for name, beside in self.recipe.adapters.items():
            given = beside.model_dump(mode="json")
            source = {key: given.pop(key) for key in Source.model_fields}
            own = {key: value for key, value in given.items() if value is not None}
            changed = {"name": f"{self.recipe.name}-{name}", "adapter": source, "adapters": {}, "unmerged": True}
            where = self.folder / f"recipe.yaml: adapters.{name}"
            found.append(LoadedRecipe(self.folder, parse(Recipe, whole | changed | own, where, RecipeError)))
        return tuple(found) or (self,)

    def file(self, relative: str) -> Path:
        """A file of the recipe. Raises RecipeError where it is missing or outside the recipe's folder."""
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise RecipeError(
                f"{relative!r} leaves the recipe's folder", where=self.folder, expected="a path inside it"
            )
        if not path.exists():
            raise RecipeError(f"{relative!r} does not exist", where=self.folder)
        return path

    def schema(self) -> dict[str, object] | None:
        """The JSON Schema of an extract task; None for other tasks. Raises RecipeError where the file has none."""
        task = self.recipe.task
        if not isinstance(task, Extract):
            return None
        path = self.file(task.json_schema)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecipeError(f"the schema can't be read: {error}", where=path) from None
        if not isinstance(found, dict):
            raise RecipeError("the schema is no JSON object", where=path)
        return found

    def labels(self) -> tuple[str, ...]:
        """The labels of a classify task, in their order; empty for other tasks."""
        task = self.recipe.task
        if not isinstance(task, Classify):
            return ()
        if isinstance(task.labels, str):
            found = tuple(self.file(task.labels).read_text(encoding="utf-8").split("\n"))
            labels = tuple(line for line in found if line)
            where = str(self.file(task.labels))
        else:
            labels, where = task.labels, f"{self.folder / 'recipe.yaml'}: task.labels"
        twice = {label for label in labels if labels.count(label) > 1}
        if len(labels) < 2 or twice:
            raise RecipeError(
                f"labels given twice: {', '.join(sorted(twice))}" if twice else "fewer than two labels", where=where
            )
        return labels

    def examples(self, relative: str) -> tuple[Example, ...]:
        """Read a data file; every line checked. Raises RecipeError naming the file and the line."""
        path = self.file(relative)
        examples = tuple(self._parse_lines(path))
        if not examples:
            raise RecipeError("the data file holds no item", where=path, expected="JSON lines")
        seen: set[str] = set()
        for example in examples:
            if example.id in seen:
                raise RecipeError(f"id {example.id!r} stands twice", where=path)
            seen.add(example.id)
        return examples

    def _parse_lines(self, path: Path) -> Iterator[Example]:
        wanted = self.placeholders()
        labels = set(self.labels())
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if line.strip():
                yield self._parse_line(line, f"{path}:{number}", wanted, labels)

    def _parse_line(self, line: str, where: str, wanted: set[str], labels: set[str]) -> Example:
        try:
            item = json.loads(line)
            json.dumps(item, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except ValueError as error:
            raise RecipeError(f"not JSON of whole characters: {error}", where=where) from None
        if not isinstance(item, dict) or not isinstance(item.get("id"), str):
            raise RecipeError("an item is a JSON object with an `id` string", where=where)
        for field in sorted(wanted):
            if not isinstance(item.get(field), str):
                raise RecipeError(
                    f"no string {field!r}, which the prompt names", where=where, expected=f"a string field {field!r}"
                )
        return Example(item["id"], {field: item[field] for field in wanted}, self._answer(item, where, labels))

    def _answer(self, item: dict[str, object], where: str, labels: set[str]) -> str:
        key = "label" if isinstance(self.recipe.task, Classify) else "answer"
        answer = item.get(key)
        if isinstance(self.recipe.task, Extract):
            if not isinstance(answer, dict):
                raise RecipeError("no `answer` object", where=where)
            return json.dumps(answer, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        if not isinstance(answer, str) or (labels and answer not in labels):
            raise RecipeError(
                f"{key} is {answer!r}", where=where, expected="one of the recipe's labels" if labels else "a string"
            )
        return answer

    def placeholders(self) -> set[str]:
        """The fields that the prompt is made of."""
        prompt = self.recipe.prompt
        return _placeholders(prompt.user if isinstance(prompt, ChatPrompt) else prompt.template)

    def digest(self) -> str:
        """Digest of the recipe as parsed, whatever its comments and layout; its data files go in on their own."""
        return digest.of_value(self.recipe.model_dump(mode="json"))


def load_recipe(folder: Path) -> LoadedRecipe:
    """Read `folder/recipe.yaml`. Raises RecipeError naming the file, the key, and what was expected."""
    path = folder / "recipe.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError("no recipe.yaml", where=folder, expected="a recipe folder") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"recipe.yaml can't be read: {error}", where=path) from None
    loaded = LoadedRecipe(folder, parse(Recipe, raw, path, RecipeError))
    for one in loaded.each():
        one.labels()
    return loaded


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def _placeholders_checked(template: str) -> str:
    """Only plain `{field}` placeholders, at least one; `{{` and `}}` stand for braces."""
    fields = list(string.Formatter().parse(template))
    if any(spec or conversion for _, _, spec, conversion in fields):
        raise ValueError("placeholders take no format or conversion")
    names = _placeholders(template)
    if not names or any(not name.isidentifier() for name in names):
        raise ValueError("needs plain placeholders such as {text}, and at least one")
    return template
