"""The page with 1,000 runs of 500 records: its first paint, 1,000 curves over each other, the pointer over them.

    python benchmarks/explorer.py

Needs a Chromium (apt-get install chromium-headless-shell). Each run falls towards another loss with noise of its own,
so that nothing compresses that would not in earnest. Milliseconds are CPU time of the page's main thread; wall time
says how busy the machine was.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from at_scale import _finish, line
from playwright.sync_api import sync_playwright

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.reports.evidence import Evidence
from moe_sweeps.reports.page import html_page
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table
from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import make_plan

RUNS, RECORDS = 1000, 500
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> int:
    """Make the runs and their page, and time it."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print(f"no Chromium is installed ({', '.join(BROWSERS)})")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOE_SWEEPS_RUNS"] = f"{folder}/runs"
        page = write_page(Path(folder))
        print(f"{RUNS} runs x {RECORDS} records: index.html has {page.stat().st_size / 1e6:.2f} MB")
        with sync_playwright() as playwright:
            found = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            measure(found.new_page(viewport={"width": 1280, "height": 900}), page)
            found.close()
    return 0


def write_page(folder: Path) -> Path:
    """The page without figures, which `make tables` draws."""
    plan = make_plan(line(RUNS))
    folders = {run_id: planned.frozen("benchmark", threads=2) for run_id, planned in plan.runs.items()}
    write_manifest(replace(plan, runs={i: replace(p, folder=folders[i]) for i, p in plan.runs.items()}), "benchmark")
    for number, run in enumerate(folders.values()):
        _finish(run, number)
        (run.path / "metrics.jsonl").write_text(_log(number))
    root = next(iter(folders.values())).path.parent
    runs = read_runs(root)
    tables = [ablation_table(manifest, runs) for manifest in load_manifests(root)[0]]
    started = time.process_time()
    text = html_page([Evidence(table, None, [], {}, {}) for table in tables], None, [], folder)
    print(f"written in {time.process_time() - started:.2f} CPU s")
    (folder / "index.html").write_text(text)
    return folder / "index.html"


def _log(number: int) -> str:
    noise, level = random.Random(number), 4 + number % 97 / 500
    values = ((step, level + 3 * math.exp(-step / 80) + noise.gauss(0, 0.05)) for step in range(1, RECORDS + 1))
    return "".join(json.dumps({"step": s, "split": "train", "loss": v, "grad_norm": v / 9}) + "\n" for s, v in values)


def measure(page: Any, file: Path) -> None:
    """Print what each step of a reader costs."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable")

    def cpu() -> float:
        found = client.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(each["value"] for each in found if each["name"] == "ThreadTime"))

    def timed(what: str, act: Callable[[], object]) -> None:
        before, started = cpu(), time.perf_counter()
        act()
        page.evaluate(FRAME)
        print(f"  {what}: {cpu() - before:.0f} ms CPU, {1000 * (time.perf_counter() - started):.0f} ms wall")

    timed("open, until the table of runs is there", lambda: _open(page, file))
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"  first paint after {paint:.0f} ms wall")
    timed(f"overlay {RUNS} other curves", lambda: page.get_by_label("Number", exact=True).select_option(index=1))
    assert f"{RUNS} curves" in page.locator("#explore-panel [role=status]").inner_text()
    page.locator(".stage canvas").last.scroll_into_view_if_needed()
    box = page.locator(".stage canvas").last.bounding_box()
    timed("20 moves of the pointer over them", lambda: _move(page, box))
    assert page.locator(".tip").is_visible()
    timed("zoom", lambda: page.get_by_role("button", name="Zoom in").click())
    timed("choose 100 of them", lambda: page.get_by_label("Filter").fill("aux.coef=0.05"))
    assert errors == []


def _open(page: Any, file: Path) -> None:
    page.goto(file.as_uri())
    page.locator(".runs tbody tr").first.wait_for(timeout=120_000)


def _move(page: Any, box: dict[str, float]) -> None:
    for place in range(20):
        page.mouse.move(box["x"] + 150 + 20 * place, box["y"] + 330 - place)


if __name__ == "__main__":
    sys.exit(main())
