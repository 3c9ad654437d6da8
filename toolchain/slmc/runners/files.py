"""Reading and writing workloads and results, each line checked where it comes in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from slmc import digest
from slmc.errors import InputError, RunnerError, SlmcError
from slmc.runners.contract import (
    Answer,
    ChooseItem,
    Chosen,
    Footer,
    Ids,
    Item,
    Line,
    Result,
    ResultHeader,
    Scored,
    ScoreItem,
    Workload,
    WorkloadHeader,
)

_HEADER = TypeAdapter(WorkloadHeader)
_ITEM: TypeAdapter[Item] = TypeAdapter(Item)
_RESULT_HEADER = TypeAdapter(ResultHeader)
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
_FOOTER = TypeAdapter(Footer)


def make(end_id: int, choices: dict[str, tuple[Ids, ...]], items: Iterable[Item]) -> Workload:
    """A workload with its digest. Raises InputError where items or choices contradict each other."""
    found = tuple(items)
    header = WorkloadHeader(digest=_digest(end_id, choices, found), end_id=end_id, choices=choices)
    workload = Workload(header, found)
    _check_workload(workload, "workload")
    return workload


def write_workload(workload: Workload, path: Path) -> None:
    lines = [workload.header.model_dump_json(), *(item.model_dump_json() for item in workload.items)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_workload(path: Path) -> Workload:
    """Raises InputError naming the line that is not what the contract says."""
    lines = _lines(path, InputError)
    number, first = next(lines, (1, ""))
    header = _parse(_HEADER, first, path, number, InputError)
    items = tuple(_parse(_ITEM, text, path, number, InputError) for number, text in lines)
    workload = Workload(header, items)
    _check_workload(workload, path)
    if header.digest != _digest(header.end_id, header.choices, items):
        raise InputError("the workload was changed after it was made: its digest is another", where=path)
    return workload


def read_result(path: Path, workload: Workload) -> Result:
    """Raises RunnerError where the result is truncated, malformed, or does not answer this workload."""
    lines = list(_lines(path, RunnerError))
    if not lines:
        raise RunnerError("the result is empty", where=path)
    header = _parse(_RESULT_HEADER, lines[0][1], path, lines[0][0], RunnerError)
    if header.workload != workload.digest:
        raise RunnerError(
            f"the result answers another workload ({header.workload[:12]})",
            where=path,
            expected=f"workload {workload.digest[:12]}",
        )
    if not _is_footer(lines[-1][1]):
        raise RunnerError(
            f"the result is cut off after {len(lines) - 1} of {len(workload.items)} answers",
            where=path,
            expected="a last line that says finished",
        )
    footer = _parse(_FOOTER, lines[-1][1], path, lines[-1][0], RunnerError)
    answers = _read_answers(lines[1:-1], path, workload)
    return Result(header, answers, footer)


def _is_footer(text: str) -> bool:
    try:
        line = json.loads(text)
    except ValueError:
        return False
    return isinstance(line, dict) and "finished" in line


def _read_answers(lines: Sequence[tuple[int, str]], path: Path, workload: Workload) -> dict[str, Answer]:
    items = {item.id: item for item in workload.items}
    answers: dict[str, Answer] = {}
    for number, text in lines:
        answer = _parse(_ANSWER, text, path, number, RunnerError)
        problem = f"item {answer.id!r} is answered twice" if answer.id in answers else None
        problem = problem or _mismatch(items.get(answer.id), answer, workload)
        if problem:
            raise RunnerError(problem, where=f"{path}:{number}")
        answers[answer.id] = answer
    missing = [name for name in items if name not in answers]
    if missing:
        raise RunnerError(f"{len(missing)} items have no answer, the first is {missing[0]!r}", where=path)
    return answers


def _mismatch(item: Item | None, answer: Answer, workload: Workload) -> str | None:
    """What in an answer does not fit its item."""
    if item is None:
        return f"no item is called {answer.id!r}"
    if item.mode != answer.mode:
        return f"item {item.id!r} asks to {item.mode}, the answer is of {answer.mode}"
    if isinstance(item, ChooseItem) and isinstance(answer, Chosen):
        choices = workload.header.choices[item.choices]
        told = [index for index, _ in answer.choice_logprobs]
        if not all(index < len(choices) for index in (answer.choice, *told)) or len(set(told)) < len(told):
            return f"item {item.id!r}: a choice that is not among the {len(choices)}, or told twice"
        if answer.output_ids != choices[answer.choice]:
            return f"item {item.id!r}: output_ids are not those of choice {answer.choice}"
    if isinstance(item, ScoreItem) and isinstance(answer, Scored):
        return _score_mismatch(item, answer)
    return None


def _score_mismatch(item: ScoreItem, answer: Scored) -> str | None:
    if len(answer.positions) != len(item.score_ids):
        return f"item {item.id!r}: {len(answer.positions)} positions where {len(item.score_ids)} were asked"
    for index, position in enumerate(answer.positions):
        wanted = None if item.watch is None else len(item.watch[index])
        if not position.top:
            return f"item {item.id!r}: position {index} names no likeliest token"
        # None at all is the reference's own result, which says what later rungs are to watch.
        if position.watched is not None and len(position.watched) != wanted:
            return f"item {item.id!r}: position {index} has {len(position.watched)} watched tokens, not {wanted}"
    return None


def _check_workload(workload: Workload, where: object) -> None:
    header = workload.header
    for name, choices in header.choices.items():
        if not choices or len(set(choices)) < len(choices):
            raise InputError(f"choices {name!r} are none, or one stands twice", where=where)
        if any(ids[-1] != header.end_id or header.end_id in ids[:-1] for ids in choices):
            raise InputError(f"a choice of {name!r} has not its one end token at its end", where=where)
    seen: set[str] = set()
    for item in workload.items:
        if item.id in seen:
            raise InputError(f"id {item.id!r} stands twice", where=where)
        seen.add(item.id)
        if isinstance(item, ChooseItem) and item.choices not in header.choices:
            raise InputError(f"item {item.id!r} names choices {item.choices!r}, which there are not", where=where)
        if isinstance(item, ScoreItem) and item.watch is not None and len(item.watch) != len(item.score_ids):
            raise InputError(f"item {item.id!r} watches other positions than it scores", where=where)
    if not workload.items:
        raise InputError("the workload holds no item", where=where)


def _digest(end_id: int, choices: dict[str, tuple[Ids, ...]], items: Iterable[Item]) -> str:
    asked = [item.model_dump(mode="json", exclude={"watch"}) for item in items]
    return digest.of_value({"end_id": end_id, "choices": choices, "items": asked})


def _lines(path: Path, error: type[SlmcError]) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"the file can't be read: {problem}", where=path) from None
    # Not str.splitlines: it also breaks at characters that may stand inside JSON strings.
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


Parsed = TypeVar("Parsed")


def _parse(kind: TypeAdapter[Parsed], text: str, path: Path, number: int, error: type[SlmcError]) -> Parsed:
    try:
        return kind.validate_json(text)
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise error(f"{key + ': ' if key else ''}{problem['msg']}", where=f"{path}:{number}") from None


class ResultWriter:
    """Writes a result line by line beside its place and moves it there when it is finished. A context manager.

    Leaves `PATH.partial` behind where it is not: whoever started the runner counts its lines, then removes it.
    """

    def __init__(self, path: Path, header: ResultHeader) -> None:
        self._path = path
        self._file = partial_path(path).open("w", encoding="utf-8")
        self._line(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def answer(self, answer: Answer) -> None:
        self._line(answer)

    def finish(self, footer: Footer) -> None:
        self._line(footer)
        self._file.close()
        partial_path(self._path).replace(self._path)

    def _line(self, line: Line) -> None:
        self._file.write(line.model_dump_json() + "\n")
        self._file.flush()


def partial_path(result: Path) -> Path:
    """Where a result stands while it is being written."""
    return result.with_name(result.name + ".partial")
