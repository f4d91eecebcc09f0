"""The page in a real browser: Debian's chromium, driven by selenium. Skipped where there is none."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from folders import Images, cache_vectors, priced, store, study

from toolkit.results.report import page

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--hide-scrollbars")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver (apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[test]'")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all of its parts: three held-out categories, names that are long or hold HTML."""
    home = tmp_path_factory.mktemp("home")
    long = "a-category-with-a-name-that-is-much-too-long-for-a-telephone"
    images = Images(home / "data", categories=("cat", long, "<b>bold</b>".replace("/", "∕")))
    predictions = [one for held_out in ("cat", long) for one in study(images, held_out=held_out)]
    cache_vectors(home / "cache", "e0", images)
    facts = {"command": f"python cli.py run --data {'x' * 300}", "data": str(images.root), "cache": str(home / "cache")}
    return page.write(priced(store(home / "results", predictions, **facts))).page


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 21 labels, too many for a row each."""
    home = tmp_path_factory.mktemp("many")
    labels = ["a-label-with-a-name-that-is-much-too-long-for-a-telephone", *(f"kind {number}" for number in range(20))]
    images = Images(home / "data", labels=labels, categories=("cat", "dog"), each=2)
    cache_vectors(home / "cache", "e0", images)
    facts = {"data": str(images.root), "cache": str(home / "cache")}
    return page.write(store(home / "results", study(images), labels, **facts)).page


@pytest.fixture(params=["two labels", "many labels"])
def either(request: pytest.FixtureRequest, report: Path, many: Path) -> Path:
    return report if request.param == "two labels" else many


def show(browser: Any, report: Path, width: int = 1200, scheme: str = "light") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(report.as_uri())


def test_no_error_on_the_console_and_no_request_leaves_the_page(browser: Any, report: Path) -> None:
    browser.get("about:blank")
    browser.get_log("performance")  # what the browser's own first page asked for
    show(browser, report)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert report.as_uri() in asked, "or the log says nothing"
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")


def test_a_press_on_a_heading_sorts_the_table_and_another_one_turns_it_round(browser: Any, report: Path) -> None:
    show(browser, report)
    buttons = browser.find_elements("css selector", "#summary thead button")
    assert [button.text for button in buttons][:4] == ["Encoder and head", "Base", "Novel", "Drop"]

    def column(number: int) -> list[str]:
        rows = "[...document.querySelector('#summary').tBodies[0].rows]"
        return list(browser.execute_script(f"return {rows}.map(r => r.cells[arguments[0]].dataset.value)", number))

    for number, button in enumerate(buttons[:4]):
        names = number == 0
        key = str if names else float
        button.click()
        once = column(number)
        assert once == sorted(once, key=key, reverse=not names)
        button.click()
        assert column(number) == sorted(once, key=key, reverse=names)
    sorts = [heading.get_attribute("aria-sort") for heading in browser.find_elements("css selector", "#summary th")]
    assert sorts.count("none") == len(sorts) - 1 and sorts[3] == "ascending"


def test_a_choice_of_a_label_shows_its_curves_alone(browser: Any, many: Path) -> None:
    show(browser, many)

    def visible() -> list[str]:
        parts = "[...document.querySelectorAll('.choose')].filter(one => one.checkVisibility())"
        return list(browser.execute_script(f"return {parts}.map(one => one.querySelector('h3').textContent)"))

    options = browser.find_elements("css selector", "section.choice option")
    assert visible() == [options[0].text] and len(options) == 10
    options[4].click()
    assert visible() == [options[4].text]


@pytest.mark.parametrize("width", [360, 700, 1085])
def test_only_a_table_in_its_own_box_scrolls_sideways(browser: Any, either: Path, width: int) -> None:
    """With a name so long that the table fits no screen."""
    show(browser, either, width)
    browser.execute_script("document.querySelector('#summary .head').append('x'.repeat(300))")
    box = "document.querySelector('#summary').parentElement"
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    assert browser.execute_script(f"return {box}.scrollWidth > {box}.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_the_page_without_scrolling_sideways(browser: Any, either: Path, scheme: str) -> None:
    show(browser, either, 360, scheme)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    beyond = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg') && "
        "e.getBoundingClientRect().right > 361).map(e => e.outerHTML.slice(0, 80))"
    )
    assert width == 360 and beyond == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_reads_on_its_background(browser: Any, either: Path, scheme: str) -> None:
    """WCAG 2's contrast of 4.5 for all text of the page and 3 for that of charts, as the browser computes colours."""
    show(browser, either, scheme=scheme)
    faint = browser.execute_script(CONTRAST)
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(16, 21, 27)"
    )
    assert faint == []


CONTRAST = """
const parts = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map(v => v / 255).map(v =>
  v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = parts(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("main *")) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.checkVisibility() || element.tagName === "title" || element.tagName === "TITLE") continue;
  if (element.closest("[style*='--share']") || element.closest("svg[aria-label*='held-out']")) continue;
  const style = getComputedStyle(element);
  const ink = parts(element.closest("svg") ? style.fill : style.color);
  const [high, low] = [light(ink), light(ground(element))].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < (element.closest("svg") ? 3 : 4.5)) found.push([element.textContent.slice(0, 40), ratio]);
}
return found;
"""


def test_it_prints_on_white_with_everything_open(browser: Any, report: Path) -> None:
    show(browser, report, scheme="dark")
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert colour == "rgb(255, 255, 255)"
    assert browser.execute_script("return [...document.querySelectorAll('details')].every(one => one.open)")
