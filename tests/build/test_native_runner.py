"""slm-run, the runner for machines without Python: the Python runner's answers, on this CPU and an emulated one."""

from __future__ import annotations

import ctypes
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_int, c_size_t, c_void_p
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lief
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slmc.backends.tvm.library import NATIVE, zig_tools
from slmc.backends.tvm.runner import build_runner
from slmc.runners import tvm
from slmc.runners.contract import ChooseItem, Chosen, Generated, GenerateItem, Item, Result, Scored, ScoreItem, Workload
from slmc.runners.files import make, read_result, write_workload
from slmc.text import NATIVE as TEXT

from ..native_files import PLAIN, Model
from ..task_files import LABELS, codec, task_bytes
from .native_model import write_model

pytestmark = pytest.mark.build

FACTS = {
    "device": 'a "phone"\\ü',
    "os": "none",
    "artifact": "0" * 64,
    "precision": "int4",
    "activations": "int8",
}
FIELDS = ({"text": "a", "more": "money"}, {"text": "weather in é 7", "more": ""}, {"text": "7 😀", "more": "\n\t"})
KIND = "llama3"


@dataclass(frozen=True)
class Case:
    """A small random model with a task, and a workload that asks for everything."""

    folder: Path
    workload: Workload

    @property
    def words(self) -> dict[str, Path]:
        names = {"model": "model/model.slm", "task": "task.slm", "workload": "workload.jsonl", "result": "result.jsonl"}
        return {option: self.folder / name for option, name in names.items()}


@dataclass(frozen=True)
class Program:
    command: tuple[str, ...]

    def run(self, case: Case, *more: str, **options: object) -> subprocess.CompletedProcess[str]:
        given = {**FACTS, **case.words, **options}
        words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
        return self.call(*words, *more)

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Program:
    path = tmp_path_factory.mktemp("here") / "slm-run"
    build_runner("x86_64-linux-gnu", path)
    return Program((str(path),))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    (folder / "task.slm").write_bytes(task_bytes(folder, KIND))
    own = codec(KIND)
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    config = replace(PLAIN.config, vocab_size=size + 5)
    write_model(folder / "model", Model(config, PLAIN.layers))
    items: list[Item] = []
    for number, fields in enumerate(FIELDS):
        text, ids = own.prompt(fields)
        common: dict[str, Any] = {"prompt": text, "fields": fields, "input_ids": tuple(ids)}
        items.append(ChooseItem(id=f"task/{number}", choices="labels", **common))
        items.append(GenerateItem(id=f"text/{number} \"'\n", max_tokens=9, **common))
        watch = ((), (1, 2, 3), (0, config.vocab_size - 1))
        items.append(ScoreItem(id=f"score/ü{number}", score_ids=(5, 7, 1), watch=watch, **common))
        items.append(ScoreItem(id=f"plain/{number}", score_ids=(9,), **common))
        items.append(GenerateItem(id=f"ids/{number}", input_ids=(3, 4, 5 + number), max_tokens=7, ignore_end=True))
    items.append(ChooseItem(id="other prompt", choices="labels", fields=FIELDS[0], input_ids=(3, 4)))
    choices = {"labels": tuple(tuple(own.answer(label)) for label in LABELS)}
    workload = make(own.end_id, choices, items)
    write_workload(workload, folder / "workload.jsonl")
    return Case(folder, workload)


@pytest.fixture(scope="module")
def expected(case: Case, host_library: Path) -> Result:
    """By the runner in Python."""
    result = case.folder / "python.jsonl"
    words = ["tvm", "--artifact", case.folder / "model", "--task", case.words["task"], "--library", host_library]
    words += ["--workload", case.words["workload"], "--result", result]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, words)))
        tvm.main()
    return read_result(result, case.workload)


def check(found: Result, expected: Result) -> None:
    for name, answer in expected.answers.items():
        other = found.answers[name]
        assert other.input_ids == answer.input_ids, name
        if isinstance(answer, Chosen) and isinstance(other, Chosen):
            assert other.choice == answer.choice
            assert near(dict(other.choice_logprobs), dict(answer.choice_logprobs))
            assert other.unexplored == pytest.approx(answer.unexplored, abs=1e-6)
        elif isinstance(answer, Generated) and isinstance(other, Generated):
            assert (other.output_ids, other.ended) == (answer.output_ids, answer.ended)
            assert near(dict(enumerate(other.logprobs)), dict(enumerate(answer.logprobs)))
        elif isinstance(answer, Scored) and isinstance(other, Scored):
            for one, right in zip(other.positions, answer.positions, strict=True):
                assert near(dict(one.top), dict(right.top))
                assert [value for _, value in one.top] == sorted((value for _, value in one.top), reverse=True)
                assert near({0: one.logprob}, {0: right.logprob})
                assert near(dict(enumerate(one.watched or ())), dict(enumerate(right.watched or ())))
        assert other.prefill_tokens == answer.prefill_tokens
        assert (other.decode_tokens, other.decode_steps) == (answer.decode_tokens, answer.decode_steps)


def near(found: dict[int, float], wanted: dict[int, float]) -> bool:
    """The last digit may be rounded otherwise."""
    return found.keys() == wanted.keys() and all(abs(found[key] - wanted[key]) < 2e-6 for key in wanted)


def test_it_answers_as_the_python_runner(here: Program, case: Case, expected: Result) -> None:
    done = here.run(case, threads=2)
    assert (done.returncode, done.stderr) == (0, "")
    found = read_result(case.words["result"], case.workload)
    check(found, expected)
    environment = found.environment
    assert environment.device == FACTS["device"]
    assert environment.version == expected.environment.version
    assert (environment.runtime, environment.threads, environment.thermal) == ("slm", 2, None)
    assert found.footer.peak_memory_bytes is not None
    assert 1 << 18 < found.footer.peak_memory_bytes < 1 << 26
    assert found.footer.load_ms > 0
    assert sum(answer.input_ids is not None for answer in found.answers.values()) == 1


def test_a_phones_program_answers_the_same(case: Case, expected: Result, tmp_path: Path) -> None:
    """The very file that is sent to Android, on an emulated CPU."""
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("not run: needs qemu-aarch64-static")
    build_runner("aarch64-linux-gnu", tmp_path / "slm-run")
    binary = lief.ELF.parse(str(tmp_path / "slm-run"))
    assert binary is not None
    assert not binary.has_interpreter
    assert list(binary.libraries) == []
    done = Program((emulator, "-cpu", "max", str(tmp_path / "slm-run"))).run(case, result=tmp_path / "result")
    assert (done.returncode, done.stderr) == (0, "")
    found = read_result(tmp_path / "result", case.workload)
    check(found, expected)
    assert found.environment.version.endswith("i8mm")


def test_it_goes_on_for_as_long_as_it_is_told(here: Program, case: Case, expected: Result, tmp_path: Path) -> None:
    """The result is that of one pass, and says how many answers there were in each tenth."""
    begun = time.monotonic()
    done = here.run(case, "--sustain", "2", result=tmp_path / "result")
    assert (done.returncode, done.stderr) == (0, "")
    assert 2 <= time.monotonic() - begun < 20
    found = read_result(tmp_path / "result", case.workload)
    check(found, expected)
    counts = found.footer.sustained
    assert counts is not None
    assert min(counts) > 0
    assert sum(counts) > 2 * len(case.workload.items)  # so the workload was begun again
    last = (tmp_path / "result").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["sustained"] == list(counts)


def test_it_tells_of_no_tenths_that_were_not_asked_for(here: Program, case: Case, tmp_path: Path) -> None:
    assert here.run(case, result=tmp_path / "result").returncode == 0
    assert "sustained" not in json.loads((tmp_path / "result").read_text(encoding="utf-8").splitlines()[-1])
    assert read_result(tmp_path / "result", case.workload).footer.sustained is None


def test_a_workload_without_items_is_sustained_to_its_end(here: Program, case: Case, tmp_path: Path) -> None:
    """Python makes none; a runner must not go on for ever over one."""
    header = case.words["workload"].read_text(encoding="utf-8").split("\n")[0]
    (tmp_path / "w").write_text(f"{header}\n", encoding="utf-8")
    done = here.run(case, "--sustain", "1", workload=tmp_path / "w", result=tmp_path / "result")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "result").read_text().splitlines()[-1])["sustained"] == [0] * 10


# ---- What can't be answered -----------------------------------------------------------------------------------------


def changed(case: Case, folder: Path, line: int, **changes: object) -> dict[str, Path]:
    """A workload with other members in a line; the runner does not look at the digest."""
    lines = [json.loads(text) for text in case.words["workload"].read_text(encoding="utf-8").split("\n") if text]
    lines[line] |= changes
    (folder / "w").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return {"workload": folder / "w", "result": folder / "result"}


@pytest.mark.parametrize(
    ("line", "changes", "told"),
    [
        (0, {"slmc_workload": 2}, "line 1 of the workload"),
        (0, {"more": 1}, "line 1 of the workload"),
        (0, {"choices": {"labels": [[5, 1]]}}, "1 choices for a task file of 6 labels"),
        (0, {"choices": {"others": [[5, 1]]}}, "line 2 of the workload"),
        (1, {"choices": "none"}, "line 2 of the workload"),
        (1, {"input_ids": []}, "line 2 of the workload"),
        (1, {"input_ids": [-1]}, "line 2 of the workload"),
        (1, {"input_ids": [2.5]}, "line 2 of the workload"),
        (1, {"input_ids": [1 << 33]}, "line 2 of the workload"),
        (1, {"input_ids": [1 << 30]}, "item task/0: a token beyond the vocabulary"),
        (1, {"fields": {"text": "a"}}, "item task/0: the item has not the fields"),
        (1, {"fields": {"text": "a", "more": "b", "third": "c"}}, "item task/0: the item has not the fields"),
        (1, {"fields": {"text": "a" * 10000, "more": "b"}}, "item task/0: "),
        (1, {"fields": None}, "item task/0: choices need --task and an item with fields"),
        (1, {"mode": "dance"}, "line 2 of the workload"),
        (2, {"max_tokens": 0}, "line 3 of the workload"),
        (3, {"score_ids": [1, 2]}, "line 4 of the workload"),
        (3, {"watch": [[1 << 30], [], []]}, "item score/ü0: a token beyond the vocabulary"),
        (5, {"input_ids": [5] * 10000}, "item ids/0: "),
    ],
)
def test_what_is_no_workload_is_refused(
    here: Program, case: Case, tmp_path: Path, line: int, changes: dict[str, object], told: str
) -> None:
    done = here.run(case, **changed(case, tmp_path, line, **changes))
    assert done.returncode == 16
    assert told in done.stderr
    assert not (tmp_path / "result").exists()


def test_text_that_is_no_workload_is_refused(here: Program, case: Case, tmp_path: Path) -> None:
    whole = case.words["workload"].read_bytes()
    contents = [b"", b"\n\n", b"{", b"\x00", whole.replace(b"weather", b"we\xffther"), whole[: len(whole) // 2]]
    contents += [whole.replace(b"}\n", b"}\x00\n", 1), whole.replace(b'"prompt":', b'"prompt":' + b"[" * 100000, 1)]
    for content in contents:
        (tmp_path / "w").write_bytes(content)
        done = here.run(case, workload=tmp_path / "w", result=tmp_path / "result")
        assert done.returncode == 16, content[:50]
        assert "the workload" in done.stderr
        assert not (tmp_path / "result").exists()


def test_damaged_files_are_refused(here: Program, case: Case, tmp_path: Path) -> None:
    for option in ("model", "task"):
        content = bytearray(case.words[option].read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / option).write_bytes(content)
        done = here.run(case, **{option: tmp_path / option, "result": tmp_path / "result"})
        assert done.returncode == 16, option
        assert not (tmp_path / "result").exists()
        assert here.run(case, **{option: tmp_path / "nothing"}).returncode == 16


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--nonsense", "1"), "no such option: --nonsense"),
        (("--threads",), "one value is needed for --threads"),
        (("--model", "again"), "one value is needed for --model"),
        (("--threads", "0"), "--threads needs a number"),
        (("--threads", "2x"), "--threads needs a number"),
        (("--threads", "257"), "--threads needs a number"),
        (("--sustain", "0"), "--sustain needs seconds from 1 to 86400, not 0"),
        (("--sustain", "-1"), "--sustain needs seconds"),
        (("--sustain", "1.5"), "--sustain needs seconds"),
        (("--sustain", ""), "--sustain needs seconds"),
        (("--sustain", "86401"), "--sustain needs seconds"),
        (("--sustain", "99999999999999999999"), "--sustain needs seconds"),
        (("--kernels", "none"), "none"),
    ],
)
def test_a_call_that_cant_be_meant_so(here: Program, case: Case, words: Sequence[str], told: str) -> None:
    done = here.run(case, *words)
    assert done.returncode == (16 if words[0] == "--kernels" else 2)
    assert told in done.stderr


@pytest.mark.parametrize("missing", ["model", "workload", "result", "device", "os", "artifact", "precision"])
def test_what_is_needed_is_named(here: Program, case: Case, missing: str) -> None:
    done = here.run(case, **{missing: None})
    assert (done.returncode, done.stderr) == (2, f"missing: --{missing}\n")


def test_a_full_disk_leaves_no_result(here: Program, case: Case, tmp_path: Path) -> None:
    def little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    words = [word for name, value in (FACTS | case.words).items() for word in (f"--{name}", str(value))]
    done = here.call(*words[:-1], str(tmp_path / "result"), preexec_fn=little)
    assert done.returncode == 16
    assert "the result can't be written" in done.stderr
    assert not (tmp_path / "result").exists()


def test_without_a_task_ids_are_answered(here: Program, case: Case, expected: Result, tmp_path: Path) -> None:
    items = [item for item in case.workload.items if item.fields is None or isinstance(item, ScoreItem)]
    workload = make(case.workload.header.end_id, {}, items)
    write_workload(workload, tmp_path / "w")
    done = here.run(case, task=None, workload=tmp_path / "w", result=tmp_path / "result")
    assert (done.returncode, done.stderr) == (0, "")
    found = read_result(tmp_path / "result", workload)
    check(found, replace(expected, answers={item.id: expected.answers[item.id] for item in items}))


# ---- JSON -----------------------------------------------------------------------------------------------------------


class _Json(Structure):
    _fields_ = (("at", c_void_p), ("end", c_void_p), ("bad", c_int))


class _Buffer(Structure):
    _fields_ = (("bytes", POINTER(ctypes.c_uint8)), ("size", c_size_t), ("capacity", c_size_t))


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("json") / "json.so"
    flags = ["-std=c11", "-O1", "-g", "-shared", "-fPIC", "-D_DEFAULT_SOURCE", f"-I{TEXT}", "-fsanitize=undefined"]
    with zig_tools() as zig:
        zig(["cc", *flags, "-fsanitize-trap=undefined", str(NATIVE / "runner" / "json.c"), "-o", str(path)], "host")
    library = ctypes.CDLL(str(path))
    library.json_of.argtypes, library.json_of.restype = [c_void_p, c_size_t], _Json
    return library


def accepts(parser: ctypes.CDLL, content: bytes) -> bool:
    # Of its very size, so that a step beyond it is one beyond the memory.
    memory = ctypes.create_string_buffer(content, len(content)) if content else ctypes.create_string_buffer(1)
    json_ = parser.json_of(ctypes.addressof(memory), len(content))
    parser.json_skip(byref(json_))
    return bool(parser.json_done(byref(json_)))


def is_json(content: bytes) -> bool:
    """By Python, where it is as strict as the RFC: no NaN, and no half of a surrogate pair."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        json.dumps(json.loads(content.decode(), parse_constant=refuse), ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_json_is_read(parser: ctypes.CDLL, value: object, ascii_only: bool, indent: int | None) -> None:
    assert accepts(parser, json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode())


@given(value=values, at=st.integers(0, 200), put=st.binary(max_size=2), cut=st.integers(0, 3))
def test_what_is_not_json_is_refused(parser: ctypes.CDLL, value: object, at: int, put: bytes, cut: int) -> None:
    content = json.dumps(value).encode()
    at %= len(content) + 1
    damaged = content[:at] + put + content[at + cut :]
    assert accepts(parser, damaged) == is_json(damaged)


@pytest.mark.parametrize(
    "text",
    ["01", "-", "1.", "1e", ".5", "+1", "tru", "nul", '"\\x"', '"\\ud800"', '"\\udc00"', '"\t"', "[1,]", "{1:2}", ""],
)
def test_what_looks_like_json_is_refused(parser: ctypes.CDLL, text: str) -> None:
    assert not accepts(parser, text.encode())


@given(text=st.text(), ascii_only=st.booleans())
def test_a_text_is_what_it_was(parser: ctypes.CDLL, text: str, ascii_only: bool) -> None:
    content = json.dumps(text, ensure_ascii=ascii_only).encode()
    json_, buffer = parser.json_of(content, len(content)), _Buffer()
    parser.json_text(byref(json_), byref(buffer))
    assert parser.json_done(byref(json_))
    assert bytes(buffer.bytes[: buffer.size]).decode() == text if buffer.size else text == ""


@given(number=st.integers(-(2**34), 2**34), least=st.integers(0, 5))
def test_a_number_is_whole_and_fits(parser: ctypes.CDLL, number: int, least: int) -> None:
    content = str(number).encode()
    json_ = parser.json_of(content, len(content))
    found = parser.json_number(byref(json_), least)
    right = least <= number < 2**31
    assert bool(parser.json_done(byref(json_))) == right
    assert not right or found == number
