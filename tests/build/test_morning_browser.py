"""The morning report in a real browser: on a phone and on a screen, dark and light, nothing loaded or complained of.

With MORNING_SHOTS=FOLDER it leaves its screenshots there.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slmc.farm.morning.site import write_site
from tests.unit.farm.morning_case import EARLIER, SLOWED, farm_nights, flip, gone, kept, ladder, morning
from tests.unit.farm.nights import WHERE, night, run, series

from .browser import Browser, browsing, find_chromium

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(find_chromium() is None, reason="chromium is not installed: apt-get install chromium"),
]
PAGES = ("index.html", "recipe-router.html", f"device-{SLOWED}.html")
LONG = "x" * 300
HEBREW = "שלום לך"
UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true })"
TOO_WIDE = """Array.from(document.querySelectorAll("body *"))
  .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5 && !one.closest(".scroll"))
  .map(one => one.tagName + " " + one.textContent.slice(0, 60))"""
SMALLEST = """Math.min(...Array.from(document.querySelectorAll("main *"))
  .filter(one => Array.from(one.childNodes).some(node => node.nodeType === 3 && node.data.trim()))
  .filter(one => one.getBoundingClientRect().width > 0)
  .map(one => parseFloat(getComputedStyle(one).fontSize) * (one.getScreenCTM ? one.getScreenCTM().a : 1)))"""
CONTRAST = """(() => {
  const luminance = text => {
    const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(value => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = one => {
    while (one && getComputedStyle(one).backgroundColor === "rgba(0, 0, 0, 0)") one = one.parentElement;
    return getComputedStyle(one).backgroundColor;
  };
  const told = "h1, h2, h3, p, b, i, a, li, td, th, dt, dd, bdi, summary, .soft";
  return Math.min(...Array.from(document.querySelectorAll(told)).map(one => {
    const [low, high] = [luminance(getComputedStyle(one).color), luminance(behind(one))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }));
})()"""

SEEN = """(async () => {
  const image = new Image();
  image.src = "data:image/png;base64,PNG";
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const colours = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
  const corner = context.getImageData(0, image.height - 1, 1, 1).data;
  return [image.width, image.height, new Set(colours).size, (corner[0] + corner[1] + corner[2]) / 3];
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_site(morning(kept(farm_nights(), folder)), folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    assert program is not None
    with browsing(program) as found:
        yield found


def seen(browser: Browser, name: str) -> tuple[int, int, int, float]:
    """Of a screenshot: width, height, how many colours, and how bright its lower left corner is, up to 255."""
    png = browser.screenshot()
    if folder := os.environ.get("MORNING_SHOTS"):
        (Path(folder) / f"{name}.png").write_bytes(png)
    width, height, colours, corner = browser.value(SEEN.replace("PNG", base64.b64encode(png).decode()))
    return width, height, colours, corner


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_and_says_nothing_to_the_console(
    browser: Browser, site: Path, page: str, width: int, scheme: str
) -> None:
    url = (site / page).as_uri()
    browser.open(url, width, 900, scheme)
    browser.value(UNFOLD)
    assert browser.complaints() == []
    assert browser.requests() == [url]
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("innerWidth") == width
    assert browser.value(TOO_WIDE) == []
    assert browser.value(SMALLEST) >= 9.5
    assert browser.value(CONTRAST) >= 4.5
    *size, colours, corner = seen(browser, f"{page.removesuffix('.html')}-{width}-{scheme}")
    assert size == [width, 900]
    assert corner > 200 if scheme == "light" else corner < 60
    assert colours > 50  # letters, no blank page


def test_a_wide_farm_scrolls_in_its_own_box(browser: Browser, tmp_path: Path) -> None:
    """Many recipes; names, reasons, a system and texts of items without an end."""
    texts = dict.fromkeys(("id", "text", "expected", "before", "after"), LONG)
    flips = ladder(*(flip(number).model_copy(update=texts | {"id": f"{number}{LONG}"}) for number in range(9)))
    where = WHERE.model_copy(update={"os": LONG, "runtime": LONG})
    nights = []
    for number in range(5):
        recipes = [run(series(f"recipe-{index:02}", "shelf-1"), [True] * 40, where=where) for index in range(30)]
        named = run(series(LONG, LONG), [True] * 40, where=where).model_copy(update={"ladder": flips})
        away = gone(series("away", LONG), LONG)
        nights.append(night(number, *recipes, named, away))
    write_site(morning(kept(nights, tmp_path)), tmp_path / "site")
    for path in sorted((tmp_path / "site").glob("*.html")):
        for width in (360, 1280) if "recipe-recipe" not in path.name else (360,):
            browser.open(path.as_uri(), width, 900)
            browser.value(UNFOLD)
            assert browser.value("document.documentElement.scrollWidth") == width, path.name
            assert browser.value(TOO_WIDE) == [], path.name


@pytest.mark.parametrize("width", [360, 1280])
def test_the_ladder_keeps_its_words_whole_and_names_the_step_that_broke(
    browser: Browser, site: Path, width: int
) -> None:
    browser.open((site / "recipe-router.html").as_uri(), width)
    lines = (
        "[...document.querySelectorAll('.ladder tbody:first-of-type th')].map(one => one.getClientRects()[0].height)"
    )
    assert max(browser.value(lines)) < 40  # none is broken into two
    assert browser.value("[...document.querySelectorAll('.scroll')].every(one => one.scrollWidth <= one.clientWidth)")
    red = browser.value("[...document.querySelectorAll('.ladder b.fail')].map(one => one.closest('tr').innerText)")
    assert red[0].split()[0] == "quantized"


def test_items_of_another_direction_do_not_turn_what_is_around_them(browser: Browser, tmp_path: Path) -> None:
    texts = {"text": f"\u202e{HEBREW}", "before": HEBREW, "after": HEBREW, "expected": HEBREW}
    its = run(series("router")).model_copy(update={"ladder": ladder(flip(30).model_copy(update=texts))})
    write_site(morning(kept([night(0, its)], tmp_path)), tmp_path / "site")
    browser.open((tmp_path / "site" / "recipe-router.html").as_uri(), 1280)
    item = f"[...document.querySelectorAll('li')].find(one => one.textContent.includes('{HEBREW}'))"
    kind = browser.value(f"{item}.querySelector('b').getBoundingClientRect().left")
    text, before, after, expected, name = browser.value(
        f"[...{item}.querySelectorAll('bdi')].map(one => one.getBoundingClientRect().left)"
    )
    assert kind < text
    assert before < after < expected < name


def test_the_mark_of_a_change_stands_where_it_happened(browser: Browser, site: Path) -> None:
    browser.open((site / "recipe-router.html").as_uri())
    svg = f"document.getElementById('{EARLIER}').querySelectorAll('svg')[1]"
    mark = browser.value(f"{svg}.querySelector('.mark line').getBoundingClientRect().x")
    left, right = (
        browser.value(f"{svg}.querySelector('.grid').getBoundingClientRect().{side}") for side in ("left", "right")
    )
    assert (mark - left) / (right - left) == pytest.approx(6 / 13, abs=0.02)


def test_a_link_in_the_matrix_leads_to_the_devices_place(browser: Browser, site: Path) -> None:
    browser.open((site / "index.html").as_uri(), 360)
    assert browser.value(f"document.querySelector('.matrix td a[href$=\"#{SLOWED}\"]').getAttribute('href')")
    browser.open(f"{(site / 'recipe-router.html').as_uri()}#{EARLIER}", 360)
    top = browser.value(f"document.getElementById('{EARLIER}').getBoundingClientRect().top")
    bottom = browser.value("document.documentElement.scrollHeight - scrollY - innerHeight")
    assert abs(top) < 20 or bottom < 1
