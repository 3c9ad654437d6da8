"""Workloads and results through files, and files that lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.errors import InputError, RunnerError, SlmcError
from slmc.runners.contract import ChooseItem, Footer, GenerateItem, ResultHeader, ScoreItem, Workload
from slmc.runners.files import ResultWriter, make, partial_path, read_result, read_workload, write_workload
from slmc.runners.loop import answer_all

from .conftest import END, FakeEngine

Lines = list[dict[str, object]]


@pytest.fixture
def result(workload: Workload, header: ResultHeader, tmp_path: Path) -> Path:
    path = tmp_path / "result.jsonl"
    with ResultWriter(path, header) as writer:
        answer_all(FakeEngine(), workload, None, writer)
        writer.finish(Footer(peak_memory_bytes=None, load_ms=1.5))
    return path


def changed(path: Path, change: Callable[[Lines], None]) -> Path:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_workload_comes_back_as_it_was(workload: Workload, tmp_path: Path) -> None:
    write_workload(workload, tmp_path / "w")
    assert read_workload(tmp_path / "w") == workload


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 2**31), min_size=1))
def test_any_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, text: str, ids: list[int]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    fields = {"text": text}
    asked = make(1, {}, [GenerateItem(id=text, prompt=text, fields=fields, input_ids=tuple(ids), max_tokens=1)])
    write_workload(asked, path)
    assert read_workload(path) == asked


def test_watching_is_no_other_question(workload: Workload) -> None:
    items = [item.model_copy(update={"watch": None}) if item.mode == "score" else item for item in workload.items]
    assert make(END, workload.header.choices, items).digest == workload.digest
    assert make(END, workload.header.choices, items[:2]).digest != workload.digest


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: lines[0].update(slmc_workload=2), "slmc_workload"),
        (lambda lines: lines[0].update(more=1), "more"),
        (lambda lines: lines[0].update(end_id=True), "end_id"),
        (lambda lines: lines[1].update(input_ids=[-1]), "input_ids"),
        (lambda lines: lines[1].update(input_ids=[]), "input_ids"),
        (lambda lines: lines[1].update(input_ids=[1.5]), "input_ids"),
        (lambda lines: lines[1].update(mode="guess"), "guess"),
        (lambda lines: lines[1].update(max_tokens=0), "max_tokens"),
        (lambda lines: lines[1].update(id="c"), "'c' stands twice"),
        (lambda lines: lines[2].update(choices="colours"), "'colours'"),
        (lambda lines: lines[3].update(watch=[[1]]), "other positions"),
        (lambda lines: lines[0]["choices"].update(labels=[[1, 2]]), "end token"),
        (lambda lines: lines[0]["choices"].update(labels=[[4, END], [4, END]]), "twice"),
        (lambda lines: lines[0]["choices"].update(labels=[[END, 4, END]]), "end token"),
        (lambda lines: lines[1].update(max_tokens=5), "changed after it was made"),
        (lambda lines: lines.__delitem__(slice(1, None)), "no item"),
    ],
)
def test_a_workload_that_is_not_what_the_contract_says_is_refused(
    change: Callable[[Lines], None], match: str, workload: Workload, tmp_path: Path
) -> None:
    write_workload(workload, tmp_path / "w")
    with pytest.raises(InputError, match=match):
        read_workload(changed(tmp_path / "w", change))


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b"\xff\xfe", b"null\n", b"[" * 100_000])
def test_a_file_that_is_something_else_is_refused(content: bytes, workload: Workload, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=r".*\n  where: .*x"):
        read_workload(tmp_path / "x")
    with pytest.raises(RunnerError, match=r".*\n  where: .*x"):
        read_result(tmp_path / "x", workload)
    with pytest.raises(InputError):
        read_workload(tmp_path / "missing")


def test_a_result_comes_back_whole(result: Path, workload: Workload, header: ResultHeader) -> None:
    found = read_result(result, workload)
    assert found.header == header
    assert found.answers.keys() == {"g", "c", "s"}
    assert found.footer == Footer(peak_memory_bytes=None, load_ms=1.5)
    assert not partial_path(result).exists()


def test_no_answer_is_lost_unnoticed(result: Path, workload: Workload) -> None:
    """Cut at any byte, a result is an error: it never passes as a shorter one."""
    whole = result.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        result.write_bytes(whole[:length])
        with pytest.raises(RunnerError):
            read_result(result, workload)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: lines.pop(), "cut off after 3 of 3"),
        (lambda lines: lines[0].update(workload="other"), "another workload"),
        (lambda lines: lines[-1].update(finished=False), "finished"),
        (lambda lines: lines[-1].update(load_ms=-1), "load_ms"),
        (lambda lines: lines[0]["environment"].pop("batched"), "batched"),
        (lambda lines: lines.pop(1), "1 items have no answer, the first is 'g'"),
        (lambda lines: lines.insert(1, lines[1]), "'g' is answered twice"),
        (lambda lines: lines[1].update(id="z"), "no item is called 'z'"),
        (lambda lines: lines[1].update(id="c"), "asks to choose"),
        (lambda lines: lines[1].update(prefill_ms=float("nan")), "prefill_ms"),
        (lambda lines: lines[1].update(prefill_ms=float("inf")), "prefill_ms"),
        (lambda lines: lines[1].update(prefill_ms="1"), "prefill_ms"),
        (lambda lines: lines[1].update(logprobs=[0.5]), "logprobs"),
        (lambda lines: lines[1].update(output_ids=None), "output_ids"),
        (lambda lines: lines[2].update(choice=3), "not among the 3"),
        (lambda lines: lines[2].update(choice_logprobs=[[0, -1.0], [0, -2.0]]), "told twice"),
        (lambda lines: lines[2].update(choice_logprobs=[[3, -1.0]]), "not among the 3"),
        (lambda lines: lines[2].update(output_ids=[END]), "are not those of choice"),
        (lambda lines: lines[2].update(unexplored=1.5), "unexplored"),
        (lambda lines: lines[3]["positions"].pop(), "2 positions where 3"),
        (lambda lines: lines[3]["positions"][0].update(top=[]), "position 0 names no"),
        (lambda lines: lines[3]["positions"][0].update(watched=[-1.0]), "position 0 has 1 watched tokens, not 2"),
        (lambda lines: lines[3]["positions"][1].update(watched=[-1.0]), "position 1 has 1 watched tokens, not 0"),
    ],
)
def test_a_result_that_is_not_what_the_contract_says_is_refused(
    change: Callable[[Lines], None], match: str, result: Path, workload: Workload
) -> None:
    with pytest.raises(RunnerError, match=match):
        read_result(changed(result, change), workload)


def test_an_item_called_finished_does_not_end_a_result(header: ResultHeader, tmp_path: Path) -> None:
    asked = make(END, {}, [GenerateItem(id="finished", input_ids=(1,), max_tokens=1)])
    path = tmp_path / "r"
    with ResultWriter(path, header.model_copy(update={"workload": asked.digest})) as writer:
        answer_all(FakeEngine(), asked, None, writer)
        writer.finish(Footer(peak_memory_bytes=None, load_ms=0))
    assert read_result(path, asked).answers.keys() == {"finished"}
    changed(path, lambda lines: lines.pop() and None)
    with pytest.raises(RunnerError, match="cut off"):
        read_result(path, asked)


def test_contradictions_are_found_where_a_workload_is_made() -> None:
    item = ChooseItem(id="c", input_ids=(1,), choices="labels")
    scored = ScoreItem(id="s", input_ids=(1,), score_ids=(1, 2), watch=((1,),))
    for choices, items in (({}, [item]), ({"labels": ()}, [item]), ({}, [scored]), ({}, [])):
        with pytest.raises(SlmcError):
            make(END, choices, items)
