"""The Swift package for iOS and macOS, which nothing here compiles: read by a parser, held against what it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import tree_sitter
import tree_sitter_swift
from pydantic import BaseModel

from slmc.backends.tvm.package import FRAMEWORK, HEADERS
from slmc.bundle import golden, manifest
from slmc.models import compiled, packaged
from slmc.runners import contract
from slmc.target import load_target, targets_folder
from slmc.text.task import PREFIX_FILE, TASK_FILE

FOLDER = targets_folder() / "ios" / "integration"
FLAVOURS = ("native", "coreml")
FILES = sorted(FOLDER.rglob("*.swift"))
CODE = [path for path in FILES if "Tests" not in path.parts]

IDS = [path.relative_to(FOLDER).as_posix() for path in FILES]
files = pytest.mark.parametrize("path", FILES, ids=IDS)


def sources(flavour: str) -> list[Path]:
    """What a bundle of a flavour compiles."""
    return [*FOLDER.glob("Sources/Slmc/*.swift"), *(FOLDER / flavour).glob("Sources/Slmc/*.swift")]


# ---- The parser -----------------------------------------------------------------------------------------------------


@cache
def parsed(path: Path) -> tree_sitter.Tree:
    return tree(path.read_bytes())


def tree(code: bytes) -> tree_sitter.Tree:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language())).parse(code)


def nodes(found: tree_sitter.Tree, *types: str) -> Iterator[tree_sitter.Node]:
    left = [found.root_node]
    while left:
        node = left.pop()
        if node.type in types or not types:
            yield node
        left += node.children


def text_of(node: tree_sitter.Node) -> str:
    assert node.text is not None
    return node.text.decode()


@files
def test_it_is_swift(path: Path) -> None:
    assert [text_of(node) for node in nodes(parsed(path)) if node.is_error or node.is_missing] == []


@files
def test_it_has_short_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 120 or line != line.rstrip()] == []
    assert text.endswith("\n")


def crashing(found: tree_sitter.Tree) -> list[str]:
    """What ends the process where a value is nil or a call throws."""
    forced = [
        node for node in nodes(found, "postfix_expression") if any(child.type == "bang" for child in node.children)
    ]
    operators = [node for node in nodes(found, "try_operator", "as_operator") if text_of(node).endswith("!")]
    unwrapped = [node for node in nodes(found, "type_annotation") if "!" in text_of(node)]
    return [text_of(node) for node in [*forced, *operators, *unwrapped]]


@pytest.mark.parametrize("path", CODE, ids=[path.relative_to(FOLDER).as_posix() for path in CODE])
def test_nothing_is_forced(path: Path) -> None:
    assert crashing(parsed(path)) == []
    assert not re.search(r"\b(fatalError|precondition|assert)\w*\(", path.read_text(encoding="utf-8"))


def test_the_parser_sees_mistakes() -> None:
    assert any(node.is_error or node.is_missing for node in nodes(tree(b"let a = (")))
    for code in (b"let a = b!", b"let a = try! b()", b"let a = b as! C", b"let a: B! = nil", b"let a = b!.c"):
        assert crashing(tree(code)), code
    assert crashing(tree(b"let a = !b && c != d")) == []


# ---- The library ----------------------------------------------------------------------------------------------------


@cache
def headers() -> str:
    """Without comments."""
    text = "".join(header.read_text(encoding="ascii") for header in HEADERS)
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def functions_of_c() -> dict[str, int]:
    """How many arguments each takes."""
    found = re.findall(r"^SLM_API\s[^;(]*?\b(slm_\w+)\s*\(([^()]*)\);", headers(), re.MULTILINE)
    assert len(found) == len(re.findall(r"^SLM_API\s", headers(), re.MULTILINE))
    return {name: 0 if arguments.strip() == "void" else arguments.count(",") + 1 for name, arguments in found}


def structs_of_c() -> dict[str, list[str]]:
    """Their fields' names, in order."""
    found = re.findall(r"^typedef struct (slm_\w+) \{(.*?)^\} \1;", headers(), re.MULTILINE | re.DOTALL)
    fields = r"(\w+)(?:\[\d+\])?\s*(?=[,;])"
    return {name: re.findall(fields, body) for name, body in found}


def enums_of_c() -> dict[str, list[str]]:
    """Their constants, in order."""
    found = re.findall(r"^typedef enum (slm_\w+) \{(.*?)^\} \1;", headers(), re.MULTILINE | re.DOTALL)
    return {name: re.findall(r"\b(SLM_[A-Z_]+) = \d+", body) for name, body in found}


def constants_of_c() -> set[str]:
    return {constant for constants in enums_of_c().values() for constant in constants}


def calls(path: Path) -> Iterator[tuple[str, list[str], int]]:
    """The name of each thing that is called, its arguments' labels, and how many they are."""
    for node in nodes(parsed(path), "call_expression"):
        called, suffix = node.children[0], node.children[-1]
        if called.type != "simple_identifier" or suffix.type != "call_suffix":
            continue
        arguments = [one for child in suffix.children for one in child.children if one.type == "value_argument"]
        labels = [text_of(name) for one in arguments if (name := one.child_by_field_name("name")) is not None]
        closures = sum(child.type == "lambda_literal" for child in suffix.children)
        yield text_of(called), labels, len(arguments) + closures


def test_the_headers_are_read() -> None:
    assert functions_of_c()["slm_version"] == 0
    assert functions_of_c()["slm_decider_new"] == 5
    assert functions_of_c()["slm_writer_begin"] == 7
    assert structs_of_c()["slm_text"] == ["bytes", "size"]
    assert structs_of_c()["slm_sampling"][4:] == ["seed", "stops", "stop_count"]
    assert structs_of_c()["slm_error"] == ["status", "text"]
    assert structs_of_c()["slm_decider_options"] == ["context", "threads", "prefix", "abstain_below"]
    assert enums_of_c().keys() == {"slm_status", "slm_done"}
    assert {"SLM_OK", "SLM_CANCELLED", "SLM_BAD_TEXT", "SLM_MORE"} <= constants_of_c()


@files
def test_what_is_called_is_in_the_headers(path: Path) -> None:
    functions, structs = functions_of_c(), structs_of_c()
    for name, labels, count in calls(path):
        if name in structs:
            assert labels in ([], structs[name]), f"{name}: {labels}"
        elif name in enums_of_c():
            assert (count, labels) == (1, ["rawValue"]), name
        elif name.startswith("slm_"):
            assert (count, labels) == (functions[name], []), name


@files
def test_what_is_named_is_in_the_headers(path: Path) -> None:
    known = functions_of_c().keys() | structs_of_c().keys() | enums_of_c().keys() | constants_of_c()
    named = {text_of(node) for node in nodes(parsed(path), "simple_identifier", "type_identifier")}
    assert {name for name in named if re.match(r"slm_|SLM_", name)} - known == set()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_is_made_is_freed(flavour: str) -> None:
    """A function that frees is handed over, not called: it takes one argument."""
    names = {text_of(node) for path in sources(flavour) for node in nodes(parsed(path), "simple_identifier")}
    makes = {"native": {"slm_decider_new"}, "coreml": {"slm_chooser_new", "slm_writer_new"}}
    ends = {"slm_task_open": "slm_task_close", "slm_open": "slm_close"}
    made = {name for name in names if name in ends or re.fullmatch(r"slm_\w+_new", name)}
    assert makes[flavour] <= made
    for name in made:
        end = ends.get(name, name.removesuffix("_new") + "_free")
        assert end in names
        assert functions_of_c()[end] == 1


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_fields_that_are_read_are_in_the_structs(flavour: str) -> None:
    """Names with an underscore are C's own: Swift's have none."""
    fields = {field for names in structs_of_c().values() for field in names}
    suffixes = {
        text_of(node).removeprefix(".")
        for path in sources(flavour)
        for node in nodes(parsed(path), "navigation_suffix")
    }
    assert {name for name in suffixes if "_" in name} <= fields


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_flavours_have_the_same_engine(flavour: str) -> None:
    """What the shared code asks of it."""
    [engine] = [path for path in sources(flavour) if path.name == "Engine.swift"]
    text = engine.read_text(encoding="utf-8")
    for line in (
        "final class Engine: @unchecked Sendable {",
        "  static let needed = [",
        "  let fields: [String]\n",
        "  let labels: [String]\n",
        "  let refusedPrefix: String?",
        "  let runtime: Runtime\n",
        "  init(_ files: BundleFiles, _ manifest: Manifest, threads: Int) async throws {",
        "  func answer(_ texts: [String]) throws -> Answer {",
        "  func write(_ texts: [String], _ sampling: Sampling, _ give: (String) -> Void) throws -> Written {",
        "  func cancel() {",
        "  func check() throws {",
    ):
        assert f"\n{line}" in text, line


def test_every_way_that_an_answer_ends_is_told() -> None:
    text = (FOLDER / "Sources" / "Slmc" / "Generation.swift").read_text(encoding="utf-8")
    told = dict(re.findall(r"case (SLM_[A-Z]+): self = \.(\w+)\n", text))
    assert told == {name: name.removeprefix("SLM_").lower() for name in enums_of_c()["slm_done"] if name != "SLM_MORE"}
    assert re.findall(r"^    case (\w+)\n", text, re.MULTILINE) == list(told.values())


def test_all_of_a_sampling_is_asked_for() -> None:
    text = (FOLDER / "Sources" / "Slmc" / "Sampling.swift").read_text(encoding="utf-8")
    library = (FOLDER / "Sources" / "Slmc" / "Library.swift").read_text(encoding="utf-8")
    assert set(re.findall(r"public var (\w+):", text)) == set(re.findall(r"\basked\.(\w+)", library))


@pytest.mark.parametrize(("flavour", "prefix"), [("native", "slm_answer_"), ("coreml", "slm_writer_")])
def test_a_flavour_asks_for_text_by_all_that_there_is(flavour: str, prefix: str) -> None:
    named = {text_of(node) for path in sources(flavour) for node in nodes(parsed(path), "simple_identifier")}
    answers = {name for name in functions_of_c() if name.startswith(("slm_answer_", "slm_writer_"))}
    assert named & answers == {name for name in answers if name.startswith(prefix)}


@pytest.mark.parametrize(("actor", "other"), [("Classifier", "Generator"), ("Generator", "Classifier")])
def test_a_bundle_of_the_other_kind_names_its_actor(actor: str, other: str) -> None:
    """Each says whether it wants labels, and one message sends from it to the other."""
    text = (FOLDER / "Sources" / "Slmc" / f"{actor}.swift").read_text(encoding="utf-8")
    wants = "true" if actor == "Classifier" else "false"
    assert re.findall(r"labels: (true|false)", text) == [wants, wants]
    messages = (FOLDER / "Sources" / "Slmc" / "BundleFiles.swift").read_text(encoding="utf-8")
    assert f"open it with {other}, not {actor}" in messages


# ---- JSON -----------------------------------------------------------------------------------------------------------

READ: dict[str, type[BaseModel]] = {
    "Manifest": manifest.Manifest,
    "FileEntry": manifest.FileEntry,
    "Confidence": manifest.Confidence,
    "Abstain": manifest.Abstain,
    "CompiledDecoder": compiled.CompiledDecoder,
    "PackagedDecoder": packaged.PackagedDecoder,
    "GoldenItem": golden.GoldenItem,
    "ReferenceAnswer": golden.ReferenceAnswer,
    "WorkloadHeader": contract.WorkloadHeader,
    "ChooseItem": contract.ChooseItem,
    "GenerateItem": contract.GenerateItem,
}
WRITTEN: dict[str, type[BaseModel]] = {
    "ResultHeader": contract.ResultHeader,
    "Environment": contract.Environment,
    "Chosen": contract.Chosen,
    "Generated": contract.Generated,
    "Footer": contract.Footer,
}


def structs_of_swift() -> dict[str, tree_sitter.Node]:
    """Those that say how they are in JSON."""
    found: dict[str, tree_sitter.Node] = {}
    for path in FILES:
        for node in nodes(parsed(path), "class_declaration"):
            name = node.child_by_field_name("name")
            if name is not None and coding_keys(node):
                assert text_of(name) not in found
                found[text_of(name)] = node
    return found


def coding_keys(struct: tree_sitter.Node) -> dict[str, str]:
    """The JSON key of each property."""
    body = struct.child_by_field_name("body")
    assert body is not None
    for enum in body.children:
        name = enum.child_by_field_name("name")
        if enum.type == "class_declaration" and name is not None and text_of(name) == "CodingKeys":
            entries = re.findall(r"(\w+)(?: = \"(\w+)\")?(?=,|\n|$)", re.sub(r"\bcase\b", "", entries_of(enum)))
            return {name: key or name for name, key in entries}
    return {}


def entries_of(enum: tree_sitter.Node) -> str:
    body = enum.child_by_field_name("body")
    assert body is not None
    return "\n".join(text_of(node) for node in body.children if node.type == "enum_entry")


def properties(struct: tree_sitter.Node) -> set[str]:
    """Those that are stored."""
    body = struct.child_by_field_name("body")
    assert body is not None
    return {
        match[1]
        for node in body.children
        if node.type == "property_declaration" and (match := re.match(r"let (\w+)", text_of(node)))
    }


def test_all_json_is_held_against_a_model() -> None:
    assert structs_of_swift().keys() == READ.keys() | WRITTEN.keys()


@pytest.mark.parametrize("name", [*READ, *WRITTEN])
def test_json_keys_are_the_models(name: str) -> None:
    struct, model = structs_of_swift()[name], (READ | WRITTEN)[name]
    keys = coding_keys(struct)
    assert keys.keys() == properties(struct)
    assert set(keys.values()) <= model.model_fields.keys()


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_model_needs_is_written(name: str) -> None:
    """And never left out: Swift leaves out what is nil, unless it is an OrNull."""
    struct, model = structs_of_swift()[name], WRITTEN[name]
    needed = {key for key, field in model.model_fields.items() if field.is_required()}
    marks = {"mode", "finished", "slmc_result"} & model.model_fields.keys()
    assert needed | marks <= set(coding_keys(struct).values())
    assert not re.search(r"let \w+: [^\n]*\?\n", text_of(struct))


@pytest.mark.parametrize("name", READ)
def test_what_may_be_absent_is_optional(name: str) -> None:
    struct, model = structs_of_swift()[name], READ[name]
    optional = set(re.findall(r"let (\w+): [^\n]*\?\n", text_of(struct)))
    for swift, key in coding_keys(struct).items():
        nullable = type(None) in get_args(model.model_fields[key].annotation)
        assert swift in optional or not nullable, key


def test_lines_as_swift_writes_them_are_read() -> None:
    """Whole numbers without a point, null where there is none, and pairs as lists."""
    line = (
        '{"id":"a","mode":"choose","prefill_ms":5,"decode_ms":0.25,"prefill_tokens":9,"decode_tokens":0,'
        '"decode_steps":0,"input_ids":null,"choice":1,"output_ids":[3,1],"text":"b","choice_logprobs":[[1,-0.5]],'
        '"unexplored":0}'
    )
    assert contract.Chosen.model_validate_json(line).choice_logprobs == ((1, -0.5),)
    line = (
        '{"id":"a","mode":"generate","prefill_ms":5,"decode_ms":0.25,"prefill_tokens":9,"decode_tokens":1,'
        '"decode_steps":1,"input_ids":[2],"output_ids":[3],"ended":true,"text":"b","logprobs":[-0.5,0]}'
    )
    assert contract.Generated.model_validate_json(line).logprobs == (-0.5, 0)


# ---- The package ----------------------------------------------------------------------------------------------------

MODEL = "model/"
PUT = {
    "native": {manifest.MANIFEST, TASK_FILE, PREFIX_FILE, MODEL + compiled.MANIFEST, MODEL + compiled.WEIGHTS},
    "coreml": {manifest.MANIFEST, TASK_FILE, golden.GOLDEN, MODEL + packaged.MANIFEST, MODEL + packaged.PACKAGE},
}
"""What of a bundle the package needs, by slmc's own names."""


def package_of(flavour: str) -> str:
    return (FOLDER / flavour / "Package.swift").read_text(encoding="utf-8")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_resources_are_what_slmc_puts_into_bundles(flavour: str) -> None:
    text = package_of(flavour)
    assert set(re.findall(r"\.copy\(\"(.*?)\"\)", text)) == PUT[flavour]
    assert f'.binaryTarget(name: "slm", path: "{MODEL}{FRAMEWORK}")' in text
    excluded = re.search(r"exclude: \[(.*?)\]", text)
    assert excluded is not None
    # What lies in the target's folder and is neither is a warning.
    assert set(re.findall(r"\"(.*?)\"", excluded[1])) | PUT[flavour] >= {"README.md", "Tests", golden.GOLDEN}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_engine_needs_what_is_a_resource(flavour: str) -> None:
    text = (FOLDER / flavour / "Sources" / "Slmc" / "Engine.swift").read_text(encoding="utf-8")
    needed = re.search(r"static let needed = \[(.*?)\]", text)
    assert needed is not None
    named = set(re.findall(r"\"(.*?)\"", needed[1]))
    assert named <= PUT[flavour]
    assert set(re.findall(r"files\.url\(\"(.*?)\"\)", text)) <= PUT[flavour]
    # The manifest is read without itself, and a bundle without a prefix goes on.
    assert PUT[flavour] - named <= {manifest.MANIFEST, PREFIX_FILE}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_platforms_are_the_targets(flavour: str) -> None:
    """The native library's own where it is what runs, else what Core ML needs."""
    ios, metal = load_target("ios"), load_target("metal")
    oldest = metal.minimum_os.removeprefix("macOS ")
    if flavour == "native":
        [build] = metal.native
        oldest = build.triple.rpartition("macosx")[2]
    named = dict(re.findall(r"\.(iOS|macOS)\(\"(.*?)\"\)", package_of(flavour)))
    assert named == {"iOS": ios.minimum_os.removeprefix("iOS "), "macOS": oldest}


def test_flavours_differ_in_files_alone_that_they_name() -> None:
    """No file stands in the shared sources and in a flavour's."""
    shared = {path.name for path in (FOLDER / "Sources" / "Slmc").iterdir()}
    assert all(
        shared.isdisjoint(path.name for path in (FOLDER / flavour / "Sources/Slmc").iterdir()) for flavour in FLAVOURS
    )
