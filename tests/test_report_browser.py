"""The report in headless Chromium: what a reader sees, sorts and reaches by keyboard, and what a reload keeps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reported
from batteries.report.page import Made, make_report
from batteries.score.ledger import Ledger

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

STATE = """() => ({
  order: [...document.querySelectorAll("#submissions tbody th")].map((each) => each.textContent),
  sorted: [...document.querySelectorAll("#submissions [aria-sort=descending]")].map((each) => each.textContent),
  open: [...document.querySelectorAll("details[open]")].map((each) => each.closest("section").id),
  focus: document.activeElement.textContent,
  aside: document.querySelector("#board .scroll").scrollLeft,
  top: Math.round(document.getElementById("submissions").getBoundingClientRect().top),
})"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The report of two runs and everything that can be made of them."""
    folder = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BATTERIES_LEDGER", raising=False)
        patch.chdir(folder)
        return make_report(reported.walk(folder), table=reported.pictures())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, made: Made) -> Iterator[Any]:
    """The open report; whatever it logs or asks for besides itself fails the test."""
    opened = browser.new_page()
    opened.set_default_timeout(10_000)
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(made.path.as_uri())
    yield opened
    opened.close()
    assert said == []
    assert set(asked) == {made.path.as_uri()}


def texts(page: Any, selector: str) -> list[str]:
    return [str(text).strip() for text in page.locator(selector).all_inner_texts()]


def best_of(page: Any) -> str:
    return texts(page, ".tiles dd")[0]


def test_every_section_and_every_part_of_one_has_its_heading(page: Any, made: Made) -> None:
    best = best_of(page)
    assert made.problems == []
    assert texts(page, "h2, h3") == [
        "Board", "How far can validation be trusted?", "What the study advises", f"A closer look at {best}",
        "Which class is taken for which", "Is a stated probability true?", "The hardest rows", "Blends and averages",
        "How alike are the entries?", "Runs", "toy-001", "toy-002", "Submissions", "Environment", "toy-001, toy-002",
    ]  # fmt: skip
    assert page.locator("nav a").evaluate_all("all => all.map(a => a.getAttribute('href').slice(1))") == page.locator(
        "section"
    ).evaluate_all("all => all.map(s => s.id)")


def test_every_chart_is_named_by_what_it_shows(page: Any) -> None:
    names = page.locator("svg").evaluate_all("all => all.map(s => s.getAttribute('aria-label'))")
    assert len(names) == len(set(names))
    for start in (
        "Validation accuracy of 10 entries", "accuracy of the folds of 10 entries",
        "Validation accuracy against the public leaderboard for 6 submissions", f"Calibration of {best_of(page)}",
        "Training loss of toy-001 over the updates, 2 folds", "Validation accuracy of toy-002",
        "Learning rate of toy-001", "Gradient norm of toy-001", "accuracy of toy-002: mean",
    ):  # fmt: skip
        assert sum(name.startswith(start) for name in names) == 1, (start, names)


def test_blends_show_weights_members_and_what_fitting_gained(page: Any) -> None:
    rows = {row.split()[0]: " ".join(row.split()) for row in texts(page, "#blends table:not(.matrix) tbody tr")}
    assert "mean, fitted by greedy" in rows["blend-002"]
    assert "On rows the weights were not fitted on" in rows["blend-002"]
    assert rows["blend-002"].count("±") == 3
    assert "of toy-001, toy-002" in rows["blend-003"]
    assert rows["blend-004"].startswith("blend-004 power, p = 2")
    assert "log loss" in rows["calibrated-001"]
    assert "0.50" not in rows["stack-001"]
    assert "boosted" not in rows
    assert set(texts(page, "#blends .matrix tbody th")) == {"toy-001", "toy-002", "boosted", "average-001"}


def test_the_hardest_rows_have_images(page: Any) -> None:
    images = page.locator("#closer td img")
    assert images.count() == 20
    assert images.evaluate_all("all => all.every(each => each.naturalWidth > 0 && each.alt.startsWith('row '))")


def test_a_click_sorts_and_the_keyboard_sorts_back(page: Any) -> None:
    head = page.locator("#board th", has=page.locator("button", has_text="validation"))
    best_first = texts(page, "#board table.wide tbody th")
    assert len(best_first) == 10
    head.locator("button").click()
    values = page.locator("#board table.wide tbody tr").evaluate_all("all => all.map(r => +r.cells[3].dataset.value)")
    assert values == sorted(values)
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert texts(page, "#board table.wide tbody th")[0] == best_first[0]
    assert head.evaluate("each => getComputedStyle(each.querySelector('button')).outlineStyle") == "solid"


def test_the_keyboard_reaches_every_link_button_and_scrolling_table(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    wanted = page.locator("a, th button, summary, .scroll").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).length"
    )
    reached = 1
    while page.evaluate("document.activeElement !== document.body"):
        page.keyboard.press("Tab")
        reached += 1
    assert reached - 1 == wanted


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    for width in (400, 1000, 2000):
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]")
        assert wide[0] <= wide[1], (scheme, width)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("name", ["report", "augment"])
def test_the_pages_of_the_study_fit_every_window_and_are_silent(browser: Any, made: Made, name: str) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((made.path.parent / "study" / f"{name}.html").as_uri())
    for width in (400, 1000, 2000):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), width
    assert page.locator("h2").count() >= 1
    assert said == []
    page.close()


def test_names_stay_in_view_when_a_wide_table_is_scrolled(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 900})
    page.locator("#board .scroll").first.evaluate("each => { each.scrollLeft = 300; }")
    first = page.locator("#board table.wide tbody th").first.bounding_box()
    assert 0 <= first["x"] < 30


def test_a_reload_keeps_place_order_open_details_and_focus(browser: Any, made: Made, tmp_path: Path) -> None:
    """A submission and its score come in between, so that the page grows above the reader and below."""
    root = Path(shutil.copytree(made.path.parent, tmp_path / "runs"))
    page = browser.new_page(viewport={"width": 400, "height": 700})
    page.goto(make_report(root, refresh=2.0).path.as_uri())
    page.locator("#board summary").first.click()
    page.locator("#environment summary").click()
    page.locator("#board .scroll").first.evaluate("each => { each.scrollLeft = 60; }")
    button = page.locator("#submissions th button", has_text="made of")
    button.click()
    button.click()
    button.evaluate("each => { each.focus(); each.scrollIntoView({block: 'center'}); }")
    before = page.evaluate(STATE)
    assert (before["aside"], len(before["open"])) == (60, 2)
    with Ledger(root) as ledger:
        ledger.add_score("toy-002", "test", 0.7, metric="accuracy", higher_is_better=True, noise=0.01)
        ledger.add_score("toy-001", "test", 0.9, metric="accuracy", higher_is_better=True, noise=0.01)
    make_report(root, refresh=2.0)
    page.wait_for_function("document.querySelector('#board').textContent.includes('test set')")
    assert page.evaluate(STATE) == before
    page.close()
