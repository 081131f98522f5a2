"""The HTML page: by its text, and in a real headless Chromium where one is installed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.results.folders import make_manifest, make_run, manifest_content
from unit.results.suite import make_suite

from moe_sweeps.results.write import write_tables

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    make_suite(root / "runs")
    write_tables(root / "runs", root / "reports")
    return root / "reports"


@pytest.fixture(scope="module")
def page(reports: Path) -> Iterator[Any]:
    """The page in a browser that is cut off; `page.seen` holds what it asked for and what went wrong."""
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        pytest.skip(f"no Chromium is installed ({', '.join(BROWSERS)}): apt-get install chromium-headless-shell")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.seen = {"requests": [], "console": [], "errors": []}
        page.on("request", lambda request: page.seen["requests"].append(request.url))
        page.on("console", lambda message: page.seen["console"].append(message.text))
        page.on("pageerror", lambda error: page.seen["errors"].append(str(error)))
        page.goto((reports / "index.html").as_uri())
        yield page
        browser.close()


def column(page: Any, table: int, place: int) -> list[str]:
    rows = page.locator("table").nth(table).locator("tbody tr")
    return [rows.nth(i).locator("td").nth(place).inner_text() for i in range(rows.count())]


def test_nothing_is_fetched_and_nothing_goes_wrong(page: Any, reports: Path) -> None:
    fetched = [url for url in page.seen["requests"] if not url.startswith("data:")]
    assert fetched == [(reports / "index.html").as_uri()]
    assert page.seen["console"] == []
    assert page.seen["errors"] == []


def test_every_picture_is_drawn(page: Any) -> None:
    widths = page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert len(widths) >= 8
    assert min(widths) > 300


def test_a_click_sorts_by_value_and_a_second_one_turns_it_round(page: Any) -> None:
    table = page.locator("#aux_coef-0b30c773aae9 ~ .wrap table").first  # the list of arms
    head, cells = table.locator("th").nth(3), table.locator("tbody tr td:nth-child(4)")
    head.locator("button").click()
    rising = [float(text.split()[0]) for text in cells.all_inner_texts()]
    assert rising == sorted(rising)
    assert len(rising) == 6
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")  # by the keyboard, too
    assert [float(text.split()[0]) for text in cells.all_inner_texts()] == rising[::-1]
    assert page.seen["errors"] == []


def test_the_link_of_a_cell_leads_to_its_runs(page: Any) -> None:
    table = page.locator("#aux_coef-0b30c773aae9 ~ .wrap table").first
    link = table.locator("tbody tr td a").first
    target = link.get_attribute("href")
    link.click()
    assert page.url.endswith(target)
    body = page.locator(f"[id='{target[1:]}']")
    assert body.count() == 1
    assert body.locator("tr").count() == 4  # its name and three seeds
    assert "python train.py balancer=aux aux.coef=" in body.inner_text()


def test_every_anchor_exists_and_every_run_folder_is_there(page: Any, reports: Path) -> None:
    links = page.eval_on_selector_all("a", "links => links.map(a => a.getAttribute('href'))")
    ids = set(page.eval_on_selector_all("[id]", "found => found.map(e => e.id)"))
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    folders = {link for link in links if not link.startswith("#")}
    assert len(folders) == 5 + 18 + 35
    assert all((reports / folder / "config.yaml").exists() for folder in folders)


def test_it_fits_a_narrow_window(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_text_has_plan_failures_claims_and_no_address_of_the_network(reports: Path) -> None:
    text = (reports / "index.html").read_text()
    outside_pictures = re.sub(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", outside_pictures)
    for part in (
        "Recommended settings",
        "Plan",
        "Failures and gaps",
        "failed: ValueError in x",
        "reproduced",
        "missing",
    ):
        assert part in text


def test_labels_are_text_and_not_markup(tmp_path: Path) -> None:
    content = manifest_content(1, (("aux", 0.1),))
    for run in content["runs"].values():
        run["label"] = "<script>alert(1)</script>&"
    make_run(tmp_path / "runs")
    make_manifest(tmp_path / "runs", content)
    write_tables(tmp_path / "runs", tmp_path / "reports")
    text = (tmp_path / "reports" / "index.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
