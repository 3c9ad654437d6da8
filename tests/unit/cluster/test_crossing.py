"""What goes to another machine and what it finds there; the machines are folders here."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from slmc import digest
from slmc.cli import build as build_verb
from slmc.cluster.crossing import Crossing
from slmc.cluster.same import check_same, copy_code, identity
from slmc.cluster.shipping import ship
from slmc.errors import InputError, MissingToolError, RunnerError, StoreError
from slmc.plan import resolve
from slmc.provenance import code_digest
from slmc.recipe import LoadedRecipe, load_recipe
from slmc.runners.contract import Failure
from slmc.runners.launch import RunnerFailed
from slmc.shared_store import SharedStore
from slmc.sources import source_digest
from slmc.store import Stage, Store
from slmc.target import load_target, targets_folder

DEMO = targets_folder().parent / "recipes" / "intent-router"
STAGE = Stage("merge", {"base": "abc"})


@pytest.fixture
def driver(tmp_path: Path) -> Crossing:
    return Crossing(Store(tmp_path / "driver", SharedStore(str(tmp_path / "shared"))), fetching=False)


@pytest.fixture
def worker(tmp_path: Path) -> Crossing:
    return Crossing(Store(tmp_path / "worker", SharedStore(str(tmp_path / "shared"))), fetching=True)


def write(folder: Path) -> None:
    (folder / "file").write_text("hello")


def test_a_path_into_a_result_is_fetched_by_the_worker_and_named_for_the_driver(
    driver: Crossing, worker: Crossing
) -> None:
    made = driver.store.obtain(STAGE, write)
    arrived = worker.unpack(driver.pack((made, driver.store, made.folder / "file")))
    entry, store, file = arrived
    assert store is worker.store
    assert entry.folder == worker.store.root / "merge" / STAGE.key
    assert file.read_text() == "hello"
    other = worker.store.obtain(Stage("other", {}), write)
    back = driver.unpack(worker.pack(other))
    assert back == replace(other, folder=driver.store.root / "other" / other.key)
    assert not back.folder.exists()


def test_a_result_that_is_nowhere_is_told(driver: Crossing, worker: Crossing) -> None:
    with pytest.raises(StoreError, match="the result of stage merge is gone"):
        worker.unpack(driver.pack(driver.store.root / "merge" / STAGE.key))


def test_a_model_of_the_hub_is_fetched_there(
    driver: Crossing, worker: Crossing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0" * 40
    cached = Path("models--org--name") / "snapshots" / revision
    (tmp_path / "there" / cached).mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "here"))
    packed = driver.pack(tmp_path / "here" / cached / "config.json")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "there"))
    asked = []

    def fetch(repository: str, revision: str) -> Path:
        asked.append((repository, revision))
        return tmp_path / "there" / cached

    monkeypatch.setattr("slmc.cluster.crossing.fetch", fetch)
    assert worker.unpack(packed) == tmp_path / "there" / cached / "config.json"
    assert asked == [("org/name", revision)]
    assert driver.unpack(packed) == tmp_path / "there" / cached / "config.json"


def test_any_other_path_stays_as_it_is(driver: Crossing, worker: Crossing) -> None:
    for path in (Path("/usr/bin/mlc_llm"), Path("relative"), driver.store.root):
        assert worker.unpack(driver.pack(path)) == path


def test_a_recipe_s_folder_arrives_with_what_it_names(driver: Crossing, worker: Crossing) -> None:
    recipe = load_recipe(DEMO)
    entry = ship(recipe, driver.store)
    homes = Crossing(driver.store, fetching=False, homes={(entry.stage, entry.key): DEMO})
    arrived: LoadedRecipe = worker.unpack(homes.pack(recipe))
    assert arrived.folder.is_relative_to(worker.store.root)
    assert arrived.labels() == recipe.labels()
    assert arrived.examples("data/eval.jsonl") == recipe.examples("data/eval.jsonl")
    assert arrived.recipe.adapter is not None
    for source in (recipe.recipe.base, arrived.recipe.adapter):
        assert source_digest(arrived, source) == source_digest(recipe, source)
    assert not list(arrived.folder.glob("*.md"))
    assert homes.unpack(worker.pack(arrived.file("base"))) == DEMO / "base"


def test_a_plan_stays_the_plan(driver: Crossing, worker: Crossing) -> None:
    plan = resolve(load_recipe(DEMO), load_target("host"))
    entry = ship(plan.recipe, driver.store)
    homes = Crossing(driver.store, fetching=False, homes={(entry.stage, entry.key): DEMO})
    arrived = worker.unpack(homes.pack(plan))
    assert [stage.key for stage in arrived.stages] == [stage.key for stage in plan.stages]
    assert homes.unpack(worker.pack(arrived)) == plan


def test_an_error_of_any_kind_crosses_whole() -> None:
    failed = RunnerFailed(Failure(cause="hang", what="hangs", stderr="tail"), ["a", "command"])
    for error in (failed, StoreError("a", where="b", expected="c", todo="d"), RunnerError("only this")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_worker_that_differs_is_an_error_that_names_both() -> None:
    check_same(identity())
    with pytest.raises(MissingToolError) as error:
        check_same(identity() | {"slmc's code": "another"})
    assert code_digest()[:16] in error.value.what
    assert error.value.expected == "another"


def test_the_code_that_is_sent_is_this_code(tmp_path: Path) -> None:
    package = copy_code(tmp_path)
    here = digest.of_folder(Path(digest.__file__).parent)
    sent = digest.of_folder(package)
    assert {name: sent[name] for name in here if name.endswith((".py", ".c"))} == {
        name: found for name, found in here.items() if name.endswith((".py", ".c"))
    }
    assert (package / "_targets" / "host" / "target.toml").is_file()


def test_engine_ray_needs_a_shared_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLMC_SHARED_STORE", raising=False)
    asked = CliRunner().invoke(build_verb.command, [str(DEMO), "--engine", "ray", "--store", str(tmp_path)])
    assert isinstance(asked.exception, InputError)
    assert "needs a store that all machines share" in asked.exception.what
