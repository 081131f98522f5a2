"""Choosing runs and reading their curves, in a real headless Chromium; numbers are held against the run folders."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import wait_until
from unit.reports.explore.browser import browser, opened
from unit.results.folders import make_manifest, make_run, manifest_content
from unit.results.routing import routing_records, write_lines
from unit.results.suite import make_suite, short_hash

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.reports.evidence import Evidence
from moe_sweeps.reports.page import html_page
from moe_sweeps.results.claims import judge
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table

ROUTED = short_hash({"balancer": "lossfree"}, 0)
BASE, OTHER = (short_hash({"balancer": "aux", "aux.coef": coef}, 0) for coef in ("0.1", "0.4"))


def write_page(root: Path) -> Path:
    """The page of the runs under `root`, without figures, which take most of the time."""
    runs = read_runs(root / "runs")
    tables = [ablation_table(manifest, runs) for manifest in load_manifests(root / "runs")[0]]
    evidence = [Evidence(table, None, judge(table), {}, {}) for table in tables]
    (root / "reports").mkdir()
    file = root / "reports" / "index.html"
    file.write_text(html_page(evidence, None, [], root / "reports"), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explorer")
    make_suite(root / "runs")
    records = routing_records(np.random.default_rng(0), 2, 4, 8, 50)
    write_lines(next((root / "runs").glob(f"*{ROUTED}")) / "routing.jsonl", records)
    return write_page(root)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def shared(chromium: Any, file: Path) -> Any:
    return opened(chromium, file)


@pytest.fixture
def page(shared: Any) -> Iterator[Any]:
    """The explorer of the sweep aux_coef as it opens; afterwards nothing went wrong."""
    shared.reload()
    choose_sweep(shared, "aux_coef")
    yield shared
    of_tests = "willReadFrequently"  # Chromium's advice to those who read pixels, which the tests do
    assert [text for text in shared.seen["console"] if of_tests not in text] == []
    assert shared.seen["errors"] == []
    assert {url for url in shared.seen["requests"] if not url.startswith("data:")} == {shared.url.partition("#")[0]}


def choose_sweep(page: Any, name: str) -> None:
    page.locator(".runs tbody tr").first.wait_for()
    options = page.get_by_label("Sweep", exact=True).locator("option").all_inner_texts()
    page.get_by_label("Sweep", exact=True).select_option(label=next(text for text in options if text.startswith(name)))


def status(page: Any) -> str:
    return str(page.locator("#explore-panel [role=status]").inner_text())


def canvas(page: Any) -> Any:
    found = page.locator(".stage canvas").last
    found.scroll_into_view_if_needed()
    return found


def picture(page: Any) -> str:
    return str(page.locator(".stage canvas").first.evaluate("canvas => canvas.toDataURL()"))


def records(file: Path, run: str, split: str) -> list[dict[str, Any]]:
    log = next((file.parents[1] / "runs").glob(f"*{run}")) / "metrics.jsonl"
    return [r for line in log.read_text().splitlines() if (r := json.loads(line))["split"] == split]


def only(page: Any, *runs: str) -> None:
    """Untick all runs but these."""
    page.get_by_label("Draw all these runs").set_checked(False)
    for run in runs:
        page.locator(f"[data-key='box {run}']").set_checked(True)


def read(page: Any, *keys: str) -> str:
    """What is said after these keys on the chart."""
    found = canvas(page)
    found.focus()
    for key in keys:
        found.press(key)
    return str(page.locator(".said").inner_text())


def said_value(text: str) -> float:
    """The number in `ARM, seed 0 (hash), VALUE, step 400, done`."""
    found = re.search(r"\([0-9a-f]{6}\), (?:[^,]*: )?(-?[\d.e+-]+), ", text)
    assert found, text
    return float(found[1])


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_curves_of_the_chosen_runs_lie_over_each_other(page: Any) -> None:
    assert status(page).startswith("18 runs, 18 curves.")
    everything = picture(page)
    page.locator(f"[data-key='box {BASE}']").set_checked(False)
    assert status(page).startswith("17 runs, 17 curves.")
    assert picture(page) != everything
    page.get_by_label("Draw all these runs").set_checked(True)
    assert status(page).startswith("18 runs, 18 curves.")
    assert picture(page) == everything


def test_it_opens_with_the_sweep_of_the_first_card(shared: Any) -> None:
    shared.reload()
    shared.locator(".runs tbody tr").first.wait_for()
    first = shared.locator(".card h3 a").first.get_attribute("href").removeprefix("#")
    chosen = shared.get_by_label("Sweep", exact=True).locator("option:checked").inner_text()
    assert chosen.startswith(first.rpartition("-")[0])


def test_runs_are_filtered_by_any_setting_number_state_and_word(page: Any) -> None:
    page.get_by_label("Sweep", exact=True).select_option(label="all")
    counts = {
        "aux.coef=0.1|0.2": 49,  # whatever a sweep asked for: 0.1 is the default
         "aux.coef>=0.4 balancer=aux": 6, "lr_split.expert=0.5": 9, "state!=done": 4,
        "val_loss<4.46 seed=0": 1, "state=failed": 1, "no luck": 1, '"no luck"': 1, "balancer=lossfree": 3,
        "aux.coef=–": 1, "aux.coef=none": 0, "aux.coef!=–": 58, "nothingofthekind": 0,
    }  # fmt: skip
    for query, count in counts.items():
        page.get_by_label("Filter").fill(query)
        assert page.locator(".runs tbody tr").count() == count, query
    page.get_by_label("Filter").fill("aux.coeff=0.1")
    assert "Nothing is called aux.coeff." in page.locator("#explore-problem").inner_text()
    assert "aux.coef" in page.locator("#explore-problem").inner_text()
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".runs tbody tr").count() == 59
    assert page.locator("#explore-problem").inner_text() == ""


def matching(page: Any, query: str) -> list[str]:
    """Arms and seeds of the runs that a filter keeps."""
    page.get_by_label("Filter").fill(query)
    rows = page.locator(".runs tbody tr")
    return [str(rows.nth(i).locator("td.arm").inner_text()).strip() for i in range(rows.count())]


def test_a_number_that_is_mistyped_is_a_problem_and_leaves_every_run(page: Any) -> None:
    for query, said in {
        "val_loss<4,2": "val_loss<4,2 is left out: there is no number behind <.",
        "val_loss>=abc": "val_loss>=abc is left out: there is no number behind >=.",
        "val_loss<": "val_loss< is left out: there is no number behind <.",
        "val_loss=4,2": "val_loss=4,2 is left out: “4,2” is no number.",
    }.items():
        assert len(matching(page, query)) == 18, query
        assert page.locator("#explore-problem").inner_text() == said
    assert len(matching(page, "val_loss<4.46")) < 18
    assert page.locator("#explore-problem").inner_text() == ""


def test_a_number_is_found_as_the_table_prints_it(page: Any, file: Path) -> None:
    folder = next((file.parents[1] / "runs").glob(f"*{OTHER}"))
    loss = json.loads((folder / "summary.json").read_text())["val_loss"]
    assert len(matching(page, f"val_loss={loss:.4f}")) == 1
    assert len(matching(page, f"val_loss={loss:.2f}")) == 0  # the table prints no such number
    assert len(matching(page, "tokens=409,600")) == len(matching(page, "tokens=409600")) == 18
    assert len(matching(page, "tokens<409,600")) == 0
    assert page.locator("#explore-problem").inner_text() == ""


ODD = ("none", "a|b", 'say "x"', "two words", "–", "a")


@pytest.fixture
def odd(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """Runs of a setting with odd values, and one that has no such setting."""
    content = manifest_content(1, tuple(("aux", 0.1 + i / 10) for i in range(len(ODD) + 1)))
    for value, run in zip((*ODD, None), content["runs"].values(), strict=True):
        run["settings"] = {"other": "x"} if value is None else {"name": value}
    make_manifest(tmp_path / "runs", content)
    found = opened(chromium, write_page(tmp_path))
    found.locator(".runs tbody tr").first.wait_for()
    yield found
    assert found.seen["errors"] == found.seen["console"] == []
    found.close()


def test_every_value_of_the_list_chooses_its_own_runs(odd: Any) -> None:
    odd.get_by_label("Setting", exact=True).select_option("name")
    options = odd.get_by_label("Value", exact=True).locator("option")
    values = [options.nth(i).get_attribute("value") for i in range(1, options.count())]
    assert len(set(values)) == len(ODD) + 1
    found = []
    for place, value in enumerate(values, 1):
        odd.get_by_label("Value", exact=True).select_option(index=place)
        assert odd.get_by_label("Value", exact=True).input_value() == value
        assert odd.locator(".runs tbody tr").count() == 1, value
        found.append(odd.locator(".runs tbody td.arm").inner_text().strip())
    assert sorted(found) == sorted(["other=x", *(f"name={value}" for value in ODD)])
    assert matching(odd, "name=none") == ["name=none"]
    assert matching(odd, "name=–") == ["other=x"]
    assert matching(odd, 'name="–"|"a|b"') == ["name=a|b", "name=–"]
    assert matching(odd, "name=a|b") == ["name=a"]
    assert matching(odd, 'name="say ""x"""') == ['name=say "x"']


def test_a_setting_is_chosen_from_a_list(page: Any) -> None:
    page.get_by_label("Setting", exact=True).select_option("aux.coef")
    page.get_by_label("Value", exact=True).select_option("0.4")
    assert page.get_by_label("Filter").input_value() == "aux.coef=0.4"
    assert page.locator(".runs tbody tr").count() == 3
    assert page.get_by_label("Value", exact=True).input_value() == "0.4"
    page.get_by_label("Value", exact=True).select_option("")
    assert page.locator(".runs tbody tr").count() == 18


@pytest.mark.parametrize("title", ["val loss", "seed", "aux.coef", "balancer"])
def test_the_table_sorts_by_every_column_and_turns_round(page: Any, title: str) -> None:
    def cells() -> list[str]:
        heads = page.locator(".runs thead th").all_inner_texts()
        return [str(t) for t in page.locator(f".runs tbody td:nth-child({heads.index(title) + 1})").all_inner_texts()]

    def key(text: str) -> tuple[bool, Any]:
        return (text == "–", float(text) if re.fullmatch(r"[\d.]+", text) else text.strip())

    page.locator(".runs thead").get_by_role("button", name=title, exact=True).click()
    rising = cells()
    assert rising == sorted(rising, key=key)
    assert len(set(rising)) > 1
    head = page.locator(".runs thead th[aria-sort=ascending]")
    assert head.inner_text() == title
    head.get_by_role("button").press("Enter")  # by the keyboard, which stays where it was
    assert page.locator(".runs thead th[aria-sort=descending]").inner_text() == title
    assert page.evaluate("document.activeElement.textContent") == title
    known = [text for text in cells() if text != "–"]
    assert known == sorted(known, key=key, reverse=True)
    assert cells()[len(known) :] == ["–"] * (18 - len(known))


# --- curves -----------------------------------------------------------------------------------------------------------


def test_every_number_of_both_logs_can_be_drawn(page: Any, file: Path) -> None:
    found = page.get_by_label("Number", exact=True).locator("option").all_inner_texts()
    logged = {f"{r['split']} {key}" for s in ("train", "val") for r in records(file, BASE, s) for key in r}
    assert set(found) >= {name for name in logged if name.split()[1] not in ("step", "split")}
    assert {"routing, train load_LE", "routing, train lr", "routing, train maxvio_batch_L"} <= set(found)
    page.get_by_label("Number", exact=True).select_option(label="routing, train load_LE")
    assert status(page).startswith("1 run, 8 curves.")
    assert "17 chosen without this number" in status(page)
    page.get_by_label("Part", exact=True).select_option("layer 1, expert 2")
    assert status(page).startswith("1 run, 1 curve.")


def test_the_keyboard_reads_values_by_step_tokens_and_seconds(page: Any, file: Path) -> None:
    only(page, OTHER)
    last = records(file, OTHER, "val")[-1]
    for axis, words in (("step", "step 400"), ("tokens", "training tokens 409,600"), ("seconds", "training steps 40")):
        page.get_by_label("Over", exact=True).select_option(axis)
        text = read(page, "ArrowUp")
        assert words in text
        assert said_value(text) == pytest.approx(last["loss"], abs=1e-4)
    page.get_by_label("Number", exact=True).select_option(label="train loss")
    page.get_by_label("Over", exact=True).select_option("seconds")
    text = read(page, "ArrowUp", "ArrowLeft")
    assert "training steps 39" in text  # between evaluations at 36 s and 40 s
    assert said_value(text) == pytest.approx(records(file, OTHER, "train")[-2]["loss"], abs=1e-4)


# What is drawn from now on: texts, ends of lines that cannot be drawn, and points.
WATCH = """() => { const p = CanvasRenderingContext2D.prototype; window.seen = {texts: [], wrong: 0, lines: 0, dots: 0};
    const watch = (name, tell) => { const old = p[name]; p[name] = function (...a) { tell(a); return old.apply(this, a); }; };
    watch("fillText", a => seen.texts.push(a[0]));
    watch("arc", () => { seen.dots++; });
    for (const name of ["lineTo", "moveTo"]) watch(name, a => { if (!a.every(isFinite)) seen.wrong++; });
    watch("lineTo", () => { seen.lines++; }); }"""  # noqa: E501


def drawn(page: Any, label: str) -> dict[str, Any]:
    """What is drawn when this number is chosen. The lines of the grid, one for each tick, are not counted."""
    page.get_by_label("Over", exact=True).select_option("step")
    page.evaluate("() => { window.seen.texts = []; seen.wrong = seen.lines = seen.dots = 0; }")
    page.get_by_label("Number", exact=True).select_option(label=label)
    found: dict[str, Any] = page.evaluate("() => window.seen")
    found["lines"] -= sum(re.fullmatch(r"[-\d.,KM]+", text) is not None for text in found["texts"])
    return found


@pytest.fixture
def gaps(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """One run with gaps, zeros and shares in its log."""
    logged = {
        "gappy": (1, None, 2, None, 3),
        "zeros": (1, 0, 2, 4, -1),
        "low": (0, -1, -2, 0, -3),
        "loss": (5, 4, 3, 2, 1),
    }
    lines = [{"step": 10 * i, "split": "train"} | {k: v[i] for k, v in logged.items()} for i in range(5)]
    lines += [{"step": 10 * i, "split": "val", "tokens": 512, "accuracy": 0.2346 + i / 100} for i in range(2)]
    write_lines(make_run(tmp_path / "runs").path / "metrics.jsonl", lines)
    make_manifest(tmp_path / "runs", manifest_content(1, (("aux", 0.1),)))
    found = opened(chromium, write_page(tmp_path))
    found.locator(".runs tbody tr").first.wait_for()
    found.evaluate(WATCH)
    yield found
    assert found.seen["errors"] == found.seen["console"] == []
    found.close()


def test_a_curve_has_the_unit_of_the_table(gaps: Any) -> None:
    assert "next-token accuracy (%)" in drawn(gaps, "val accuracy")["texts"]
    assert said_value(read(gaps, "ArrowUp", "ArrowLeft")) == pytest.approx(23.46, abs=0.001)
    assert "train loss (nats a token)" in drawn(gaps, "train loss")["texts"]
    assert "train gappy" in drawn(gaps, "train gappy")["texts"]
    gaps.get_by_label("Difference to").select_option(index=1)
    assert "difference to the baseline: next-token accuracy (%)" in drawn(gaps, "val accuracy")["texts"]


def test_points_between_gaps_are_drawn_and_can_be_pointed_at(gaps: Any) -> None:
    found = drawn(gaps, "train gappy")
    assert (found["dots"], found["lines"], found["wrong"]) == (3, 0, 0)
    box = canvas(gaps).bounding_box()
    gaps.mouse.move(box["x"] + box["width"] - 22, box["y"] + 26)  # the last and highest
    assert "3" in gaps.locator(".tip").inner_text().split("\n")


def test_what_has_no_place_on_a_log_axis_is_counted_and_no_line_crosses_it(gaps: Any) -> None:
    assert drawn(gaps, "train zeros")["lines"] == 4
    drawn(gaps, "train loss")
    gaps.get_by_label("log y").check()
    assert "no place on a log axis" not in status(gaps)
    found = drawn(gaps, "train zeros")
    assert (found["dots"], found["lines"], found["wrong"]) == (1, 1, 0)  # 1 alone; from 2 to 4; neither 0 nor -1
    assert "2 values ≤ 0 have no place on a log axis." in status(gaps)
    found = drawn(gaps, "train low")
    assert "No value > 0: a log axis has no place for the others." in found["texts"]
    assert "5 values ≤ 0 have no place on a log axis." in status(gaps)


def test_smoothing_is_off_until_it_is_asked_for(page: Any, file: Path) -> None:
    only(page, OTHER)
    page.get_by_label("Number", exact=True).select_option(label="train loss")
    losses = [r["loss"] for r in records(file, OTHER, "train")]
    assert page.get_by_label("Smoothing").first.input_value() == "0"
    assert said_value(read(page, "ArrowUp")) == pytest.approx(losses[-1], abs=1e-4)
    page.get_by_label("Smoothing").first.fill("0.9")
    assert "what you see is not what was logged" in status(page)
    weights = [0.9 ** (len(losses) - 1 - i) for i in range(len(losses))]
    mean = sum(w * v for w, v in zip(weights, losses, strict=True)) / sum(weights)
    assert said_value(read(page, "ArrowUp")) == pytest.approx(mean, abs=1e-4)


def test_differences_to_a_pinned_baseline(page: Any, file: Path) -> None:
    only(page, OTHER)
    page.get_by_label("Number", exact=True).select_option(label="train loss")
    options = page.get_by_label("Difference to").locator("option").all_inner_texts()
    page.get_by_label("Difference to").select_option(label=next(text for text in options if BASE[:6] in text))
    ends = [records(file, run, "train")[-1]["loss"] for run in (OTHER, BASE)]
    assert said_value(read(page, "ArrowUp")) == pytest.approx(ends[0] - ends[1], abs=3e-4)
    assert "test nothing" in status(page)
    only(page, BASE)
    assert said_value(read(page, "ArrowUp")) == 0
    page.get_by_label("Number", exact=True).select_option(label="routing, train load_LE")
    only(page, ROUTED)
    assert "8 curves that the baseline has not" in status(page)


def test_the_pointer_names_the_run_and_a_click_tells_all_of_it(page: Any, file: Path) -> None:
    only(page, OTHER)
    place = page.evaluate("""() => { const c = document.querySelector(".stage canvas"), p = c.getContext("2d"), ratio = devicePixelRatio;
        const {data, width} = p.getImageData(0, 0, c.width, c.height);
        for (let x = Math.round(width / 2); ; x++) for (let y = 20; y < 380; y++) {
          const i = 4 * (y * width + x);
          if (data[i + 3] > 200 && Math.max(data[i], data[i+1], data[i+2]) - Math.min(data[i], data[i+1], data[i+2]) > 90) return [x / ratio, y / ratio];
        } }""")  # a coloured pixel: the curve  # noqa: E501
    box = canvas(page).bounding_box()
    x, y = box["x"] + place[0], box["y"] + place[1]
    assert page.locator(".tip").is_hidden()
    page.mouse.move(x, y)
    tip = page.locator(".tip").inner_text()
    assert OTHER[:6] in tip
    assert "aux.coef=0.4" in tip
    page.mouse.down()
    page.mouse.up()
    facts = page.locator(".facts").inner_text()
    assert f"proxy-aux-{OTHER}" in facts
    assert page.locator(".facts a").first.get_attribute("href") == f"../runs/proxy-aux-{OTHER}/"
    page.mouse.move(5, 5)
    assert page.locator(".tip").is_hidden()


def test_zoom_by_dragging_buttons_and_keys(page: Any) -> None:
    whole = picture(page)
    box = canvas(page).bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 700, box["y"] + 250, steps=4)
    page.mouse.up()
    dragged = picture(page)
    canvas(page).dblclick(position={"x": 400, "y": 100})
    again = picture(page)
    canvas(page).press("+")
    nearer = picture(page)
    page.get_by_role("button", name="Zoom out").click()
    page.get_by_role("button", name="Whole").click()
    last = picture(page)
    page.get_by_role("button", name="The end alone").click()
    assert whole == again == last
    assert len({whole, dragged, nearer, picture(page)}) == 4
    canvas(page).press("0")
    assert picture(page) == whole


def test_the_curves_are_there_as_a_table(page: Any, file: Path) -> None:
    only(page, OTHER, BASE)
    page.get_by_text("These curves as a table").click()
    rows = page.locator(".values tbody tr")
    rows.first.wait_for()
    assert rows.count() == 2
    cells = rows.filter(has_text=OTHER[:6]).locator("td").all_inner_texts()
    assert float(cells[-1]) == pytest.approx(records(file, OTHER, "val")[-1]["loss"], abs=1e-4)
    assert float(cells[0]) == pytest.approx(records(file, OTHER, "val")[0]["loss"], abs=1e-4)


# --- the other charts -------------------------------------------------------------------------------------------------


def test_the_tradeoff_names_the_run_under_the_pointer(page: Any) -> None:
    page.get_by_role("tab", name="Trade-off").click()
    assert status(page).startswith("18 runs.")
    text = read(page, "ArrowRight")
    box = canvas(page).bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    found = set()
    for x in range(70, int(box["width"]) - 15, 9):
        for y in (40, 90, 140, 190, 240, 290, 340, 380):
            page.mouse.move(box["x"] + x, box["y"] + y)
            if page.locator(".tip").is_visible():
                found.add(page.locator(".tip strong").inner_text())
        if found:
            break
    assert len(found) >= 1
    assert re.search(r"val loss 4\.\d+, MaxVio global \d", text)


def test_the_heat_map_is_a_table_of_means_that_names_its_runs(page: Any, file: Path) -> None:
    choose_sweep(page, "lr_split")
    page.get_by_role("tab", name="Heat map").click()
    assert page.get_by_label("Rows", exact=True).input_value() == "lr_split.dense"  # those of tables/lr_split.yaml
    assert page.get_by_label("Columns", exact=True).input_value() == "lr_split.expert"
    page.get_by_label("Rows", exact=True).select_option("seed")
    page.get_by_label("Rows", exact=True).select_option("lr_split.dense")
    page.get_by_label("Columns", exact=True).select_option("lr_split.expert")
    head = page.locator(".heat thead th").all_inner_texts()
    assert head[1:] == ["0.1", "0.5", "1", "2"]
    cell = page.locator(".heat tbody tr").first.locator("td").nth(1)
    runs = [short_hash({"lr_split.dense": "0.5", "lr_split.expert": "0.5"}, seed) for seed in range(3)]
    folders = [next((file.parents[1] / "runs").glob(f"*{run}")) for run in runs]
    losses = [json.loads((folder / "summary.json").read_text())["val_loss"] for folder in folders]
    assert cell.inner_text() == f"{sum(losses) / 3:.4f} n=3"
    cell.hover()
    assert all(run[:6] in status(page) for run in runs)
    page.locator(".heat tbody td").last.focus()
    assert runs[0][:6] not in status(page)


def test_parallel_coordinates_filter_by_dragging_along_an_axis(page: Any) -> None:
    page.get_by_role("tab", name="Parallel coordinates").click()
    assert status(page).startswith("18 runs.")
    assert "val loss: 4." in read(page, "ArrowUp")
    box = canvas(page).bounding_box()
    right = box["x"] + box["width"] - 60  # the axis of the loss
    page.mouse.move(right, box["y"] + 250)
    page.mouse.down()
    page.mouse.move(right, box["y"] + box["height"] - 20, steps=4)
    page.mouse.up()
    query = page.get_by_label("Filter").input_value()
    limit = float(query.removeprefix("val_loss<="))
    losses = [float(text) for text in page.locator(".runs tbody td:nth-child(5)").all_inner_texts()]
    assert 0 < len(losses) < 18
    assert max(losses) <= limit + 1e-4
    page.get_by_text("Choose the axes").click()
    page.locator("#explore-panel").get_by_label("perplexity").check()
    assert "perplexity" in read(page, "ArrowUp")


def test_why_a_run_failed_and_where_its_traceback_is(page: Any) -> None:
    choose_sweep(page, "lr_split")
    page.get_by_label("Filter").fill("state=failed")
    page.locator(".runs tbody .link").click()
    assert "ValueError: no luck" in page.locator(".facts").inner_text()
    links = page.eval_on_selector_all(".facts a", "links => links.map(a => a.getAttribute('href'))")
    assert any(link.endswith("/traceback.txt") for link in links)
    anchor = next(link for link in links if link.startswith("#"))
    page.locator(f".facts a[href='{anchor}']").click()
    assert page.locator(f"[id='{anchor[1:]}']").is_visible()


# --- for everybody, everywhere ----------------------------------------------------------------------------------------


def test_every_control_has_a_name_and_tabs_follow_the_arrows(page: Any) -> None:
    for tab in ("Curves", "Trade-off", "Heat map", "Parallel coordinates"):
        assert page.locator("[role=tab][aria-selected=true]").inner_text() == tab
        nameless = page.evaluate("""() => [...document.querySelectorAll("[id='.explore'] *")]
            .filter(e => e.matches("input, select, button, canvas[tabindex]"))
            .filter(e => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()))
            .map(e => e.outerHTML)""")
        assert nameless == []
        page.locator("[role=tab][aria-selected=true]").press("ArrowRight")
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Curves"


@pytest.mark.parametrize("tab", ["Curves", "Trade-off", "Heat map", "Parallel coordinates"])
def test_it_fits_a_phone(page: Any, tab: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_role("tab", name=tab).click()
    wait_until(lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    page.set_viewport_size({"width": 1280, "height": 900})


# The largest of red, green and blue of the coloured pixels.
BRIGHTEST = """() => { const c = document.querySelector(".stage canvas");
    const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    let best = 0;
    for (let i = 0; i < d.length; i += 4) {
      const low = Math.min(d[i], d[i + 1], d[i + 2]), high = Math.max(d[i], d[i + 1], d[i + 2]);
      if (d[i + 3] === 255 && high - low > 60) best = Math.max(best, high);
    }
    return best; }"""


def test_dark_is_drawn_in_lighter_colours_and_paper_turns_them_round(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    wait_until(lambda: page.evaluate(BRIGHTEST) > 200)
    dark = picture(page)
    turned = "getComputedStyle(document.querySelector('.stage canvas')).filter"
    assert page.evaluate(turned) == "none"
    page.emulate_media(media="print")
    assert page.evaluate(turned).startswith("invert(1)")
    page.emulate_media(media="screen")
    wait_until(lambda: picture(page) == dark)
    page.emulate_media(color_scheme="light")
    wait_until(lambda: page.evaluate(BRIGHTEST) < 200)
    page.emulate_media(media="print")
    assert page.evaluate(turned) == "none"
    assert page.evaluate(BRIGHTEST) < 200
    assert page.locator("[id='.explore'] .controls").first.is_hidden()
    page.emulate_media(media="screen")


def test_without_javascript_or_decompression_the_page_says_what_is_missing(chromium: Any, file: Path) -> None:
    page = opened(chromium, file, java_script_enabled=False)
    assert "needs JavaScript" in page.locator("[id='.explorer']").inner_text()
    assert page.locator("table").count() > 3
    page.close()
    page = chromium.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(file.as_uri())
    page.get_by_text("This browser cannot show the interactive part").wait_for()
    assert page.locator("table").count() > 3
    page.close()


HOSTILE = "</script><img src=x onerror=window.hit=1><script>window.hit=2</script>\u202e{{7*7}}${7*7}`'\"&amp;"


def test_names_are_text_and_the_policy_stops_all_else(chromium: Any, tmp_path: Path) -> None:
    content = manifest_content(2, (("aux", 0.1), ("aux", 0.2)))
    for run in content["runs"].values():
        run["label"] = HOSTILE
        run["settings"] = {HOSTILE: HOSTILE + run["arm"]}
    content["name"] = HOSTILE
    for coef in (0.1, 0.2):
        run = make_run(tmp_path / "runs", coef=coef)
        write_lines(run.path / "metrics.jsonl", [{"step": s, "split": HOSTILE, HOSTILE: s} for s in range(3)])
        write_lines(run.path / "routing.jsonl", [{"step": s, "split": "train", "lr": {HOSTILE: s}} for s in range(3)])
    make_manifest(tmp_path / "runs", content, file={"name": HOSTILE, "question": HOSTILE})
    page = opened(chromium, write_page(tmp_path))
    page.locator(".runs tbody tr").first.wait_for()
    shown = HOSTILE.replace("\u202e", "\ufffd")
    for option in page.get_by_label("Number", exact=True).locator("option").all_inner_texts():
        page.get_by_label("Number", exact=True).select_option(label=option)
        read(page, "ArrowUp")
    for tab in ("Trade-off", "Heat map", "Parallel coordinates", "Curves"):
        page.get_by_role("tab", name=tab).click()
    page.locator(".runs tbody .link").first.click()
    assert shown in page.locator(".facts").inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("window.hit") is None
    assert page.seen["errors"] == page.seen["console"] == []
    page.evaluate("""() => { const s = document.createElement("script"); s.textContent = "window.hit = 3";
        document.body.append(s);
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hit = 4'>"); }""")
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', e => e.name)") == "TypeError"
    assert page.evaluate("window.hit") is None
    assert any("Content Security Policy" in text for text in page.seen["console"])
    page.close()


def test_an_empty_suite_has_an_empty_explorer(chromium: Any, tmp_path: Path) -> None:
    make_manifest(tmp_path / "runs", manifest_content(1))
    page = opened(chromium, write_page(tmp_path))
    page.locator(".runs tbody tr").first.wait_for()
    assert page.locator(".runs tbody tr").count() == 4  # planned, none with a folder
    for tab in ("Trade-off", "Heat map", "Parallel coordinates", "Curves"):
        page.get_by_role("tab", name=tab).click()
    assert page.seen["errors"] == page.seen["console"] == []
    page.close()


def test_the_keyboard_stays_on_the_control_that_it_used(page: Any) -> None:
    for label, value in (("Number", "train loss"), ("Over", "tokens"), ("Sweep", "all"), ("Colours", "seed")):
        control = page.get_by_label(label, exact=True)
        control.focus()
        control.select_option(label=value)
        assert page.evaluate("document.activeElement.labels?.[0]?.textContent") == label
    box = page.locator(f"[data-key='box {BASE}']")
    box.press(" ")
    assert page.evaluate("document.activeElement.dataset.key") == f"box {BASE}"
    assert not box.is_checked()


def test_a_baseline_stays_where_the_filter_hides_it(page: Any) -> None:
    options = page.get_by_label("Difference to").locator("option").all_inner_texts()
    page.get_by_label("Difference to").select_option(label=next(text for text in options if BASE[:6] in text))
    page.get_by_label("Filter").fill("aux.coef=0.4")
    assert BASE[:6] in page.get_by_label("Difference to").locator("option:checked").inner_text()
    assert status(page).startswith("3 runs, 3 curves.")
    choose_sweep(page, "lr_split")
    assert BASE[:6] in page.get_by_label("Difference to").locator("option:checked").text_content()


def test_neighbours_differ_in_colour_dash_and_mark(page: Any) -> None:
    page.get_by_label("Colours").select_option("run")
    lines = page.eval_on_selector_all(
        ".runs tbody svg line", "all => all.map(e => [e.getAttribute('stroke'), e.getAttribute('stroke-dasharray')])"
    )
    assert len(lines) == 18
    page.get_by_role("tab", name="Trade-off").click()
    marks = page.eval_on_selector_all(
        ".legend svg > *", "all => all.map(e => (e.getAttribute('points') || '').split(' ').length)"
    )
    assert len(marks) == 18
    for i in range(17):
        assert lines[i][0] != lines[i + 1][0]
        assert lines[i][1] != lines[i + 1][1]
        assert marks[i] != marks[i + 1]


def test_forty_runs_have_forty_looks(page: Any) -> None:
    page.get_by_label("Sweep", exact=True).select_option(label="all")
    page.get_by_label("Colours").select_option("run")
    found = page.eval_on_selector_all(
        ".runs tbody svg line", "all => all.map(e => e.getAttribute('stroke') + e.getAttribute('stroke-dasharray'))"
    )
    assert len(found) == 59
    assert len(set(found[:40])) == 40
    assert all(a != b for a, b in itertools.pairwise(found))


def test_above_200_curves_the_legend_is_as_solid_as_the_lines(page: Any, chromium: Any, tmp_path: Path) -> None:
    def dashes() -> set[str]:
        found = page.eval_on_selector_all(
            "#explore-panel .legend line", "all => all.map(e => e.getAttribute('stroke-dasharray'))"
        )
        return set(found)

    assert len(dashes()) == 4
    many = [f"x{i:03d}" for i in range(210)]
    run = make_run(tmp_path / "runs")
    write_lines(run.path / "metrics.jsonl", [{"step": s, "split": "train", "loss": float(s)} for s in range(3)])
    other = make_run(tmp_path / "runs", coef=0.2)
    records = [{"step": s, "split": "train", "lr": dict.fromkeys(many, s + 1.0)} for s in range(3)]
    for each in (run, other):
        write_lines(each.path / "routing.jsonl", records)
    make_manifest(tmp_path / "runs", manifest_content(1, (("aux", 0.1), ("aux", 0.2))))
    found = opened(chromium, write_page(tmp_path))
    found.locator(".runs tbody tr").first.wait_for()
    found.get_by_label("Number", exact=True).select_option(label="routing, train lr")
    assert status(found).startswith("2 runs, 420 curves.")
    kinds = found.eval_on_selector_all(
        "#explore-panel .legend line", "all => all.map(e => e.getAttribute('stroke-dasharray'))"
    )
    assert kinds == ["none", "none"]
    found.close()
