"""Builds on a real Ray cluster of two machines on this one, which share a bucket: what goes over, what a loss costs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from slmc.errors import InputError, MissingToolError, RecipeError, RunnerError, StoreError
from slmc.pipeline import build
from slmc.plan import Plan, resolve
from slmc.recipe import load_recipe
from slmc.shared_store import SharedStore
from slmc.store import Stage, Store
from slmc.target import load_target

from ..ray_cluster import Cluster, cluster
from ..s3_server import BUCKET, s3_server
from . import ray_steps
from .conftest import DEMO

ray = pytest.importorskip("ray")
from slmc.cluster import engine as ray_engines  # noqa: E402 - needs ray
from slmc.cluster.engine import RayEngine, ray_engine  # noqa: E402

pytestmark = pytest.mark.build
LIMIT = 20
WAIT_S = 300.0


@dataclass(frozen=True)
class Case:
    cluster: Cluster
    folder: Path
    plan: Plan


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """Two machines, and the demo with less to do: quantized by rounding, and without a threshold fitted."""
    folder = tmp_path_factory.mktemp("ray")
    recipe = folder / "intent-router"
    shutil.copytree(DEMO, recipe)
    text = (recipe / "recipe.yaml").read_text()
    for more, less in (("method: gptq", "method: rtn"), ("  abstain:\n    max_error: 0.05\n", "")):
        assert more in text
        text = text.replace(more, less)
    (recipe / "recipe.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch, s3_server() as environment, cluster(environment) as made:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("RAY_ADDRESS", made.address)
        made.start("one")
        plan = resolve(load_recipe(recipe), load_target("host"))
        made.wait("one")
        made.start("two", "--num-gpus=1")
        made.wait("two")
        yield Case(made, folder, plan)


def eventually(found: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + WAIT_S
    while not found():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def slmc_build(case: Case, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "slmc", "build", case.plan.recipe.folder, "--engine", "ray", "--json"]
    command += ["--store", case.folder / "driver", "--shared-store", f"s3://{BUCKET}/builds", "--limit", LIMIT, *words]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def made(told: str) -> dict[str, int]:
    """How often each stage was made, by what the driver showed."""
    names = re.findall(r"✓ (.+?) +[\d.]+ s on ", told)
    return {name: names.count(name) for name in names}


def test_a_worker_killed_in_the_middle_costs_its_stage_alone(case: Case) -> None:
    """And the bundle is the one of a build on one machine, to the byte."""
    local = build(case.plan, Store(case.folder / "local"), case.folder / "local-out", limit=LIMIT)
    process = slmc_build(case, "--out", case.folder / "out")
    killed: list[psutil.Process] = []

    def compiling() -> bool:
        for machine in ("one", "two"):
            if list(case.cluster.store(machine).glob("compile/*.lock")):
                killed.extend(case.cluster.workers(machine, "slmc compile"))
        return bool(killed)

    eventually(compiling, process)
    for worker in killed:
        worker.kill()
    out, told = process.communicate(timeout=WAIT_S)
    assert process.returncode in (0, 20, 21), told
    answer = json.loads(out)
    assert answer["digest"] == local.manifest.digest
    assert len(re.findall("begins again", told)) == 1
    assert re.search(r"compile +lost its worker on .* \(WorkerCrashedError\): begins again", told)
    once = ("merge", "reference", "quantize", "compile", "task", "bundle", "quantized", "compiled", "app", "base")
    assert {name: made(told)[name] for name in once} == dict.fromkeys(once, 1)
    # The weights stay on the cluster.
    assert {path.name for path in (case.folder / "driver").iterdir()} == {
        *("recipe", "bundle", "reference", "quantized", "compiled", "app", "base", "work"),
    }


def test_what_the_cluster_made_is_not_made_again(case: Case) -> None:
    """On a machine that has the shared store alone."""

    def refuse(folder: Path) -> None:
        raise AssertionError("made again")

    elsewhere = Store(case.folder / "elsewhere", SharedStore(f"s3://{BUCKET}/builds"))
    for stage in case.plan.stages:
        assert elsewhere.shares(stage)
        assert elsewhere.obtain(stage, refuse).reused


def marks(folder: Path, name: str) -> list[int]:
    return [int(path.suffix[1:]) for path in folder.glob(f"{name}.*")]


@pytest.fixture(scope="module")
def store(case: Case) -> Store:
    """The driver's of the tests below, with a place of its own in the bucket."""
    return Store(case.folder / "steps", SharedStore(f"s3://{BUCKET}/steps"))


def test_what_is_missing_is_told_before_anything_is_done(
    case: Case, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="needs a store that all machines share"), ray_engine(Store(store.root)):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(InputError, match="not run over Ray's client"), ray_engine(store):
        pass


def test_ctrl_c_ends_a_build(case: Case, tmp_path: Path) -> None:
    with slmc_build(case, "--out", tmp_path / "out", "--shared-store", f"s3://{BUCKET}/stopped") as process:
        assert process.stderr is not None
        while "→" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "Stopped." in told


def test_leaving_stops_what_runs(case: Case, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the way of Ctrl-C, or else by force; nothing half-made is used."""
    monkeypatch.setattr(ray_engines, "GRACE_S", 5.0)
    with ray_engine(store) as engine:
        engine.start("long", ray_steps.counted, store, "long", tmp_path, 600.0)
        engine.start("stuck", ray_steps.stuck, store, tmp_path)
        eventually(lambda: marks(tmp_path, "long") and marks(tmp_path, "stuck"))
        begun = time.monotonic()
    assert time.monotonic() - begun < 60
    eventually(lambda: not [one for machine in ("one", "two") for one in case.cluster.workers(machine, "slmc")])
    assert store.shared is not None
    assert not any(store.shared.has(name, Stage(name, {}).key) for name in ("long", "stuck"))


@pytest.fixture(scope="module")
def engine(store: Store) -> Iterator[RayEngine]:
    with ray_engine(store) as opened:
        yield opened


def test_a_result_is_named_and_fetched_where_it_is_read(engine: RayEngine, store: Store, tmp_path: Path) -> None:
    entry = engine.start("first", ray_steps.counted, store, "first", tmp_path).result()
    assert entry.folder.is_relative_to(store.root)
    assert not entry.folder.exists()  # nobody here has asked for it
    text, seen = engine.start("second", ray_steps.read, entry).result()
    assert (text, seen) == ("first", entry.folder)  # as it is called here
    assert (store.bring(entry.folder) / "file").read_text() == "first"


def test_steps_run_side_by_side_on_both_machines(engine: RayEngine, store: Store, tmp_path: Path, case: Case) -> None:
    assert engine.at_once == 2
    for future in [engine.start(name, ray_steps.counted, store, name, tmp_path, 1.0) for name in ("left", "right")]:
        future.result()
    used = {path.read_text() for name in ("left", "right") for path in tmp_path.glob(f"{name}.*")}
    assert used == {str(case.cluster.store(machine)) for machine in ("one", "two")}


def test_steps_of_torch_ask_for_a_gpu(engine: RayEngine) -> None:
    assert engine.start("reference", ray_steps.devices).result() == "0"
    assert engine.start("compile", ray_steps.devices).result() in ("", None)


def test_a_named_failure_comes_back_as_it_is(engine: RayEngine, case: Case, store: Store) -> None:
    with pytest.raises(RecipeError) as error:
        engine.start("merge", ray_steps.faulty, case.plan).result()
    file = case.plan.recipe.file("data/eval.jsonl")
    assert (error.value.what, error.value.where, error.value.todo) == ("no label", f"{file}:3", "look there")
    with pytest.raises(StoreError) as damaged:
        engine.start("merge", ray_steps.stored_wrong, store).result()
    assert damaged.value.where == f"{store.root}/merge/x"
    assert damaged.value.todo == f"rm -r '{store.root}/merge/x'"


def test_a_bug_keeps_its_traceback(engine: RayEngine) -> None:
    with pytest.raises(ZeroDivisionError, match="in bug") as error:
        engine.start("merge", ray_steps.bug).result()
    assert "ray_steps.py" in str(error.value)


def test_another_slmc_on_a_worker_is_told(
    engine: RayEngine, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_identity", engine._identity | {"torch": "0.0.1"})
    with pytest.raises(MissingToolError, match=r"a worker differs from this machine in torch: it has 2\.") as error:
        engine.start("first", ray_steps.counted, store, "first", tmp_path).result()
    assert error.value.expected == "0.0.1"


def test_a_step_that_kills_its_workers_ends(engine: RayEngine, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunnerError, match="step merge lost 3 workers, the last by WorkerCrashedError"):
        engine.start("merge", ray_steps.kill_worker).result()
    assert capsys.readouterr().err.count("begins again") == ray_engines.MOST_LOST - 1


def test_a_machine_that_goes_away_costs_its_step(
    case: Case, engine: RayEngine, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last test here: the machine does not come back. What the step had finished is not made again, and what
    the machine alone had is not waited for.
    """
    future = engine.start("reference", ray_steps.both, store, tmp_path, 3.0)  # where the GPU is
    eventually(lambda: marks(tmp_path, "later"))
    case.cluster.kill("two")
    assert future.result() == "later"
    assert {path.read_text() for path in tmp_path.glob("earlier.*")} == {str(case.cluster.store("two"))}
    stores = {str(case.cluster.store(machine)) for machine in ("one", "two")}
    assert {path.read_text() for path in tmp_path.glob("later.*")} == stores
    assert "reference  lost its worker" in capsys.readouterr().err
