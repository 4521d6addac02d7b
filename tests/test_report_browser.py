"""The report in headless Chromium: what a reader sees, sorts and reaches by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batteries.report.page import write_report
from batteries.score.ledger import Ledger
from entries import entry_of

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three entries with validation and test scores."""
    root = tmp_path_factory.mktemp("browser") / "runs"
    targets, folds = np.arange(90) % 3, np.arange(90) // 30
    for number in range(3):
        noise = np.random.default_rng(number).normal(size=(90, 3)) * (1 + number)
        exponents = np.exp(2 * np.eye(3)[targets] + noise)
        entry = entry_of(root, f"toy-00{number + 1}", exponents / exponents.sum(axis=1, keepdims=True), targets, folds)
        name, up = entry.direction.name, entry.direction.higher_is_better
        with Ledger(root) as ledger:
            if entry.name not in {row["name"] for row in ledger.entries()}:
                ledger.add_entry(entry.config)
            for scope in ("oof", "test"):
                ledger.add_score(entry.name, scope, 0.9 - number / 20, metric=name, higher_is_better=up, noise=0.01)
            for fold in range(3):
                score = 0.9 - number / 20 + fold / 100
                ledger.add_score(entry.name, "fold", score, metric=name, higher_is_better=up, fold=fold)
    return write_report(root)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The open report; whatever it logs or asks for besides itself fails the test."""
    opened = browser.new_page()
    opened.set_default_timeout(5_000)
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert said == []
    assert asked == [report.as_uri()]


def first_cells(page: Any) -> list[str]:
    return list(page.locator("#board table.wide tbody th").all_inner_texts())


def test_every_section_is_reached_from_the_navigation(page: Any) -> None:
    links = page.locator("nav a").evaluate_all("all => all.map(a => a.getAttribute('href').slice(1))")
    assert links == page.locator("section").evaluate_all("all => all.map(s => s.id)")
    assert {"board", "closer"} <= set(links)


def test_a_click_sorts_and_the_keyboard_sorts_back(page: Any) -> None:
    button = page.locator("#board th button", has_text="name")
    head = page.locator("#board th", has=page.locator("button", has_text="name"))
    button.click()
    assert first_cells(page) == ["toy-001", "toy-002", "toy-003"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert first_cells(page) == ["toy-003", "toy-002", "toy-001"]
    assert head.get_attribute("aria-sort") == "descending"


def test_the_first_tab_offers_to_skip_to_the_content(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"


def test_every_chart_has_a_name(page: Any) -> None:
    names = page.locator("svg").evaluate_all("all => all.map(s => s.getAttribute('aria-label'))")
    assert len(names) >= 3
    assert all(names)


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
