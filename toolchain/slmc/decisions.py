"""What an app asks a bundle by: the task file, and for backend tvm what every prompt begins with, read beforehand.

task.slm     tokenizer, prompt, labels, golden items
prefix.slm   keys and values of what every prompt begins with
model/       for backends with a runtime of their own, the native library that reads the task file
and what is added to an app: a Gradle module, a Swift package
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from slmc import backends
from slmc.backends.tvm.package import package
from slmc.backends.tvm.stored import stored_library
from slmc.bundle.golden import GOLDEN_ITEMS, evenly
from slmc.errors import CompileError
from slmc.integration import copy_integration, integration
from slmc.plan import Plan
from slmc.prompt import Codec
from slmc.recipe import Example
from slmc.runners.native_decider import NativeDecider
from slmc.store import Store
from slmc.target import native_triples
from slmc.text.golden import Golden
from slmc.text.task import PREFIX_FILE, TASK_FILE, Task, write_task


def make_task(plan: Plan, store: Store, artifact: Path, tokenizer: Path, codec: Codec, folder: Path) -> None:
    """Write both files into a folder; the compiled model says what its golden answers are.

    Raises CompileError naming what of the tokenizer or the schema has no compiled form.
    """
    examples = evenly(plan.recipe.examples(plan.recipe.recipe.data.evaluation), GOLDEN_ITEMS)
    fields = [one.fields for one in examples]
    task = Task(tokenizer, codec, plan.recipe.labels(), fields, plan.recipe.schema())
    try:
        task.sections  # noqa: B018 - all that can be refused is refused here
    except CompileError as error:
        todo = f"with `task_file: false` under targets.{plan.target.name} the app brings its own tokenizer and parser"
        raise CompileError(error.what, where=error.where, expected=error.expected, todo=todo) from None
    if plan.backend.value == "tvm":
        _ask(task, store, artifact, examples, folder)
    else:
        write_task(task, folder / TASK_FILE, [_unanswered(codec, example) for example in examples])
        if integration(plan.target.name, plan.backend.value):
            _add_library(plan, store, folder / plan.target.layout.artifact)
    copy_integration(plan.target.name, plan.backend.value, folder)


def _add_library(plan: Plan, store: Store, folder: Path) -> None:
    folder.mkdir()
    package(native_triples(plan.target), folder, lambda triple, path: _copy_library(store, triple, path))


def _copy_library(store: Store, triple: str, path: Path) -> None:
    shutil.copyfile(stored_library(store, triple), path)


def _ask(task: Task, store: Store, artifact: Path, examples: Sequence[Example], folder: Path) -> None:
    """Let the compiled model answer the golden items and read what prompts begin with."""
    library = backends.here(store, "tvm", artifact) or []
    draft = folder / f".{TASK_FILE}"
    write_task(task, draft)
    decider = NativeDecider(artifact, draft, library=Path(library[-1]) if library else None)
    golden = [_answered(decider, example) if task.labels else _unanswered(task.codec, example) for example in examples]
    write_task(task, folder / TASK_FILE, golden)
    if task.known:
        (folder / PREFIX_FILE).write_bytes(decider.prefix())
    draft.unlink()


def _unanswered(codec: Codec, example: Example) -> Golden:
    return Golden(example.id, example.fields, codec.prompt(example.fields)[1])


def _answered(decider: NativeDecider, example: Example) -> Golden:
    decision = decider.classify(example.fields)
    return Golden(example.id, example.fields, decision.prompt_ids, decision.choice, decision.probability)
