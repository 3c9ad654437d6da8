"""`slmc doctor`: what this machine can build and run, and what to install for the rest."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass

import click
import psutil

from slmc import __version__
from slmc.backends.tvm.tools import TESTED as TESTED_TVM
from slmc.cli.common import as_json, print_json
from slmc.console import out, table
from slmc.errors import SlmcError
from slmc.provenance import TOOLS, tool_versions
from slmc.target import load_target, native_triples, target_names


@dataclass(frozen=True)
class Finding:
    what: str
    state: str
    """ "ready" or "missing"."""
    detail: str
    todo: str = ""


def examine() -> list[Finding]:
    """Every backend of every target, and the reference."""
    findings = [_host(), _packages("the reference", "reference", "reference")]
    for name in target_names():
        target = load_target(name)
        findings += [_packages(f"{name} with {backend}", backend, backend) for backend in target.backends]
    return findings


def _host() -> Finding:
    memory = psutil.virtual_memory().total / 1e9
    machine = f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GB"
    try:
        triples = native_triples(load_target("host"))
    except SlmcError as error:
        return Finding("this machine", "missing", f"{machine}: {error.what}", error.todo or "")
    return Finding("this machine", "ready", f"{machine}: native library for {', '.join(triples)}")


def _packages(what: str, tools: str, extra: str) -> Finding:
    versions = tool_versions(TOOLS[tools])
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    if "not installed" in versions.values():
        return Finding(what, "missing", shown, f"pip install 'slmc[{extra}]'")
    bad = [name for name, wanted in TESTED_TVM.items() if versions.get(name, wanted) != wanted]
    if bad:
        pair = " ".join(f"{name}=={wanted}" for name, wanted in TESTED_TVM.items())
        return Finding(what, "missing", f"{shown}: a pair that was not tested together", f"pip install {pair}")
    return Finding(what, "ready", shown)


@click.command("doctor")
@as_json
def command(as_json: bool) -> None:
    """Say what this machine can build and run, and what to install for the rest."""
    findings = examine()
    if as_json:
        print_json({"slmc": __version__, "findings": [asdict(finding) for finding in findings]})
        return
    colours = {"ready": "green", "missing": "red"}
    rows = table("", "what", "found", "to do")
    for finding in findings:
        colour = colours[finding.state]
        rows.add_row(f"[{colour}]{finding.state}[/]", finding.what, finding.detail, finding.todo)
    out.print(rows)
