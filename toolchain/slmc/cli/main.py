"""The `slmc` command: finds the verb's file when it is called, and tells every named failure once."""

from __future__ import annotations

import importlib
import logging
import sys

import click

from slmc import __version__
from slmc.errors import SlmcError

VERBS = {
    "build": "Build a recipe for a target, and prove that it still works.",
    "plan": "Show what a build would do, how large and how much memory.",
    "validate": "Climb the ladder from the reference to a bundle, and judge it.",
    "run": "Ask a bundle on this machine; the answer appears as it is written.",
    "bench": "Measure a bundle's prefill and decode speed.",
    "inspect": "Show the tensors, bits and sizes of a bundle or quantized checkpoint.",
    "verify": "Check every file and golden prompt of a bundle.",
    "nightly": "Build a farm's recipes, ask them on its devices, and add the night to the history.",
    "history": "Show what the nights on devices measured, and what changed when.",
    "report": "Write the morning report of a night: pages, JUnit XML, JSON and Markdown.",
    "select": "Write which bundle each device class and model is to have, as the history supports it.",
    "devices": "List the devices that are attached or named, and the state that they are in.",
    "targets": "List the targets and their backends.",
    "doctor": "Say what this machine can build and run, and what is missing.",
    "schema": "Print the JSON Schema of a recipe, target, manifest, report, farm, night, morning or portfolio.",
}


class Verbs(click.Group):
    """A group that imports a verb only when it is called: help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"slmc.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slmc")
def cli() -> None:
    """Fine-tuned small language models to phone and laptop artifacts, with proof that they still work."""


_NOISY = ("torchao", "torch.utils._pytree")
"""Loggers that warn, each time torch is loaded, of what nobody here can change."""


def main() -> None:
    """Run; a named failure is told on standard error and ends with its own exit code."""
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        cli.main(standalone_mode=False)
    except SlmcError as error:
        click.secho(f"{type(error).__name__}: {error}", err=True, fg="red")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped. What was finished is kept; the same command goes on from there.", err=True)
        sys.exit(130)
