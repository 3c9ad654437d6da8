"""What the programs that fulfil the runner contract in Python have in common: options in, exit code out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from slmc import digest
from slmc.errors import SlmcError
from slmc.prompt import Codec
from slmc.runners import machine
from slmc.runners.chooser_decider import ChooserDecider
from slmc.runners.contract import Environment, Footer, ResultHeader, Workload
from slmc.runners.engine import Engine
from slmc.runners.files import ResultWriter
from slmc.runners.loop import Decider, answer_all


def options(description: str, threads: int) -> argparse.ArgumentParser:
    """A parser with the contract's own options and the number of threads, given its default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--codec", type=Path, help="folder with tokenizer.json and prompt.json, to read prompts by")
    parser.add_argument("--threads", type=_threads, default=threads, help="[default: %(default)s]")
    return parser


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a positive number of threads")
    return int(text)


def task_options(parser: argparse.ArgumentParser) -> None:
    """For backends with a runtime of their own, in whose apps the native library reads the task file."""
    parser.add_argument("--task", type=Path, help="task file: prompts are read and labels chosen by it, as in an app")
    parser.add_argument("--task-library", type=Path, help="the native library of this machine that reads it")


def open_decider(engine: Engine, chosen: argparse.Namespace) -> Decider | None:
    return None if chosen.task is None else ChooserDecider(engine, chosen.task_library, chosen.task)


def open_codec(folder: Path | None) -> Codec | None:
    return None if folder is None else Codec.open(folder)


def answer(
    engine: Engine,
    chosen: argparse.Namespace,
    workload: Workload,
    environment: Environment,
    load_ms: float,
    decider: Decider | None = None,
) -> None:
    """Answer every item with an engine, one after another, into the result; those that a decider can, with it."""
    with ResultWriter(chosen.result, ResultHeader(workload=workload.digest, environment=environment)) as writer:
        answer_all(engine, workload, open_codec(chosen.codec), writer, decider)
        writer.finish(Footer(peak_memory_bytes=machine.peak_memory_bytes(), load_ms=load_ms))


def artifact_digest(folder: Path) -> str:
    return digest.of_value(digest.of_folder(folder))


def end(main: Callable[[], None]) -> None:
    """Run a program; a named failure goes to standard error and becomes its exit code."""
    try:
        main()
    except SlmcError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
