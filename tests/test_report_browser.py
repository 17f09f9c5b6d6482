"""The report in a real browser: tables are sorted, plots and players are seen, and nothing is asked of a network."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from test_plots import make_report
from tones import make_corpus
from voxnest.corpora.trials import IndexedTrials
from voxnest.evaluation import save_report
from voxnest.evaluation.page import Column, Table
from voxnest.evaluation.page.tables import MISSING

pytestmark = pytest.mark.slow
EVIL = "<img src=http://127.0.0.1:9/x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    """Chromium, as Debian has it."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or make browser")
    with driver.sync_playwright() as running:
        # Its sandbox wants rights that containers do not give; the page is our own.
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    names = [str(path) for path in sorted(make_corpus(folder).rglob("*.wav"))]
    report = make_report((1, 2, 3), model=EVIL)
    random = np.random.default_rng(0)
    sides = (random.integers(0, len(names), len(report.labels)) for _ in range(2))
    report = replace(report, pairs=IndexedTrials(names, *sides, report.labels), llrs={32: report.scores[32]})
    columns = [Column("recording"), Column("EER %", ".2f")]
    rows = [["a10.wav", 9.5], ["a9.wav", 10.25], ["b.wav", None], [EVIL, -1.0]]
    save_report({EVIL: report, "other": report}, folder / "out", tables=[Table("Sorted", columns, rows)], audio=True)
    return (folder / "out" / "report.html").as_uri()


@pytest.fixture
def page(browser, address):
    """The page, opened; `seen` has the requests that were made and what was complained of."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.seen = []
    page.on("request", lambda request: page.seen.append(request.url))
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on("console", lambda message: page.seen.append(message.text))
    page.on("dialog", lambda dialog: (page.seen.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    yield page
    page.close()


def cells(page, column):
    return page.locator(f"section:has(> h2:text-is('Sorted')) tbody tr td:nth-child({column})").all_inner_texts()


def heading(page, name):
    return page.locator("section:has(> h2:text-is('Sorted')) th", has_text=name)


def test_a_click_sorts_by_number_a_second_one_turns_it_and_what_is_missing_stays_last(page):
    assert cells(page, 2) == ["9.50", "10.25", MISSING, "-1.00"]
    heading(page, "EER").get_by_role("button").click()
    assert cells(page, 2) == ["-1.00", "9.50", "10.25", MISSING]
    assert heading(page, "EER").get_attribute("aria-sort") == "ascending"
    heading(page, "EER").get_by_role("button").click()
    assert cells(page, 2) == ["10.25", "9.50", "-1.00", MISSING]
    assert heading(page, "EER").get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_names_as_people_do(page):
    heading(page, "EER").get_by_role("button").click()
    heading(page, "recording").get_by_role("button").focus()
    page.keyboard.press("Enter")
    found = [name for name in cells(page, 1) if name.endswith(".wav")]
    assert found == ["a9.wav", "a10.wav", "b.wav"]
    assert heading(page, "EER").get_attribute("aria-sort") is None


@pytest.mark.parametrize("width", [1200, 390])
def test_every_plot_is_seen_and_nothing_is_wider_than_the_page(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    plots = page.locator("svg[role=img]")
    assert plots.count() == 5
    for plot in plots.all():
        assert min(plot.bounding_box()["width"], plot.bounding_box()["height"]) > 200
        assert plot.locator("path").count() > 10
        assert plot.locator("text").count() > 3
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_recordings_are_played_from_the_page_itself(page):
    players = page.locator("audio")
    assert players.count() == 2 * 16 * 2
    length = page.evaluate(
        """async () => {
          const player = document.querySelector("audio");
          const loaded = new Promise((done, fail) => { player.onloadedmetadata = done; player.onerror = fail; });
          player.load();
          player.preload = "auto";
          await loaded;
          return player.duration;
        }"""
    )
    assert length == pytest.approx(1, abs=0.05)


def test_nothing_is_asked_of_a_network_and_no_name_runs(page, address):
    page.wait_for_load_state("networkidle")
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    page.screenshot(full_page=True)
    assert [seen for seen in page.seen if not seen.startswith("data:")] == [address]
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == "2 models compared"


def test_print_is_black_on_white_with_every_trial_and_no_players(page):
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("details[open]").count() == 2
    assert not page.locator("audio").first.is_visible()
