"""`slmc run`: ask a bundle on this machine, as an app would."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from slmc.backends.executorch.profiles import PROFILES
from slmc.bundle.manifest import Manifest
from slmc.bundle.verify import verify
from slmc.cli.common import as_json, bundle_argument, open_store, print_json
from slmc.console import err
from slmc.errors import InputError
from slmc.prompt import Codec
from slmc.recipe import Classify
from slmc.runners.coreml import open_coreml
from slmc.runners.engine import Engine
from slmc.runners.loop import decide
from slmc.runners.native_decider import NativeDecider
from slmc.runners.native_engine import NativeEngine
from slmc.runners.stream import written
from slmc.text.choices import tree


@click.command("run")
@bundle_argument
@click.argument("text", required=False)
@click.option("--field", "fields", multiple=True, metavar="NAME=TEXT", help="Where the prompt has several fields.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@as_json
def command(bundle: Path, text: str | None, fields: Sequence[str], threads: int, as_json: bool) -> None:
    """Put TEXT into BUNDLE's prompt and print the answer: a label with its probability, or text as it is written."""
    manifest = verify(bundle)
    codec = Codec.open(bundle / manifest.tokenizer)
    given = _fields(codec, text, fields)
    if manifest.backend == "tvm" and manifest.task is not None and manifest.labels:
        answer, kernels = _decide(bundle, manifest, given, threads)
    else:
        answer, kernels = _ask(bundle, manifest, codec, given, threads, quiet=as_json)
    if manifest.labels and not as_json:
        click.echo(f"{answer['label']}  {answer['probability']:.3f}")
    if as_json:
        print_json(answer)
        return
    if answer.get("abstain"):
        err.print("[yellow]abstain:[/] the probability is below the bundle's threshold")
    err.print(f"[dim]{answer['prompt_tokens']} tokens read, {answer['milliseconds']:.1f} ms, {kernels}[/]")


def _decide(bundle: Path, manifest: Manifest, fields: Mapping[str, str], threads: int) -> tuple[dict[str, object], str]:
    """By the task file, in C alone, and the kernels that ran."""
    assert manifest.task is not None, "the bundle has a task file"
    prefix = None if manifest.prefix is None else bundle / manifest.prefix
    decider = NativeDecider(bundle / manifest.artifact, bundle / manifest.task, threads=threads, prefix=prefix)
    start = time.perf_counter()
    found = decider.classify(fields)
    spent = (time.perf_counter() - start) * 1000
    answer = _labelled(manifest, found.choice, found.probability)
    return answer | {"milliseconds": spent, "prompt_tokens": len(found.prompt_ids)}, decider.kernels


def _ask(
    bundle: Path, manifest: Manifest, codec: Codec, fields: Mapping[str, str], threads: int, *, quiet: bool
) -> tuple[dict[str, object], str]:
    """By an engine and what is here in Python, and the kernels or delegate that ran."""
    _, prompt = codec.prompt(fields)
    engine = _open(bundle, manifest, threads)
    start = time.perf_counter()
    task = manifest.recipe.task
    if isinstance(task, Classify):
        answer = _choose(engine, codec, prompt, manifest)
    else:
        answer = _write(engine, codec, prompt, task.max_tokens, quiet=quiet)
    spent = (time.perf_counter() - start) * 1000
    return answer | {"milliseconds": spent, "prompt_tokens": len(prompt)}, engine.kernels


def _open(bundle: Path, manifest: Manifest, threads: int) -> Engine:
    artifact = bundle / manifest.artifact
    if manifest.backend == "tvm":
        return NativeEngine(artifact, threads)
    if manifest.backend == "coreml":
        return open_coreml(artifact, threads)
    if manifest.backend == "mlc":
        from slmc.backends.mlc.stored import stored_library
        from slmc.runners.mlc_engine import MlcEngine

        return MlcEngine(artifact, stored_library(open_store(None), artifact), threads)
    delegation = manifest.delegation
    if delegation is None or not PROFILES[delegation.delegate].runs_here:
        what = manifest.backend if delegation is None else f"delegate {delegation.delegate}"
        raise InputError(f"this machine can't run a bundle of {what}", where=bundle)
    from slmc.runners.executorch_engine import ExecutorchEngine

    return ExecutorchEngine(artifact, threads)


def _fields(codec: Codec, text: str | None, given: Sequence[str]) -> Mapping[str, str]:
    """What the prompt's placeholders stand for. Raises InputError naming those that are missing or not there."""
    wanted = codec.format.fields
    found = dict(one.partition("=")[::2] for one in given)
    if text is not None:
        [only, *others] = [name for name in wanted if name not in found] or [""]
        if not only or others:
            raise InputError("the text has no one place in the prompt", expected=_usage(wanted))
        found[only] = text
    if set(found) != set(wanted):
        raise InputError(f"the prompt is made of {', '.join(wanted)}", expected=_usage(wanted))
    return found


def _usage(wanted: Sequence[str]) -> str:
    return "TEXT" if len(wanted) == 1 else " ".join(f"--field {name}=..." for name in wanted)


def _choose(engine: Engine, codec: Codec, prompt: Sequence[int], manifest: Manifest) -> dict[str, object]:
    root = tree([tuple(codec.answer(label)) for label in manifest.labels])
    verdict = decide(engine, tuple(prompt), root)
    return _labelled(manifest, verdict.choice, math.exp(verdict.logprobs[verdict.choice]))


def _labelled(manifest: Manifest, choice: int, probability: float) -> dict[str, object]:
    abstain = manifest.confidence.abstain if manifest.confidence else None
    limit = abstain.threshold if abstain else None
    return {
        "label": manifest.labels[choice],
        "probability": probability,
        # No threshold in a fitted rule means that none was good enough.
        "abstain": bool(abstain) and (limit is None or probability < limit),
    }


def _write(engine: Engine, codec: Codec, prompt: Sequence[int], most: int, quiet: bool) -> dict[str, object]:
    pieces = []
    for piece in written(engine, codec, prompt, most):
        pieces.append(piece)
        if not quiet:
            click.echo(piece, nl=False)
    if not quiet:
        click.echo()
    return {"text": "".join(pieces)}
