"""What the pages, report.json, junit.xml and summary.md say is what the history says."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from slmc.errors import InputError
from slmc.farm.history.history import History
from slmc.farm.morning.names import page
from slmc.farm.morning.report_json import MorningReport
from slmc.farm.morning.site import write_site
from slmc.farm.morning.standing import Morning
from slmc.farm.morning.summary import first_lines, markdown
from slmc.farm.morning.trend import COLUMNS, Trend, plot

from .morning_case import (
    AWAY,
    BACK,
    EARLIER,
    FULL,
    QUIET,
    SHAKY,
    SLOWED,
    Element,
    farm_nights,
    gone,
    kept,
    morning,
    parsed,
    standing,
)
from .nights import WHERE, night, run, series

HOSTILE = [
    '<script>alert("1")</script>',
    "../../etc/passwd",
    "&amp;<b>'\"",
    "a" * 300,
    "ROUTER",
    "router",
    "Straße 日本 🙂",
    "\x01\x1b[31m\n\ufffe",
    "{{ 7 * 7 }}{% raw %}",
    "]]>--><!--",
    "@everyone #12 | `x` [a](http://b) www.x.org ![i](http://j)",
    "",
    ".",
    "con",
]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return kept(farm_nights(), tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def found(history: History) -> Morning:
    return morning(history)


@pytest.fixture(scope="module")
def site(found: Morning, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "site"
    write_site(found, folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same names as recipes, devices, reasons and circumstances."""
    folder = tmp_path_factory.mktemp("hostile")
    nights = []
    for number in range(6):
        where = WHERE.model_copy(update={"os": HOSTILE[number], "model": HOSTILE[0], "runtime": HOSTILE[8]})
        runs = [run(series(name, name), [True] * 50, 1.0 + (number > 3), where) for name in HOSTILE]
        others = [gone(series(name, f"not {name}"), f"{name} {name}") for name in HOSTILE]
        nights.append(night(number, *runs, *others))
    write_site(morning(kept(nights, folder)), folder / "site")
    return folder / "site"


def page_of(site: Path, name: str) -> Element:
    return parsed((site / name).read_text(encoding="utf-8"))


def test_the_matrix_has_each_series_with_its_verdict(site: Path, found: Morning) -> None:
    table = page_of(site, "index.html").find("table")[0]
    columns = [cell.text for cell in table.find("thead")[0].find("th")]
    assert columns == ["", "retired", "router"]
    cells = {}
    for row in table.find("tbody")[0].find("tr"):
        device = row.find("th")[0].text
        for recipe, cell in zip(columns[1:], row.find("td"), strict=True):
            cells[device, recipe] = cell
    for one in found.standings:
        cell = cells[one.series.device, one.series.recipe]
        assert cell.find("b")[0].text == one.state
        [link] = cell.find("a")
        name, _, anchor = link.attributes["href"].partition("#")
        assert page_of(site, name).find("section", lambda section, a=anchor: section.attributes.get("id") == a)
    assert "90.00% · " in cells[QUIET, "router"].text
    assert "29 of 40 MiB" in cells[QUIET, "router"].text
    assert not cells[SLOWED, "retired"].text


def test_the_overview_tells_news_before_the_matrix(site: Path) -> None:
    overview = page_of(site, "index.html")
    assert [heading.text for heading in overview.find("h2")] == [
        "Failed, or worse since last night",
        "Waits for a person: not run, or can't tell for 5 nights or more",
        "Better, or back",
        "Worse since an earlier night",
        "Recipes and devices",
    ]
    stories = [item.text for item in overview.find("li")]
    for device, word in ((FULL, "fail"), (SLOWED, "regression"), (AWAY, "not run"), (SHAKY, "can't tell")):
        [story] = [text for text in stories if device in text]
        assert story.startswith(word)
    assert "2 pass" in overview.find("header")[0].text


def test_a_recipes_page_has_plots_with_marks_and_bands(site: Path, found: Morning) -> None:
    recipe = page_of(site, "recipe-router.html")
    every = recipe.find("section", lambda one: one.attributes.get("class") == "series")
    sections = {section.find("a")[0].text: section for section in every}
    assert set(sections) == {SLOWED, FULL, AWAY, SHAKY, QUIET, BACK, EARLIER}
    assert len(sections[QUIET].find("svg")) == 2
    assert len(sections[SHAKY].find("svg")) == 1  # no night of its speed counts
    assert len(sections[QUIET].find("polygon")) == 1  # of speed: accuracy has no band
    [mark] = sections[EARLIER].find("g", lambda one: "mark" in one.attributes.get("class", ""))
    assert "since night-6, after night-5; os 17.1 → 17.3" in mark.find("title")[0].text
    assert mark.attributes["class"] == "mark fail"
    [dot] = sections[QUIET].find("svg")[1].find("circle")
    assert float(dot.attributes["cx"]) > 300  # the last night stands at the right
    assert "17.2" in sections[SLOWED].text
    assert "tvm neon" in sections[SLOWED].text
    assert "accuracy: no change, 0 items lost and 0 won of 4500" in sections[QUIET].text


def test_a_devices_page_tells_its_health(site: Path) -> None:
    device = page_of(site, f"device-{SLOWED}.html")
    assert "14 measured, 0 unclear, 0 failed, 0 not run runs in 14 nights" in device.find("header")[0].text
    assert "night-12: system 17.1 → 17.2" in [item.text for item in device.find("li")]
    away = page_of(site, f"device-{AWAY}.html")
    assert "12 measured, 0 unclear, 0 failed, 2 not run" in away.find("header")[0].text


def test_every_link_leads_to_a_page_that_is_there(site: Path, hostile: Path) -> None:
    for folder in (site, hostile):
        for path in folder.glob("*.html"):
            for link in parsed(path.read_text(encoding="utf-8")).find("a"):
                name, _, anchor = link.attributes["href"].partition("#")
                assert (folder / name).is_file(), (path, link.attributes)
                assert not anchor or f'id="{anchor}"' in (folder / name).read_text(encoding="utf-8")


def test_report_json_is_what_it_promises(site: Path, found: Morning) -> None:
    report = MorningReport.model_validate_json((site / "report.json").read_text(encoding="utf-8"))
    assert (report.night, len(report.series)) == ("night-13", len(found.standings))
    slowed = next(one for one in report.series if one.series.device == SLOWED)
    [told] = slowed.told
    assert (slowed.state, told.metric, told.before, told.first, told.told) == (
        "regression",
        "speed",
        "night-11",
        "night-12",
        "night-13",
    )
    assert [(one.name, one.was, one.now) for one in told.differences] == [("os", "17.1", "17.2")]
    assert told.interval.low < 0.1 < told.interval.high
    assert sum(report.states.values()) == len(report.series)
    assert slowed.memory_limit_bytes == 40 << 20
    assert (slowed.first_token_ms, slowed.prefill_tokens_per_s, slowed.decode_tokens_per_s) == (1.5, 4000.0, None)


def test_junit_counts_failures_errors_and_what_cant_be_told(site: Path) -> None:
    suite = ElementTree.parse(site / "junit.xml").getroot()[0]
    kinds = {case.attrib["name"].split()[0]: [result.tag for result in case] for case in suite}
    assert kinds == {
        SLOWED: ["failure"],
        FULL: ["failure"],
        AWAY: ["error"],
        SHAKY: ["skipped"],
        QUIET: [],
        BACK: ["system-out"],
        EARLIER: ["system-out"],
    }
    counts = [int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == [7, 2, 1, 1]
    [failure] = [case[0] for case in suite if case.attrib["name"].startswith(FULL)]
    assert failure.attrib["message"] == "44 MiB of memory"


def test_the_summary_tells_changes_then_what_is_no_pass(site: Path) -> None:
    told = (site / "summary.md").read_text(encoding="utf-8")
    changes, table = told.split("| recipe |")
    assert changes.index(f"on {FULL}") < changes.index(f"on {SLOWED}") < changes.index(f"on {AWAY}")
    rows = table.splitlines()[2:]
    assert [row.split("|")[2].strip() for row in rows if row] == [FULL, AWAY, SLOWED, EARLIER, SHAKY, QUIET]
    assert len(told) < 3000


def test_first_lines_are_few_and_begin_with_the_counts(found: Morning) -> None:
    lines = first_lines(found, 2)
    assert lines[0].startswith("night-13: 1 fail, 1 not run, 1 regression")
    assert lines[1].startswith(f"fail: router on {FULL}")
    assert (len(lines), lines[-1]) == (4, "and 3 more")


def test_hostile_names_are_text_and_nothing_else(hostile: Path) -> None:
    texts = set()
    for path in hostile.glob("*.html"):
        root = parsed(path.read_text(encoding="utf-8"))
        assert not root.find("script")
        assert not root.find("img")
        assert {link.attributes["href"] for link in root.find("link")} == {"data:,"}
        texts |= {heading.text for heading in root.find("h1")}
    assert {" ".join(name.split()) for name in HOSTILE} <= texts
    assert json.loads((hostile / "report.json").read_text(encoding="utf-8"))["night"] == "night-5"
    suite = ElementTree.parse(hostile / "junit.xml").getroot()[0]
    assert HOSTILE[0] in {case.attrib["classname"] for case in suite}
    assert "\ufffd\ufffd[31m\n\ufffd" in {case.attrib["classname"] for case in suite}


def test_pages_of_hostile_names_are_files_of_their_own(hostile: Path) -> None:
    names = {page("recipe", name) for name in HOSTILE}
    assert len({name.lower() for name in names}) == len(HOSTILE)
    assert all((hostile / name).is_file() and len(name) < 100 and name.isascii() for name in names)
    assert {path.parent for path in hostile.rglob("*")} == {hostile}
    # Who knows how names are made can't make one that takes another's page.
    assert page("recipe", page("recipe", "ROUTER")[7:-5]) != page("recipe", "ROUTER")


def test_markdown_of_hostile_names_is_one_line_of_text() -> None:
    told = markdown(HOSTILE[10])
    assert "\n" not in markdown(HOSTILE[7])
    assert told == ("@\u2060everyone #\u206012 \\| \\`x\\` \\[a\\](http\\://b) www\\.x.org \\!\\[i\\](http\\://j)")
    assert markdown(HOSTILE[0]).startswith("\\<script\\>")


def test_an_earlier_report_makes_way_and_others_files_do_not(found: Morning, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    write_site(found, folder)
    (folder / "recipe-of-yesterday.html").write_text("old")
    write_site(found, folder)
    assert not (folder / "recipe-of-yesterday.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    (folder / ".git").mkdir()
    with pytest.raises(InputError, match="no morning report") as refused:
        write_site(found, folder)
    assert ".git" in str(refused.value)
    assert (folder / ".git").is_dir()
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(InputError, match="no morning report"):
        write_site(found, tmp_path / "letter")
    assert (tmp_path / "letter").read_text() == "dear"


def test_a_link_to_the_folder_stays_one(found: Morning, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "site").symlink_to("real")
    for _ in range(2):
        write_site(found, tmp_path / "site")
    assert (tmp_path / "site").is_symlink()
    assert (tmp_path / "real" / "index.html").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real", "site"]


def test_a_report_that_fails_leaves_the_earlier_one(
    found: Morning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(found, tmp_path / "site")
    before = (tmp_path / "site" / "index.html").read_bytes()

    def full(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slmc.farm.morning.site.junit", full)
    with pytest.raises(InputError, match="No space left"):
        write_site(found, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_years_of_nights_make_a_small_plot() -> None:
    values = [0.5 + 0.01 * ((night * 7919) % 101) / 101 for night in range(2000)]
    values[1000] = 0.9
    told = plot(Trend("ratio", ("a", "b"), values, [None] * 2000, (), 0.02, "{:.3g}".format))
    [line] = parsed(told).find("polyline")
    places = [tuple(map(int, place.split(","))) for place in line.attributes["points"].split()]
    assert len(places) <= 3 * COLUMNS
    assert places == sorted(places, key=lambda place: place[0])
    # The one night that stands out is there, in the middle and at the top.
    x, y = min(places, key=lambda place: place[1])
    assert 190 < x < 200
    assert y < 15
    assert not plot(Trend("ratio", ("a", "b"), [None, None], [None, None], (), 0.02, str))


def test_the_worst_is_never_hidden_by_a_pass(found: Morning) -> None:
    assert standing(found, EARLIER).tonight == "pass"
    assert standing(found, EARLIER).state == "worse"
