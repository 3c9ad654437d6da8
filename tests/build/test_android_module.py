"""The Android module: its Kotlin compiled against stubs of what a phone has, and run in this machine's JVM with this
machine's library, against the same library through ctypes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import pytest

from slmc.backends.tvm.library import NATIVE
from slmc.bundle.golden import read_golden
from slmc.bundle.manifest import list_files
from slmc.models.compiled import read_compiled
from slmc.prompt import TOKENIZER_FILE, Codec
from slmc.runners import files
from slmc.runners.contract import ChooseItem, Chosen, Generated, GenerateItem
from slmc.runners.native_decider import Decision, Generation, NativeDecider
from slmc.target import targets_folder
from slmc.text.golden import Golden
from slmc.text.task import Task, write_task

from ..native_files import PLAIN, Model
from .conftest import Demo
from .java import run_java
from .native_model import write_model
from .test_native_answers import SMALL, made

pytestmark = pytest.mark.build

NATIVE_TESTS = Path(__file__).parents[1] / "native"
SOURCES = targets_folder() / "android" / "integration" / "src"
BACKENDS = ("tvm", "executorch")
KOTLIN = NATIVE_TESTS / "kotlin"
TEXTS = ("wire 200 to my sister", "what's the weather", "", "größer 😀 \u0000 zero", " ".join(map(str, range(90))))
FACTS = {"context": 384, "one_token": False, "foundation_sha256": None, "versions": {"executorch": "1.5.1"}}
OF_ANY_ENGINE = (
    "fields that can't be meant so are refused",
    "closed twice it is closed",
    "many ask at once",
    "who is cancelled leaves the others alone",
    "closing meanwhile harms nobody",
)
TEXT_BACKENDS = (("tvm", False), ("executorch", False), ("executorch", True))
"""With whether the program reads one token at a time."""
ITEM = {"text": "a table for 7 in Zürich 😀"}
MANIFEST = {"name": "table-finder", "version": "1", "confidence": None, "quantization": {"scheme": "int4-g32"}}
BAD_ARGUMENT = 1
OTHERS = {
    "task of no file": "2",
    "task of another file": "3",
    "encode bytes": "9",
    "encode nothing": "null",
    "spell no token": "null",
    "begin with bytes": "9",
    "give no numbers": "8",
    "decider of no prefix": "2",
    "decider of another prefix": "3",
    "classify bytes": "9",
    "classify beyond the context": "6",
    "classify when cancelled": "7",
    "log-probability of no label": "null",
    "log-probability beyond the labels": "null",
    "classify after all that": "null",
    "ids before it begins": "null",
    "answer of bytes": "9",
    "answer beyond the context": "6",
    "answer with bytes to stop": "9",
    "answer when cancelled": "7",
    "piece when cancelled": "7",
    "piece after that": "null",
    "answer of many stops": "null",
    "writer of bytes": "9",
    "writer beyond the context": "6",
    "writer with bytes to stop": "9",
    "writer without room": "6",
    "writer with less than that": "6",
    "write no numbers": "8",
    "write one": "null",
}
"""The calls of Hostile.kt that end otherwise than with SLM_BAD_ARGUMENT."""


@dataclass(frozen=True)
class Compiler:
    home: Path
    classes: Path
    """Of the stubs and of the library's Java interface."""

    @property
    def coroutines(self) -> Path:
        return self.home / "kotlinx-coroutines-core-jvm.jar"

    def compile(self, sources: Sequence[Path], out: Path) -> None:
        where = ["-no-reflect", "-jvm-target", "11", "-cp", f"{self.classes}:{self.coroutines}", "-d", str(out)]
        jar = ["-cp", str(self.home / "kotlin-compiler.jar"), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
        # What is compiled once is not worth the JVM's second compiler.
        command = ["java", "-XX:TieredStopAtLevel=1", "-Xmx1g", *jar, "-Werror", *where, *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    if not all(map(shutil.which, ("javac", "java", "npm"))):
        pytest.skip("not run: needs javac, java and npm")
    folder = tmp_path_factory.mktemp("kotlin")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(KOTLIN / name, folder / name)
    quiet = ["--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"]
    got = subprocess.run(["npm", "ci", *quiet], cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    if got.returncode:
        pytest.skip(f"not run: needs npm's kotlin-compiler, and {got.stderr.strip().splitlines()[-1]}")
    java = [*NATIVE.glob("java/org/slmc/*.java"), *NATIVE_TESTS.glob("android-stubs/**/*.java")]
    flags = ["-Xlint:all,-options", "-Werror", "--release", "11", "-encoding", "UTF-8", "-d", str(folder / "classes")]
    subprocess.run(["javac", *flags, *map(str, java)], check=True)
    return Compiler(folder / "node_modules" / "kotlin-compiler" / "lib", folder / "classes")


@dataclass(frozen=True)
class Module:
    """For one backend, with the program that runs it."""

    compiler: Compiler
    classes: Path
    library: Path

    def run(self, app: Path, *arguments: str, **properties: str) -> list[str]:
        """The lines that it prints."""
        jars = (self.compiler.coroutines, self.compiler.home / "kotlin-stdlib.jar")
        path = os.pathsep.join(map(str, (self.classes, self.compiler.classes, *jars)))
        given = {"java.library.path": str(self.library.parent), "app": str(app), **properties}
        options = ["-Dfile.encoding=UTF-8", *(f"-D{name}={value}" for name, value in given.items())]
        return run_java([*options, "-cp", path, "org.slmc.HarnessKt", str(app), *arguments], timeout_s=300)


@pytest.fixture(scope="module")
def modules(compiler: Compiler, java_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Module]:
    folder = tmp_path_factory.mktemp("module")
    shared = [SOURCES / name for name in ("core", "main", "runner", "androidTest")]
    for backend in BACKENDS:
        compiler.compile([*shared, SOURCES / backend, *sorted(KOTLIN.glob("*.kt"))], folder / backend)
    return {backend: Module(compiler, folder / backend, java_library) for backend in BACKENDS}


# ---- An app ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class App:
    """Its data, with a bundle in its assets as the Gradle module puts it there."""

    root: Path
    codec: Codec
    decider: NativeDecider

    @property
    def assets(self) -> Path:
        return self.root / "assets" / "slm"

    def write_manifest(self, like: Path, name: str = "manifest.json") -> None:
        """That of another bundle, with the files that lie here."""
        entries = {path: entry.model_dump() for path, entry in list_files(self.assets).items()}
        manifest = json.loads(like.read_text(encoding="utf-8")) | {"files": entries, "confidence": None}
        (self.assets / name).write_text(json.dumps(manifest), encoding="utf-8")

    def read_one_token(self, only: bool) -> None:
        """Whether ExecuTorch's program reads no more at once."""
        facts = self.assets / "model" / "model.json"
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"one_token": only}))
        self.write_manifest(self.assets / "manifest.json")

    def decisions(self) -> list[Decision]:
        return [self.decider.classify({"text": text}) for text in TEXTS]


def golden_items(codec: Codec, decider: NativeDecider) -> list[Golden]:
    items = []
    for name, text in (("first", "pay my bill"), ("second", "book a flight")):
        found = decider.classify({"text": text})
        items.append(Golden(name, {"text": text}, codec.prompt({"text": text})[1], found.choice, found.probability))
    return items


@pytest.fixture(scope="module")
def app(demo: Demo, java_library: Path, tmp_path_factory: pytest.TempPathFactory) -> App:
    root, bundle = tmp_path_factory.mktemp("app") / "größe 😀", demo.built.bundle
    assets = root / "assets" / "slm"
    model = assets / "model"
    model.mkdir(parents=True)
    shutil.copyfile(bundle / "model" / "model.slm", model / "model.slm")
    shutil.copyfile(bundle / "model" / "model.slm", model / "model.pte")  # see the stub of ExecuTorch's Module
    codec = Codec.open(bundle / "tokenizer")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    task = Task(bundle / "tokenizer" / TOKENIZER_FILE, codec, manifest["labels"], [{"text": text} for text in TEXTS])
    write_task(task, assets / "task.slm")
    first = NativeDecider(bundle / "model", assets / "task.slm", library=java_library)
    golden = golden_items(codec, first)
    (assets / "prefix.slm").write_bytes(first.prefix())
    facts = FACTS | {"vocab_size": json.loads((bundle / "model" / "model.json").read_text())["vocab_size"]}
    (model / "model.json").write_text(json.dumps(facts))
    # As where the model answered otherwise.
    write_task(task, assets / "task.slm", [golden[0], replace(golden[1], probability=0.5)])
    made = App(root, codec, NativeDecider(bundle / "model", assets / "task.slm", library=java_library))
    made.write_manifest(bundle / "manifest.json", "manifest-of-another-model.json")
    (assets / "task.slm").rename(assets / "task-of-another-model.slm")
    write_task(task, assets / "task.slm", golden)
    made.write_manifest(bundle / "manifest.json")
    return made


def told(decision: Decision, labels: Sequence[str]) -> list[object]:
    return [labels[decision.choice], decision.probability, decision.prompt_ids, decision.logprobs]


def parsed(line: str) -> list[object]:
    label, probability, ids, logprobs = line.split(" ")
    pairs = (pair.split(":") for pair in logprobs.split(","))
    values = {int(choice): float.fromhex(value) for choice, value in pairs}
    return [label, float.fromhex(probability), tuple(map(int, ids.split(","))), values]


def test_it_decides_as_c_does_to_the_bit(modules: Mapping[str, Module], app: App) -> None:
    first, *lines = modules["tvm"].run(app.root, "answers", *map(quote_plus, TEXTS))
    assert first == f"[text] {len(app.decider.labels)} null null"
    assert [parsed(line) for line in lines] == [told(decision, app.decider.labels) for decision in app.decisions()]


@pytest.mark.parametrize("one_token", [True, False])
def test_with_executorch_it_decides_alike(modules: Mapping[str, Module], app: App, one_token: bool) -> None:
    """The search is asked one path at a time, and tells no log-probabilities but the chosen label's."""
    app.read_one_token(one_token)
    first, *lines = modules["executorch"].run(app.root, "answers", *map(quote_plus, TEXTS))
    assert first == f"[text] {len(app.decider.labels)} null null"
    for line, decision in zip(lines, app.decisions(), strict=True):
        label, probability, ids, logprobs = parsed(line)
        assert label == app.decider.labels[decision.choice]
        assert probability == pytest.approx(decision.probability, abs=1e-3)
        assert isinstance(ids, tuple)
        assert ids[: len(decision.prompt_ids)] == decision.prompt_ids
        assert logprobs == {decision.choice: pytest.approx(decision.logprobs[decision.choice], abs=1e-3)}


@pytest.mark.parametrize(("backend", "names"), [("tvm", ()), ("executorch", OF_ANY_ENGINE)])
def test_it_behaves(modules: Mapping[str, Module], app: App, demo: Demo, backend: str, names: tuple[str, ...]) -> None:
    """See Behaviour.kt."""
    texts = [item.fields["text"] for item in read_golden(demo.built.bundle)]
    decisions = {text: app.decider.classify({"text": text}) for text in texts}
    text = max(decisions, key=lambda one: decisions[one].probability)
    label = app.decider.labels[decisions[text].choice]
    lines = modules[backend].run(app.root, "behaviour", *names, text=text, label=label)
    assert len(lines) == (len(names) or 21)
    assert [line for line in lines if not line.endswith(": as it should")] == []


def test_what_fails_throws_its_status(modules: Mapping[str, Module], app: App) -> None:
    """See Hostile.kt."""
    lines = dict(line.split(": ") for line in modules["tvm"].run(app.root, "hostile"))
    assert len(lines) == 109
    assert {name: status for name, status in lines.items() if status != str(BAD_ARGUMENT)} == OTHERS


@pytest.mark.parametrize("backend", BACKENDS)
def test_its_results_keep_the_contract(modules: Mapping[str, Module], app: App, demo: Demo, backend: str) -> None:
    end, labels = app.codec.end_id, app.decider.labels
    choices = {"labels": tuple(tuple(app.codec.answer(label)) for label in labels)}
    items = [
        ChooseItem(id=f'"{index}" é', fields=item.fields, input_ids=tuple(item.input_ids), choices="labels")
        for index, item in enumerate(read_golden(demo.built.bundle))
    ]
    odd = items[1].model_copy(update={"input_ids": (end,)})
    workload = files.make(end, choices, [items[0], odd, *items[2:]])
    folder = app.root / "files"
    folder.mkdir(exist_ok=True)
    files.write_workload(workload, folder / "workload.jsonl")
    modules[backend].run(app.root, "workload", workload="workload.jsonl", result=f"{backend}.jsonl")
    result = files.read_result(folder / f"{backend}.jsonl", workload)
    assert not (folder / f"{backend}.jsonl.partial").exists()
    environment = result.environment
    assert (environment.device, environment.os) == ("Stub One", "Android 14 (API 34)")
    assert (environment.thermal, environment.runtime) == ("light", {"tvm": "slm"}.get(backend, backend))
    for item in items:
        answer, decision = result.answers[item.id], app.decider.classify(item.fields or {})
        assert isinstance(answer, Chosen)
        assert answer.choice == decision.choice
        assert (answer.input_ids is None) == (item.id != odd.id)
        assert answer.prefill_tokens > 0
        assert answer.prefill_ms > 0


# ---- Answers in text ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """An answer as `NativeDecider.generate` takes it, and as Harness.kt does."""

    text: str
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 0
    seed: int = 0
    stops: Sequence[str] = ()

    def generated(self, decider: NativeDecider) -> Generation:
        options = asdict(self)
        return decider.generate({"text": options.pop("text")}, **options)

    @property
    def argument(self) -> str:
        seed = self.seed - (1 << 64) if self.seed >> 63 else self.seed
        return quote_plus(json.dumps(asdict(self) | {"seed": seed}))


def asked_of(decider: NativeDecider) -> list[Asked]:
    """Answers of every kind, some with stop strings that come."""
    texts = ("a table for 7", "", "größer 😀 \u0000 zero", "漢字 é\n")
    asked = [
        *(Asked(text) for text in texts),
        *(Asked(text, max_tokens=count) for text in texts for count in (1, 7)),
        *(Asked(text, temperature=1.5, seed=seed) for seed, text in enumerate(texts)),
        Asked(texts[0], temperature=20, seed=3, top_k=40, max_tokens=60),
        Asked(texts[0], temperature=3, seed=(1 << 64) - 5, top_p=0.7, max_tokens=60),
    ]
    stopped = []
    for one in asked:
        text = one.generated(decider).text
        if len(text) > 8:
            stopped.append(replace(one, stops=("never é", text[5:8], text[6:9])))
    return asked + stopped


def make_text_app(folder: Path, kind: str, schema: dict[str, Any] | None, library: Path) -> App:
    """With a small random model whose context leaves room for long answers."""
    case = made(kind, " ", folder, library)
    config = replace(PLAIN.config, vocab_size=read_compiled(folder / "model").vocab_size, context=600)
    weights = write_model(folder / "long", Model(config, PLAIN.layers))
    assets = folder / "app" / "assets" / "slm"
    (assets / "model").mkdir(parents=True)
    for name in ("model.slm", "model.pte"):
        shutil.copyfile(weights, assets / "model" / name)
    task = Task(folder / "tokenizer.json", case.codec, (), [ITEM, {"text": "weather"}], schema)
    write_task(task, folder / "task.slm")
    decider = NativeDecider(weights.parent, folder / "task.slm", library=library)
    (assets / "prefix.slm").write_bytes(decider.prefix())
    facts = FACTS | {"context": config.context, "vocab_size": config.vocab_size}
    (assets / "model" / "model.json").write_text(json.dumps(facts))
    ids = case.codec.prompt(ITEM)[1]
    (like := folder / "manifest.json").write_text(json.dumps(MANIFEST))
    app = App(folder / "app", case.codec, decider)
    # As where prompts were read otherwise.
    write_task(task, assets / "task.slm", [Golden("first", ITEM, ids), Golden("second", ITEM, ids[1:])])
    app.write_manifest(like, "manifest-of-another-model.json")
    (assets / "task.slm").rename(assets / "task-of-another-model.slm")
    write_task(task, assets / "task.slm", [Golden("first", ITEM, ids)])
    app.write_manifest(like)
    return app


TEXT_APPS = {"free": ("llama3", None), "bytes": ("unigram_bytes", None), "json": ("llama3", SMALL)}
"""Tokenizers and schemas."""


@pytest.fixture(scope="module", params=TEXT_APPS)
def text_app(request: pytest.FixtureRequest, java_library: Path, tmp_path_factory: pytest.TempPathFactory) -> App:
    return make_text_app(tmp_path_factory.mktemp("text"), *TEXT_APPS[request.param], java_library)


@pytest.mark.parametrize(("backend", "single"), TEXT_BACKENDS)
def test_it_writes_as_c_does_to_the_bit(
    modules: Mapping[str, Module], text_app: App, backend: str, single: bool
) -> None:
    text_app.read_one_token(single)
    asked = asked_of(text_app.decider)
    first, *lines = modules[backend].run(text_app.root, "texts", *(one.argument for one in asked))
    assert first == "[text] null null"
    ends = set()
    for one, line in zip(asked, lines, strict=True):
        wanted, found = one.generated(text_app.decider), json.loads(unquote_plus(line))
        assert found["text"] == wanted.text
        assert found["done"] == wanted.done.name
        assert tuple(found["ids"]) == wanted.ids
        assert tuple(found["logprobs"]) == wanted.logprobs
        assert "" not in found["pieces"]
        assert "".join(found["pieces"]) == wanted.text
        read, decoded, steps = found["tokens"]
        assert decoded == steps == len(wanted.logprobs) - 1
        # ExecuTorch tells what was new to it: not what all prompts begin with, but for the first.
        assert 0 < read < len(wanted.prompt_ids) or backend == "tvm" or line == lines[0]
        ends.add(wanted.done.name)
    assert ends == {"ENDED", "STOPPED", "LENGTH"}


@pytest.mark.parametrize("text_app", ["free"], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_behaves_in_text(modules: Mapping[str, Module], text_app: App, backend: str) -> None:
    """See TextBehaviour.kt."""
    text_app.read_one_token(False)
    lines = modules[backend].run(text_app.root, "text-behaviour")
    assert len(lines) == 11
    assert [line for line in lines if not line.endswith(": as it should")] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_its_texts_keep_the_contract(modules: Mapping[str, Module], text_app: App, backend: str) -> None:
    contents = ("a table for 7", "größer 😀 \u0000 zero", "")
    items = [
        GenerateItem(
            id=f'"{index}" é',
            fields={"text": text},
            input_ids=tuple(text_app.codec.prompt({"text": text})[1]),
            max_tokens=9 + index,
        )
        for index, text in enumerate(contents)
    ]
    odd = items[1].model_copy(update={"input_ids": (1,)})
    workload = files.make(text_app.codec.end_id, {}, [items[0], odd, *items[2:]])
    folder = text_app.root / "files"
    folder.mkdir(exist_ok=True)
    files.write_workload(workload, folder / "workload.jsonl")
    modules[backend].run(text_app.root, "workload", workload="workload.jsonl", result=f"{backend}.jsonl")
    result = files.read_result(folder / f"{backend}.jsonl", workload)
    for item in items:
        answer = result.answers[item.id]
        wanted = text_app.decider.generate(item.fields or {}, max_tokens=item.max_tokens)
        assert isinstance(answer, Generated)
        assert (answer.output_ids, answer.text, answer.logprobs) == (wanted.ids, wanted.text, wanted.logprobs)
        assert answer.ended == (wanted.done.name == "ENDED")
        assert answer.input_ids == (item.input_ids if item.id == odd.id else None)
        assert answer.prefill_ms > 0


# ---- What is said elsewhere -----------------------------------------------------------------------------------------


def test_the_core_needs_no_android() -> None:
    pure = [path for name in ("core", "tvm", "runner") for path in (SOURCES / name).rglob("*.kt")]
    assert len(pure) > 8
    for path in pure:
        assert not re.search(r"^import (android|org\.json)", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_build_script_takes_what_there_is() -> None:
    script = (SOURCES.parent / "build.gradle.kts").read_text(encoding="utf-8")
    for name in re.findall(r'"(src/[\w/$]+)"', script):
        for backend in BACKENDS:
            assert (SOURCES.parent / name.replace("$backend", backend)).is_dir()
    needed = re.findall(r'"([\w/]+\.(?:slm|pte|json))"', "".join(path.read_text() for path in SOURCES.rglob("*.kt")))
    assert set(needed) <= set(re.findall(r'"([\w/]+\.(?:slm|pte|json))"', script))
