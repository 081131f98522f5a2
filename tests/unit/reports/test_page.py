"""The HTML page: by its text, and in a real headless Chromium where one is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.reports.explore.browser import browser, opened
from unit.results.folders import make_manifest, make_run, manifest_content
from unit.results.suite import make_suite

from moe_sweeps.reports.write import write_tables


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    make_suite(root / "runs")
    write_tables(root / "runs", root / "reports")
    return root / "reports"


@pytest.fixture(scope="module")
def page(reports: Path) -> Iterator[Any]:
    """The page in a browser without a network; `page.seen` holds its requests and errors."""
    with browser() as found:
        yield opened(found, reports / "index.html")


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
    assert page.eval_on_selector_all(".forest", "found => found.every(e => e.getBoundingClientRect().height > 40)")


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


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 2560])
def test_it_fits_every_window_and_wide_tables_scroll_within_it(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    held = "tables => tables.every(t => t.closest('.wrap') !== null)"
    assert page.eval_on_selector_all("table", held)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_it_opens_with_the_answers_decided_ones_first(page: Any) -> None:
    words = page.locator(".card .verdict").all_inner_texts()
    assert words == ["Better.", "None is shown to be better."]
    first = page.evaluate("[...document.querySelectorAll('.card, table, nav')].map(e => e.className || e.tagName)[0]")
    assert first.startswith("card")
    assert page.locator(".card .forest circle").count() >= 10
    order = page.eval_on_selector_all("h2", "found => found.map(e => e.textContent)")
    assert order[:4] == ["Contents", "Scorecard", "Noise and power", "Recommended settings"]


def test_light_and_dark_have_enough_contrast(page: Any) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate("""() => ["html", ".card .verdict", ".note", ".card dt"].map(s => {
            const e = document.querySelector(s); return getComputedStyle(e).color; })
            .concat([getComputedStyle(document.documentElement).backgroundColor])""")
        *inks, back = [luminance(colour) for colour in colours]
        for ink in inks:
            assert (max(ink, back) + 0.05) / (min(ink, back) + 0.05) >= 4.5
    page.emulate_media(color_scheme="light")


def luminance(colour: str) -> float:
    """WCAG 2.1's relative luminance of an rgb() colour."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_nothing_is_cut_in_print_and_everything_is_unfolded(page: Any) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1040, "height": 720})  # A4 across, within its margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.eval_on_selector_all("details", "found => found.every(e => e.open)")
    assert page.eval_on_selector_all("table", "ts => ts.every(t => t.getBoundingClientRect().right <= innerWidth + 1)")
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_text_has_plan_failures_claims_and_no_address_of_the_network(reports: Path) -> None:
    text = (reports / "index.html").read_text()
    outside_pictures = re.sub(r"'data:image/svg\+xml;[^']*'", "", text)
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
