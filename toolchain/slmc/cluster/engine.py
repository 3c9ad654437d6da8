"""An engine that runs each step of a build as a task of a Ray cluster.

The driver is a machine of the cluster, and shares a store with the others: steps name what they need of each other by
stage and key. A step whose worker is lost begins again elsewhere; what it had finished, and what all steps before it
made, is in the shared store.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from slmc import console
from slmc.cluster.crossing import Crossing, Named
from slmc.cluster.same import copy_code, identity
from slmc.cluster.shipping import ship
from slmc.cluster.worker import Call, Job, Outcome, run_step
from slmc.engine import Given, Result
from slmc.errors import InputError, MissingToolError, RunnerError, SlmcError
from slmc.plan import Plan
from slmc.recipe import LoadedRecipe
from slmc.shared_store import ENVIRONMENT
from slmc.store import Entry, Store

MOST_LOST = 3
"""A step that has lost so many workers is what kills them."""
GRACE_S = 10.0
"""For a step to end by itself when it is stopped; one that waits for a program or sums at length may not."""
PLACED_S = 5.0
"""After so long without a machine a step looks whether what it waits for is still there."""
_IN_TORCH = frozenset({"reference", "quantize", "quantized", "base", "calibration"})
"""Steps that a GPU makes faster: they ask for one where the cluster has any."""


class RayEngine:
    """Each step takes a machine of the smallest kind in the cluster whole: all its cores are the step's."""

    def __init__(self, store: Store) -> None:
        """For a cluster that ray is connected to."""
        assert store.shared is not None, "was checked"
        self.at_once = len(_machines())
        self._store, self._url, self._identity = store, store.shared.url, identity()
        self._shipped: dict[tuple[Path, str], Entry] = {}
        self._tasks: set[object] = set()
        self._started: list[Future[Any]] = []
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._closed = False
        # Threads wait for tasks: as many as there may be.
        self._threads = ThreadPoolExecutor(256, thread_name_prefix="step")

    def start(
        self, name: str, step: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        homes = dict(self._home(value.recipe) for value in given if isinstance(value, Plan))
        crossing = Crossing(self._store, fetching=False, homes=homes)
        places = {f"{stage}/{key}": str(folder.resolve()) for (stage, key), folder in homes.items()}
        places |= {"": str(self._store.root)}
        job = Job(self._url, self._identity, places, crossing.pack(Call(step, given, named)))
        started: Future[Result] = self._threads.submit(lambda: crossing.unpack(self._ran(name, job)))
        self._started.append(started)
        return started

    def close(self) -> None:
        """End what still runs: as Ctrl-C does, then by force. Workers leave nothing half-made."""
        import ray

        with self._lock:
            self._closed = True
        for force in (False, True):
            with self._lock:
                running = list(self._tasks)
            for task in running:
                ray.cancel(task, force=force)
            wait(self._started, GRACE_S)
        self._threads.shutdown()

    def _home(self, recipe: LoadedRecipe) -> tuple[Named, Path]:
        """What a recipe's folder is called on every machine, and where it is on this one; sent once."""
        named = (recipe.folder, recipe.digest())
        with self._sending:
            if named not in self._shipped:
                self._shipped[named] = ship(recipe, self._store)
        return (self._shipped[named].stage, self._shipped[named].key), recipe.folder

    def _ran(self, name: str, job: Job) -> bytes:
        """The step's packed result, however many workers it takes."""
        from ray import exceptions

        gone = (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )
        for lost in range(1, MOST_LOST + 1):
            where: list[str] = []
            try:
                outcome = self._outcome(name, job, where)
            except gone as error:
                kind, node = type(error).__name__, where[0] if where else "a machine of the cluster"
                if self._closed or lost == MOST_LOST:
                    break
                console.err.print(f"  [yellow]![/] {name:<10} [dim]lost its worker on {node} ({kind}): begins again[/]")
                continue
            _tell(outcome.told, where[0])
            if isinstance(outcome.value, SlmcError):
                raise outcome.value
            return outcome.value
        raise RunnerError(
            f"step {name} lost {MOST_LOST} workers, the last by {kind}",
            where=node,
            todo="see whether memory runs out there: `ray status`, and the logs of Ray on that machine",
        )

    def _outcome(self, name: str, job: Job, where: list[str]) -> Outcome:
        import ray

        said = self._placed(name, job)
        try:
            where.append(ray.get(next(said)))
            console.err.print(f"  [dim]→ {name:<10} on {where[0]}[/]")
            outcome: Outcome = ray.get(next(said))
            return outcome
        finally:
            with self._lock:
                self._tasks.discard(said)

    def _placed(self, name: str, job: Job) -> Any:
        """A task that a machine has begun; asked for anew where what it waits for has left the cluster."""
        import ray

        while True:
            wanted = _wanted(name)
            # A lost worker is told, and the step begun again, by this engine.
            task = ray.remote(run_step).options(
                name=f"slmc {name}", max_retries=0, scheduling_strategy="SPREAD", **wanted
            )
            with self._lock:
                if self._closed:
                    raise KeyboardInterrupt
                said = task.remote(job)
                self._tasks.add(said)
            while _wanted(name) == wanted:
                if ray.wait([said], timeout=PLACED_S)[0]:
                    return said
            ray.cancel(said)
            with self._lock:
                self._tasks.discard(said)


def _machines() -> list[Mapping[str, float]]:
    """What each machine of the cluster has to give. Raises InputError where none has a CPU."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not found:
        raise InputError("no machine of the cluster has a CPU to give", todo="join one: ray start --address=HEAD:PORT")
    return found


def _wanted(name: str) -> dict[str, float]:
    """All cores of a machine of the smallest kind, and a GPU for what it makes faster."""
    machines = _machines()
    gpu = name in _IN_TORCH and any(machine.get("GPU") for machine in machines)
    return {"num_cpus": min(machine["CPU"] for machine in machines), "num_gpus": float(gpu)}


def _tell(text: str, node: str) -> None:
    """What a step wrote on another machine, with where that was."""
    for line in filter(str.strip, text.splitlines()):
        console.err.print(f"{line} on {node}", markup=False)


@contextmanager
def ray_engine(store: Store) -> Iterator[RayEngine]:
    """Connect to the cluster that RAY_ADDRESS names, or the one of this machine.

    Raises InputError where there is none or the store is not shared, MissingToolError without ray.
    """
    if store.shared is None:
        raise InputError(
            "engine ray needs a store that all machines share",
            expected=f"--shared-store URL or {ENVIRONMENT}, such as s3://bucket/builds",
        )
    store.shared.prepare()
    try:
        import ray
    except ImportError:
        raise MissingToolError("engine ray needs ray", todo="pip install 'slmc[ray]'") from None
    # Ray tells of lost machines on standard output, which is for results.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        _connect(copy_code(Path(folder)))
        try:
            engine = RayEngine(store)
            try:
                yield engine
            finally:
                engine.close()
        finally:
            ray.shutdown()


def _connect(code: Path) -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS") or "auto"
    if address.startswith("ray://"):
        raise InputError(
            "a build does not run over Ray's client", where=address, todo="run it on a machine of the cluster"
        )
    environment: Mapping[str, object] = {"py_modules": [str(code)]}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster can be reached: {error}",
            where=address,
            todo="start one with `ray start --head`, join it from other machines, or name it in RAY_ADDRESS",
        ) from None
