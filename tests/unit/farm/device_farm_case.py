"""A question for AWS Device Farm whose phone is played here: the session's own code, over answers that are made up."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

from slmc import digest
from slmc.devices.device import Facts
from slmc.devices.patience import Clock
from slmc.errors import SlmcError
from slmc.farm.asking import Answered, Question
from slmc.farm.device_farm.asker import DeviceFarmAsker
from slmc.farm.device_farm.job import TOLD, Told, write_told
from slmc.farm.device_farm.service import connect
from slmc.farm.device_farm.session import Limits, ask_in_parts, join, problem_of, read_job
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.record import Speed
from slmc.on_device import Sent, artifact_of
from slmc.runners.contract import ChooseItem, Chosen, Environment, Footer, ResultHeader, Workload
from slmc.runners.files import ResultWriter, make, read_workload, write_workload

from ...device_farm import DEVICE, PROJECT, Done, Farm, Given

PLAN = SpeedPlan(rounds=3, items=2)
FACTS = Facts(
    model="Google Pixel 8", system="android", os="Android 14", machine="aarch64", cores=8, memory_bytes=8 << 30
)
SPEED = Speed(
    verdict="measured",
    ratio=0.9,
    variation=0.01,
    rounds=3,
    decision_ms_p50=9,
    decision_ms_p95=12,
    first_token_ms=7,
    prefill_tokens_per_s=1000,
    decode_tokens_per_s=100,
    sustained=None,
    load_ms=50,
    energy_mj=None,
    reason="",
    conditions=None,
    control_ms_p50=10,
)


def workload_of(items: int) -> Workload:
    questions = [
        ChooseItem(id=f"task/{number}", input_ids=(1, number + 2), choices="labels") for number in range(items)
    ]
    return make(0, {"labels": ((3, 0), (4, 0))}, questions)


def question_in(folder: Path, items: int, *, control: bool = False, weights: int = 1000) -> Question:
    contents = {
        "model/model.slm": random.Random(items).randbytes(weights),
        "model/model.json": b"{}",
        "task.slm": b"task",
    }
    files = {}
    for name, content in contents.items():
        path = folder / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[name] = SimpleNamespace(sha256=digest.of_bytes(content))
    (folder / "bundle" / "manifest.json").write_text("{}")
    manifest = cast(Any, SimpleNamespace(backend="tvm", task="task.slm", prefix=None, artifact="model", files=files))
    write_workload(workload_of(items), folder / "task.jsonl")
    write_workload(workload_of(2), folder / "speed.jsonl")
    sent = Sent(folder / "bundle", manifest)
    return Question(sent, sent if control else None, folder / "task.jsonl", folder / "speed.jsonl", PLAN)


@dataclass
class Phone:
    """An asker and, called, a test host that has it. A part takes as many seconds as `part_s`."""

    artifact: str = ""
    part_s: float = 1
    failing: dict[str, SlmcError] = field(default_factory=dict)
    """By the id of an item: raised instead of answering it, once."""
    facts: Callable[[int], Facts] = lambda _: FACTS
    """By the number of the run."""
    limits: Limits = Limits(3600)  # noqa: RUF009 - frozen
    starts: list[int] = field(default_factory=list)
    """Item that each run began with."""
    parts: list[int] = field(default_factory=list)
    """Items of each part."""
    time: float = 0
    name: str = "phone"

    def ask(self, question: Question, folder: Path) -> Answered:
        workload = read_workload(question.task)
        self.time += self.part_s
        for item in workload.items:
            if item.id in self.failing:
                raise self.failing.pop(item.id)
        environment = Environment(
            device="Google Pixel 8",
            os="Android 14",
            runtime="slm",
            version="1",
            threads=4,
            thermal=None,
            artifact=self.artifact,
            precision="int4",
            batched=False,
        )
        path = folder / "answers.jsonl"
        with ResultWriter(path, ResultHeader(workload=workload.digest, environment=environment)) as writer:
            for item in workload.items:
                writer.answer(_chosen(item.id))
            writer.finish(Footer(peak_memory_bytes=100 + len(self.parts), load_ms=5.0 + len(self.parts)))
        self.parts.append(len(workload.items))
        return Answered(self.facts(len(self.starts)), path, None if question.control is None else SPEED)

    def close(self) -> None:
        pass

    def __call__(self, given: Given) -> Done:
        found = re.search(r"--job (\w+) --first (\d+)", given.spec)
        assert found is not None
        job, first = found[1], int(found[2])
        self.starts.append(first)
        with TemporaryDirectory() as made:
            package, shared, log, work = (Path(made) / name for name in ("package", "shared", "log", "work"))
            for folder in (package, shared, log, work):
                folder.mkdir()
            _unpack(given.package, package)
            if given.extra is not None:
                _unpack(given.extra, shared)
            told = Told(job=job, facts=None, parts=(), speed=None, problem=None)
            try:
                asked = read_job(package, job)
                files = join(asked, package, work, lambda name, to: (shared / name).replace(to) and None)
                sent = Sent(work, cast(Any, None))
                control = sent if "control" in asked.bundles else None
                question = Question(sent, control, files[asked.task], files[asked.speed], asked.plan)
                limits = replace(self.limits, now=lambda: self.time)
                told = ask_in_parts(self, question, told, first, log, work, limits)
            except SlmcError as error:
                told = told.model_copy(update={"problem": problem_of(error)})
            write_told(told, log)
            files_left = {path.name: path.read_bytes() for path in log.iterdir()}
        assert TOLD in files_left
        return Done("PASSED" if told.problem is None else "FAILED", files_left)


def _chosen(name: str) -> Chosen:
    return Chosen(
        id=name,
        prefill_ms=3,
        decode_ms=1,
        prefill_tokens=2,
        decode_tokens=1,
        decode_steps=1,
        choice=0,
        output_ids=(3, 0),
        text=None,
        choice_logprobs=((0, -0.1),),
        unexplored=0.0,
    )


def _unpack(archive: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        opened.extractall(folder)


@dataclass(frozen=True)
class Case:
    farm: Farm
    phone: Phone
    folder: Path

    def question(self, items: int, *, control: bool = False, weights: int = 1000) -> Question:
        question = question_in(self.folder, items, control=control, weights=weights)
        self.phone.artifact = artifact_of(question.bundle.manifest)
        return question

    def asker(self, clock: Clock | None = None, owner: str = "state") -> DeviceFarmAsker:
        return asker_in(self.folder, clock or Clock(sleep=lambda _: Clock().sleep(0.002)), owner)


def asker_in(folder: Path, clock: Clock, owner: str = "state") -> DeviceFarmAsker:
    runner = folder / "slm-run"
    runner.write_bytes(b"a program")
    return DeviceFarmAsker("pixel", DEVICE, replace(connect(PROJECT), clock=clock), folder / owner, lambda _: runner)


def running(folder: Path) -> Iterator[Case]:
    phone = Phone()
    with Farm(phone) as farm:
        yield Case(farm, phone, folder)
