"""`slmc schema`: JSON Schemas of our own files, for editors and other programs."""

from __future__ import annotations

import click

from slmc.bundle.manifest import Manifest
from slmc.cli.common import print_json
from slmc.farm.farm_file import Farm
from slmc.farm.morning.report_json import MorningReport
from slmc.farm.portfolio.choice import Portfolio
from slmc.farm.record import Night
from slmc.recipe import Recipe
from slmc.strict import Strict
from slmc.target import Target
from slmc.validate.report import Report

KINDS: dict[str, type[Strict]] = {
    "recipe": Recipe,
    "target": Target,
    "manifest": Manifest,
    "report": Report,
    "farm": Farm,
    "night": Night,
    "morning": MorningReport,
    "portfolio": Portfolio,
}


@click.command("schema")
@click.argument("kind", type=click.Choice(list(KINDS)))
def command(kind: str) -> None:
    """Print the JSON Schema of KIND. The repository keeps them under schemas/."""
    schema = KINDS[kind].model_json_schema()
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
