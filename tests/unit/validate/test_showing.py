"""The report on the screen and as a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from slmc.runners.contract import Failure
from slmc.validate.html import render, write_page
from slmc.validate.ladder import Rung, judge
from slmc.validate.plots import Bar, Curve, Dot, curves, intervals, layers, risks
from slmc.validate.report import Report
from slmc.validate.speed import bench_workload, summarize
from slmc.validate.table import print_report, print_speed

from .conftest import Lab, make_lab
from .test_speed import answered

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>[bold]{{ 7*7 }}"


@pytest.fixture
def report(lab: Lab) -> Report:
    rungs = [
        Rung("reference", lab.result("reference", batched=True)),
        Rung("quantized", lab.result("quantized", {"i1", "i2"}, sure=0.89, batched=True)),
        Rung("compiled", Failure(cause="signal", what="was killed by SIGSEGV", stderr=HOSTILE)),
        Rung("device", None),
    ]
    return judge(lab.recipe, lab.workload, rungs)


EMPTY = ("meta", "br", "circle", "line", "polyline")


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def on_screen(report: Report) -> str:
    console = Console(width=300, record=True, force_terminal=False, file=Path("/dev/null").open("w"))  # noqa: SIM115
    with console.file:
        print_report(report, console)
        return console.export_text()


def test_a_page_is_whole_and_loads_nothing(report: Report, tmp_path: Path) -> None:
    write_page(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import|src=", text.replace("src=x", ""))
    for shown in ("fail", "SIGSEGV", "Not run on a device", "i1", "i2", "McNemar", "99.50%", "throughput"):
        assert shown in page.text, shown
    assert page.tags.count("svg") == 4


def test_hostile_text_stays_text(recipe_folder: Path, tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"id": f"{HOSTILE}{n}", "text": "x", "answer": HOSTILE} for n in range(3)]
    lab = make_lab(recipe_folder, tmp_path, "task: {kind: generate, max_tokens: 9}", items)
    texts = {f"{HOSTILE}0": f"'\"{HOSTILE}&amp;"}
    rungs = [Rung("reference", lab.result("reference")), Rung("quantized", lab.result("quantized", texts=texts))]
    report = judge(lab.recipe, lab.workload, rungs)
    page = Page(render(report))
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    assert "onerror" not in {name for name, _ in page.attributes}
    assert f"'\"{HOSTILE}&amp;" in page.text
    on_screen(report)


def test_the_screen_says_what_matters(report: Report) -> None:
    text = on_screen(report)
    for shown in ("fail: The compiled rung breaks the promise first", "not run on a device", "99.50%", "SIGSEGV"):
        assert shown in text, shown


@pytest.mark.parametrize(("wrong", "verdict"), [(0, "pass"), (5, "can't tell"), (60, "fail")])
def test_the_verdict_is_said_in_words(wrong: int, verdict: str, lab: Lab) -> None:
    quantized = lab.result("quantized", [f"i{n}" for n in range(wrong)])
    report = judge(lab.recipe, lab.workload, [Rung("reference", lab.result("reference")), Rung("quantized", quantized)])
    assert f"\n{verdict}: " in on_screen(report)
    assert f"\n{verdict}\n" in Page(render(report)).text


def test_speed_on_the_screen_says_what_was_cut(tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    with console.file:
        print_speed(summarize(answered(bench_workload(300, 256, 9, tmp_path / "w"))), console)
        text = console.export_text()
    assert "prefill 256 (of 512: context too small)" in text
    assert "decode 64" in text


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.5, 1.0])
def test_a_plot_of_one_value_is_still_a_plot(value: float) -> None:
    for plot in (
        curves([Curve("a", (value,) * 101)], "nats"),
        intervals([Bar("a", value, value, value, "x")]),
        risks([Curve("a", (value,) * 20)]),
        layers([Dot("a", "MLP", None, value, value, value)], "title"),
    ):
        assert "nan" not in plot
        assert all(float(x) >= 0 for x in re.findall(r' c?x[12]?="([^"]+)"', plot))


def test_many_layers_are_not_all_named() -> None:
    dots = [Dot(f"{layer}.{n}", "MLP", layer, 0.5, 1.0, 1.5) for layer in range(40) for n in range(7)]
    plot = layers([Dot("first", "embedding", None, 0.9, 1.0, 1.1), *dots], "title")
    assert [int(text) for text in re.findall(r">layer (\d+)<", plot)] == list(range(0, 40, 3))
    assert plot.count("<circle") == 281 + 2  # and two in the legend
    heights = [float(y) for y in re.findall(r'class="grid" x1="50" x2="850" y1="([^"]+)"', plot)]
    assert [float(y) for y in re.findall(r'cy="([^"]+)" r="3"', plot)] == [heights[2]] * 281


def test_marks_stand_where_their_values_are() -> None:
    plot = intervals([Bar("a", 0.80, 0.85, 0.90, ""), Bar("b", 0.82, 0.87, 0.92, "")])
    first, second = (float(x) for x in re.findall(r'cx="([^"]+)"', plot))
    ticks = [float(x) for x in re.findall(r'class="grid" x1="([^"]+)"', plot)]
    names = [float(text) for text in re.findall(r'middle">([^<]+)%<', plot)]
    slope = (ticks[-1] - ticks[0]) / (names[-1] - names[0])
    assert ticks[0] + slope * (85 - names[0]) == pytest.approx(first, abs=0.5)
    assert ticks[0] + slope * (87 - names[0]) == pytest.approx(second, abs=0.5)
