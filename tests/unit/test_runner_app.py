"""The app for iPhones, which nothing here compiles: read by a parser, held against the header and slmc's own files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import tree_sitter
import yaml
from pydantic import BaseModel

from slmc.backends.tvm.runner import HEADER
from slmc.devices import runner_app
from slmc.target import load_target, targets_folder

from .test_swift_package import calls, coding_keys, crashing, nodes, parsed, text_of

FOLDER = targets_folder() / "ios" / "runner"
FILES = sorted(FOLDER.rglob("*.swift"))
files = pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
READ: dict[str, type[BaseModel]] = {"Order": runner_app.Order}
WRITTEN: dict[str, type[BaseModel]] = {
    "Told": runner_app.Told,
    "Phone": runner_app.Phone,
    "Moment": runner_app.Moment,
}


def source(name: str) -> str:
    return (FOLDER / "Sources" / name).read_text(encoding="utf-8")


@files
def test_it_is_swift(path: Path) -> None:
    assert [text_of(node) for node in nodes(parsed(path)) if node.is_error or node.is_missing] == []
    text = path.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 120 or line != line.rstrip()] == []
    assert text.endswith("\n")


@files
def test_nothing_is_forced(path: Path) -> None:
    assert crashing(parsed(path)) == []
    assert not re.search(r"\b(fatalError|precondition|assert)\w*\(", path.read_text(encoding="utf-8"))


def test_what_is_called_is_in_the_header() -> None:
    header = re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="ascii"), flags=re.DOTALL)
    declared = {name: rest.count(",") + 1 for name, rest in re.findall(r"\b(slm_\w+)\(([^()]*)\);", header)}
    called = {name: count for path in FILES for name, labels, count in calls(path) if name.startswith("slm_")}
    assert called == declared == {"slm_run": 2, "slm_note_signals": 1}
    named = {text_of(node) for path in FILES for node in nodes(parsed(path), "simple_identifier")}
    assert {name for name in named if name.startswith("slm_")} == {*declared, HEADER.stem}  # the module's name


# ---- What is said ---------------------------------------------------------------------------------------------------


def structs() -> dict[str, tree_sitter.Node]:
    return {
        text_of(name): node
        for node in nodes(parsed(FOLDER / "Sources" / "Order.swift"), "class_declaration")
        if (name := node.child_by_field_name("name")) is not None and coding_keys(node)
    }


def properties(struct: tree_sitter.Node) -> dict[str, bool]:
    """Those that are stored, and whether they may be nil."""
    body = struct.child_by_field_name("body")
    assert body is not None
    found = {}
    for node in body.children:
        match = re.match(r"(?:let|var) (\w+)(?:: ([^=]*))?", text_of(node))
        if node.type == "property_declaration" and match:
            found[match[1]] = (match[2] or "").strip().endswith("?")
    return found


def test_all_json_is_held_against_a_model() -> None:
    assert structs().keys() == READ.keys() | WRITTEN.keys()


@pytest.mark.parametrize("name", [*READ, *WRITTEN])
def test_json_keys_are_the_models(name: str) -> None:
    """What the app writes and leaves out where it is nil may be absent; what may be null can be read as nil."""
    model, keys, stored = (READ | WRITTEN)[name].model_fields, coding_keys(structs()[name]), properties(structs()[name])
    assert keys.keys() == stored.keys()
    assert set(keys.values()) == model.keys()
    for swift, key in keys.items():
        if name in WRITTEN:
            assert stored[swift] == (not model[key].is_required()), key
        else:
            assert stored[swift] == (type(None) in get_args(model[key].annotation)), key


def test_versions_are_the_same() -> None:
    assert "order.version == 1" in source("Container.swift")
    assert "let version = 1\n" in source("Order.swift")
    assert runner_app.Order.model_fields["slmc_order"].default == 1
    assert get_args(runner_app.Told.model_fields["slmc_told"].annotation) == (1,)


def test_files_have_the_same_names() -> None:
    container = source("Container.swift")
    names = {*re.findall(r'(?:path|opened|appendingPathComponent)\("([\w.]+)"\)', container)}
    told = (runner_app.ORDER, runner_app.TOLD, runner_app.OUTPUT, runner_app.SIGNAL, runner_app.FILES, runner_app.JOB)
    assert names == {name.removeprefix("Documents/") for name in told} | {"begun"}
    assert "folder = URL.documentsDirectory" in container


def test_every_heat_is_known() -> None:
    words = set(re.findall(r'case \.\w+: return "(\w+)"', source("Phone.swift")))
    assert words == set(runner_app._THERMAL)


# ---- The project ----------------------------------------------------------------------------------------------------


def test_the_project_is_of_the_targets_system() -> None:
    project = yaml.safe_load((FOLDER / "project.yml").read_text(encoding="utf-8"))
    assert f"iOS {project['options']['deploymentTarget']['iOS']}" == load_target("ios").minimum_os
    app = project["targets"]["SlmcRunner"]
    assert (app["type"], app["platform"]) == ("application", "iOS")
    assert "SlmcRunner.app" in (FOLDER / "README.md").read_text(encoding="utf-8")
