#!/usr/bin/env python3
"""How long the morning report of a large farm takes, and how fast it opens.

    python scripts/bench_morning.py [--nights 365] [--devices 50] [--recipes 10] [--keep FOLDER]

Writes a history of made-up nights (noise of speed 0.4%, a few items that flip; systems that change, a recipe that
becomes slower, devices that stay away or can't hold their speed), then reads, judges and writes the report in this
process, and has a headless Chromium open the overview with an empty profile, five times: from the start of navigation
until it is loaded and first painted, as the browser itself tells it.
"""

from __future__ import annotations

import argparse
import base64
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from slmc import digest
from slmc.farm.history.history import History
from slmc.farm.morning.site import write_site
from slmc.farm.morning.standing import morning_of
from slmc.farm.record import (
    Accuracy,
    Circumstances,
    Conditions,
    Control,
    FlipShown,
    Ladder,
    Night,
    Run,
    RungShown,
    Series,
    Speed,
)
from slmc.farm.tracks import Past
from slmc.validate.report import RungName

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.build.browser import find_chromium, load_seconds

ITEMS = 1500
BEGAN = datetime(2025, 1, 1, 22, tzinfo=UTC)
MODELS = ("Pixel 9", "Galaxy S25", "Xiaomi 15", "Orange Pi 5")
Value = TypeVar("Value")


def nights(count: int, devices: int, recipes: int) -> Iterator[Night]:
    draw = random.Random(1)
    for number in range(count):
        started = BEGAN + timedelta(days=number)
        runs = [_run(number, count, device, recipe, draw) for recipe in range(recipes) for device in range(devices)]
        finished = started + timedelta(hours=6)
        yield Night(
            id=f"{started:%Y-%m-%d}", started=started, finished=finished, runs=tuple(runs), controls=_controls(devices)
        )


def _run(number: int, count: int, device: int, recipe: int, draw: random.Random) -> Run:
    left = count - number
    series = Series(recipe=f"recipe-{recipe:02}", target="android", backend="tvm", device=f"device-{device:02}")
    if (device % 17 == 3 and left <= 2) or (device % 11 == 7 and draw.random() < 0.1):
        return _gone(series, "the device is not attached: adb knows no such serial")
    updated, slower = left <= 2 and device % 23 == 5, left <= 40 + device and recipe == 4 and device % 9 == 0
    shaky = device % 13 == 12 and draw.random() < 0.8
    full = left == 1 and (device, recipe) == (8, 2)
    return Run(
        series=series,
        circumstances=_where(device, recipe, updated, slower),
        outcome="fail" if full else "pass",
        reason="1613 MiB of memory, of 1536 that it may take" if full else "",
        accuracy=_answers(recipe, draw),
        speed=_speed(draw.gauss(0.96, 0.004) * (1.1 if updated or slower else 1), shaky, recipe),
        peak_memory_bytes=(1613 if full else 400 + 90 * recipe) << 20,
        memory_limit_bytes=1536 << 20,
        device_class="4 GB",
        ladder=_ladder(recipe),
    )


def _gone(series: Series, reason: str) -> Run:
    return Run(
        series=series,
        circumstances=None,
        outcome="not run",
        reason=reason,
        accuracy=None,
        speed=None,
        peak_memory_bytes=None,
        memory_limit_bytes=None,
        device_class=None,
        ladder=None,
    )


def _controls(devices: int) -> tuple[Control, ...]:
    return tuple(
        Control(device=f"device-{number:02}", outcome="pass", reason="", decision_ms_p50=2.0)
        for number in range(devices)
    )


@cache
def _ladder(recipe: int) -> Ladder:
    right = ITEMS * (6 + recipe) // (7 + recipe)
    names: tuple[RungName, ...] = ("reference", "quantized", "compiled", "app", "device")
    counts: list[tuple[int | None, int | None, int | None]] = [(None, None, None), (22, 3, 40), *[(0, 0, 0)] * 3]
    flip = FlipShown(
        id="17",
        rung="quantized",
        kind="lost",
        text="could you wire two hundred to my sister before the weekend",
        expected="transfer",
        before="transfer",
        after="balance",
    )
    return Ladder(
        rungs=tuple(
            RungShown(name=name, status="ran", right=right + above, lost=lost, won=won, changed=changed)
            for name, (lost, won, changed), above in zip(names, counts, (19, 0, 0, 0, 0), strict=True)
        ),
        flips=tuple(flip.model_copy(update={"id": str(number)}) for number in range(40)),
        more=0,
    )


def _where(device: int, recipe: int, updated: bool, slower: bool) -> Circumstances:
    return Circumstances(
        recipe=_digest("recipe", recipe, slower),
        toolchain=f"0.1.0, {_digest()}",
        bundle=_digest("bundle", recipe, slower),
        control=_digest("control", recipe),
        model=MODELS[device % len(MODELS)],
        os="Android 16" if updated else "Android 15",
        runtime="tvm 0.27.0 neon-dotprod",
    )


@cache
def _digest(*of: object) -> str:
    return digest.of_value(list(of))


def _answers(recipe: int, draw: random.Random) -> Accuracy:
    bits = np.arange(ITEMS) % (7 + recipe) > 0
    bits[[draw.randrange(ITEMS) for _ in range(2)]] ^= True
    packed = base64.b64encode(np.packbits(bits).tobytes()).decode()
    return Accuracy(items=ITEMS, right=int(bits.sum()), asked=_digest("items"), answered=packed)


def _speed(ratio: float, shaky: bool, recipe: int) -> Speed:
    return Speed(
        verdict="unclear" if shaky else "measured",
        reason="the rounds' ratios vary by 8.0%, more than 5.0% (load 1.90 a core, 31 °C, battery 80%)"
        if shaky
        else "",
        ratio=ratio,
        variation=0.08 if shaky else 0.01,
        rounds=11,
        decision_ms_p50=2.0 + recipe,
        decision_ms_p95=3.5 + recipe,
        first_token_ms=1.5,
        prefill_tokens_per_s=4000.0,
        decode_tokens_per_s=None,
        sustained=None,
        load_ms=12.0,
        energy_mj=None,
        control_ms_p50=2.0 + recipe,
        conditions=Conditions(load=0.2, clock=1.0, thermal="none", temperature=31.0, battery=0.8, charging=True),
    )


def timed(name: str, work: Callable[[], Value]) -> tuple[Value, float]:
    began = time.perf_counter()
    value = work()
    seconds = time.perf_counter() - began
    print(f"{name:30} {seconds:6.2f} s", flush=True)
    return value, seconds


def _read(history: History) -> tuple[Past, Night | None]:
    past = history.past()
    return past, history.night(past.evenings[-1].id)


def measure(options: argparse.Namespace, folder: Path) -> None:
    history, site = History.open(folder / "history.sqlite"), folder / "site"
    made = nights(options.nights, options.devices, options.recipes)
    timed("(write the history)", lambda: [history.add(one) for one in made])
    (past, last), reading = timed("read", lambda: _read(history))
    morning, judging = timed("judge", lambda: morning_of(past, last))
    _, writing = timed("write", lambda: write_site(morning, site))
    print(f"{'the report':30} {reading + judging + writing:6.2f} s")
    sizes = {path.name: path.stat().st_size for path in site.iterdir()}
    print(f"{len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB; index.html {sizes['index.html'] / 1e3:.0f} kB")
    print(f"{'largest':10} {max(sizes, key=lambda name: sizes[name])} {max(sizes.values()) / 1e3:.0f} kB")
    if (browser := find_chromium()) is None:
        print("chromium is not installed: how fast the overview opens is not measured")
        return
    loads = [load_seconds(browser, site / "index.html") for _ in range(5)]
    print(f"{'Chromium opens index.html':30} {statistics.median(loads):6.2f} s ({min(loads):.2f} to {max(loads):.2f})")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="time the morning report")
    for name, count in (("nights", 365), ("devices", 50), ("recipes", 10)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--keep", type=Path, help="a new folder for history and report, which stays")
    options = parser.parse_args(words)
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        measure(options, options.keep)
        return
    with TemporaryDirectory() as folder:
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
