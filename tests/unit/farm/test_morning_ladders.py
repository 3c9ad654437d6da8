"""Which step broke a model: what pages, report.json and summary.md say of ladders is what the runs say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.farm.morning import words
from slmc.farm.morning.climbs import Climb, climbs
from slmc.farm.morning.pages import LISTED, OPEN
from slmc.farm.morning.placement import placement
from slmc.farm.morning.report_json import MorningReport
from slmc.farm.morning.site import write_site
from slmc.farm.morning.standing import Standing
from slmc.farm.morning.summary import summary
from slmc.farm.morning.visible import visible
from slmc.farm.record import FlipShown, Ladder, Run
from slmc.farm.tracks import Track

from .morning_case import (
    AWAY,
    BELOW,
    FULL,
    QUANTIZED,
    QUIET,
    Element,
    farm_nights,
    flip,
    gone,
    kept,
    ladder,
    morning,
    parsed,
    rung,
    standing,
)
from .nights import WHERE, any_ladder, night, run, series

HOSTILE = "<script>alert(1)</script>\x00\x1b[31m\u202eevil\u2066 {{ 7 * 7 }}\n" + "w" * 100


def climbed(device: str, its: Ladder | None, bundle: str = "bundle-1") -> Run:
    where = WHERE.model_copy(update={"bundle": bundle})
    return run(series(device=device), [True] * 4500, where=where).model_copy(update={"ladder": its})


def ladders_of(*runs: Run) -> list[Climb]:
    return climbs([Standing(Track(one.series, ()), {}, 0, one) for one in runs])


def written(folder: Path, *runs: Run) -> Path:
    write_site(morning(kept([night(0, *runs)], folder)), folder / "site")
    return folder / "site"


def recipe_page(site: Path) -> Element:
    return parsed((site / "recipe-router.html").read_text(encoding="utf-8"))


def rows(table: Element) -> list[list[str]]:
    found = [row for body in table.find("tbody") for row in body.find("tr")]
    return [[cell.text for cell in (*row.find("th"), *row.find("td"))] for row in found]


def test_rungs_stand_once_a_bundle_and_each_device_is_the_last(tmp_path: Path) -> None:
    runs = [climbed("shelf-1", ladder()), climbed("shelf-2", ladder(flip(30), flip(31, kind="won")))]
    page = recipe_page(written(tmp_path, *runs, gone(series(device="shelf-3"), "not attached")))
    [table] = page.find("table")
    assert [cell.text for cell in table.find("thead")[0].find("th")] == ["", "right", "lost", "won", ""]
    assert "Of 4,500 items; lost and won against the rung below" in page.text
    assert rows(table) == [
        ["reference", "4,067 90.38%", "–", "–", ""],
        ["quantized", "4,050 90.00%", "22", "5", ""],
        ["compiled", "–", "–", "–", "not run"],
        ["app", "4,050 90.00%", "0", "0", ""],
        ["shelf-1", "4,050 90.00%", "0", "0", "can't tell"],
        ["shelf-2", "4,050 90.00%", "1", "1", "can't tell"],
    ]
    assert [mark.text for mark in table.find("b", lambda one: one.attributes["class"] == "fail")] == ["22"]
    [without] = [section for section in page.find("section") if "No ladder" in section.text]
    assert without.text == "No ladder this night shelf-3 not run"


def test_another_bundle_and_other_rungs_below_are_another_ladder() -> None:
    """Machines that share a farm build the same bundle, and may answer otherwise on the way."""
    elsewhere = ladder(below=(*BELOW[:-1], rung("app", 4049, 1)))
    runs = [
        climbed("shelf-1", ladder()),
        climbed("shelf-2", ladder(), "bundle-2"),
        climbed("shelf-3", ladder(), "bundle-1"),
        climbed("shelf-4", elsewhere),
    ]
    found = ladders_of(*runs)
    assert [[one.series.device for one, _ in climb.devices] for climb in found] == [
        ["shelf-1", "shelf-3"],
        ["shelf-2"],
        ["shelf-4"],
    ]
    assert [climb.bundle for climb in found] == ["bundle-1", "bundle-2", "bundle-1"]


def test_flips_stand_by_rung_lost_ones_first_with_where_they_flip(tmp_path: Path) -> None:
    runs = [
        climbed("shelf-1", ladder(flip(40, kind="won"), flip(41), flip(42), more=7)),
        climbed("shelf-2", ladder(flip(42), more=9)),
        climbed("shelf-3", ladder()),
    ]
    page = recipe_page(written(tmp_path, *runs))
    headings = [heading.text for heading in page.find("h3")]
    assert headings == ["Flipped at quantized", "Flipped at device"]
    items = [item.text for item in page.find("li")]
    assert len(items) == len(QUANTIZED) + 3
    assert items[0] == (
        "lost could you wire 0 to my sister before the weekend transfer → balance , expected transfer · item 0000"
    )
    assert [text.split()[0] for text in items] == ["lost"] * 22 + ["won"] * 5 + ["lost"] * 2 + ["won"]
    assert [text.partition(" · on ")[2] for text in items[-3:]] == ["2 of 3 devices", "shelf-1", "shelf-1"]
    [details] = page.find("details")
    assert details.find("summary")[0].text == f"{len(QUANTIZED) - OPEN} more"
    assert len(details.find("li")) == len(QUANTIZED) - OPEN
    assert "And up to 9 more, which the history does not keep" in page.text


def test_a_page_stays_small_where_every_device_flips_others(tmp_path: Path) -> None:
    runs = [
        climbed(f"shelf-{device}", ladder(*(flip(1000 * device + number) for number in range(28))))
        for device in range(50)
    ]
    site = written(tmp_path, *runs)
    page = recipe_page(site)
    assert len(page.find("li")) == len(QUANTIZED) + LISTED
    assert f"And {50 * 28 - LISTED} more: report.json has them" in page.text
    [told] = MorningReport.model_validate_json((site / "report.json").read_text(encoding="utf-8")).ladders
    assert len(told.flips) == len(QUANTIZED) + 50 * 28


def test_texts_of_items_are_text_and_nothing_else(tmp_path: Path) -> None:
    texts = dict.fromkeys(("id", "text", "expected", "before"), HOSTILE) | {"after": ""}
    site = written(tmp_path, climbed("shelf-1", ladder(flip(1).model_copy(update=texts))))
    source = (site / "recipe-router.html").read_text(encoding="utf-8")
    assert not set(source) & set("\x00\x1b\u202e\u2066")
    page = parsed(source)
    assert not page.find("script")
    [item] = [item for item in page.find("li") if "alert" in item.text]
    told = [each.text for each in item.find("bdi")]
    shown = r"<script>alert(1)</script> \x00 \x1b [31m \u202e evil \u2066 {{ 7 * 7 }} ↵ " + "w" * 100
    assert told == [shown] * 4
    assert "→ empty" in item.text
    [ladder_told] = MorningReport.model_validate_json((site / "report.json").read_text(encoding="utf-8")).ladders
    assert HOSTILE in {one.text for one in ladder_told.flips}


@given(st.text())
def test_any_text_is_one_element_that_no_character_leaves(text: str) -> None:
    [shown] = parsed(str(visible(text))).parts
    assert isinstance(shown, Element)
    assert shown.tag == ("bdi" if text else "i")


_LADDERS = st.lists(any_ladder, min_size=1, max_size=4)


@given(_LADDERS)
def test_every_device_and_every_flip_is_told_once(given_ladders: list[Ladder]) -> None:
    runs = [climbed(f"shelf-{number}", its) for number, its in enumerate(given_ladders)]
    found = ladders_of(*runs)
    placed = [one.series.device for climb in found for one, _ in climb.devices]
    assert sorted(placed) == [one.series.device for one in runs]
    for climb in found:
        its = {one.series.device: one.run.ladder for one, _ in climb.devices if one.run and one.run.ladder}
        assert {each.flip for each in climb.flips} == {flip for ladder in its.values() for flip in ladder.flips}
        assert len(climb.flips) == len({each.flip for each in climb.flips})
        for each in climb.flips:
            where = [device for device, ladder in its.items() if each.flip in ladder.flips]
            assert list(each.devices) == (where if each.flip.rung == "device" else [])
        assert [name for name, _ in climb.by_rung()] == sorted(
            {each.flip.rung for each in climb.flips}, key=["reference", "quantized", "compiled", "app", "device"].index
        )


def test_report_json_has_each_ladder_once(tmp_path: Path) -> None:
    runs = [climbed("shelf-1", ladder(more=3)), climbed("shelf-2", ladder(flip(30)))]
    report = MorningReport.model_validate_json((written(tmp_path, *runs) / "report.json").read_text(encoding="utf-8"))
    [told] = report.ladders
    assert (told.recipe, told.bundle, told.items, told.more) == ("router", "bundle-1", 4500, 3)
    assert told.below == BELOW
    assert [(one.device, one.rung and one.rung.lost) for one in told.devices] == [("shelf-1", 0), ("shelf-2", 1)]
    assert [one.devices for one in told.flips] == [()] * len(QUANTIZED) + [("shelf-2",)]
    assert FlipShown(**told.flips[-1].model_dump(exclude={"devices"})) == flip(30)


def test_the_summary_names_the_rung_that_lost_most(tmp_path: Path) -> None:
    told = summary(morning(kept(farm_nights(), tmp_path)))
    [row] = [line for line in told.splitlines() if line.startswith("|") and FULL in line]
    assert row.endswith("| 44 MiB of memory; lost 22 at quantized, 2 at device |")
    assert told.count("lost 22") == 1  # no pass and no regression says it


@pytest.mark.parametrize(
    ("its", "told"),
    [
        (ladder(), "lost 22 at quantized, 0 at device"),
        (ladder(*map(flip, range(30, 60))), "lost 30 at device, 22 at quantized"),
        (ladder(below=BELOW[:1]), ""),
        (Ladder(rungs=BELOW, flips=(), more=0), "lost 22 at quantized"),
    ],
)
def test_lost_items_in_words(its: Ladder, told: str) -> None:
    assert words.lost(its) == told


def test_placement_shows_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    found = morning(kept(farm_nights(), tmp_path))
    quiet = standing(found, QUIET)
    told = dict(placement(found.past, quiet))
    assert told == {
        "runs on": "tvm neon",
        "device": "Phone 9, 17.1",
        "class": "small",
        "memory": "29 of 40 MiB",
        "a decision": "2 ms (p95 3.5 ms)",
        "a decision of the control": "2 ms",
        "first load": "12 ms",
        "first token": "1.5 ms",
        "prefill": "4,000 tokens/s",
    }
    assert placement(found.past, standing(found, AWAY)) == []
    assert dict(placement(found.past, standing(found, QUIET, "retired")))["a decision"] == "2 ms"  # of another night
    assert quiet.run is not None
    assert quiet.run.speed is not None
    measured = {"sustained": 0.81, "energy_mj": 3.14159, "prefill_tokens_per_s": 1234.5, "decode_tokens_per_s": 20.48}
    hot = quiet.run.speed.model_copy(update=measured)
    more = Standing(quiet.track, {}, quiet.evening, quiet.run.model_copy(update={"speed": hot}))
    added = dict(placement(found.past, more)).items() - told.items()
    assert added == {
        ("sustained speed", "81.00%"),
        ("energy of a decision", "3.14 mJ"),
        ("prefill", "1,234 tokens/s"),
        ("decode", "20.5 tokens/s"),
    }
