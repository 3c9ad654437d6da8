"""`slmc bench`: how fast a bundle reads and writes on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from slmc import backends
from slmc.bundle.verify import verify
from slmc.cli.common import as_json, bundle_argument, open_store
from slmc.console import out
from slmc.errors import InputError
from slmc.prompt import Codec
from slmc.rungs import TIMEOUT_S, bundle_command
from slmc.runners.files import read_result
from slmc.runners.launch import run
from slmc.validate.speed import ROUNDS, bench_workload, summarize
from slmc.validate.table import print_speed


@click.command("bench")
@bundle_argument
@click.option("--rounds", type=click.IntRange(min=3), default=ROUNDS, show_default=True, help="After the warm-up.")
@click.option("--threads", type=click.IntRange(min=1), help="[default: the runner's own]")
@as_json
def command(bundle: Path, rounds: int, threads: int | None, as_json: bool) -> None:
    """Measure BUNDLE: prefill of 128 and 512 tokens, 64 tokens written; medians and spread."""
    manifest = verify(bundle)
    here = backends.here(open_store(None), manifest.backend, bundle / manifest.artifact)
    if here is None:
        raise InputError(f"this machine can't run a bundle of delegate {manifest.delegate}", where=bundle)
    codec = Codec.open(bundle / manifest.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "workload.jsonl"), Path(folder, "result.jsonl")
        workload = bench_workload(codec.vocab_size, manifest.context, codec.end_id, asked, rounds=rounds)
        run([*bundle_command(bundle, manifest, threads), *here], asked, answered, timeout_s=TIMEOUT_S)
        speed = summarize(read_result(answered, workload))
    if as_json:
        click.echo(speed.model_dump_json(indent=1))
    else:
        print_speed(speed, out)
