"""What a reader sees: golden Markdown and CSV, and the terminal at several widths."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from unit.results.folders import (
    DEMO_ARMS,
    NOW,
    make_manifest,
    make_messy_sweep,
    make_run,
    manifest_content,
    summary,
)

from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.reports.csv_file import csv_text
from moe_sweeps.reports.latex import latex
from moe_sweeps.reports.layout import sheets
from moe_sweeps.reports.markdown import markdown
from moe_sweeps.reports.notes import caption, facts, warning
from moe_sweeps.reports.suite import COMMITTED
from moe_sweeps.reports.terminal import print_table
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

GOLDEN = Path(__file__).parents[2] / "golden" / "tables"


def build(root: Path, manifest: Manifest) -> Table:
    return ablation_table(manifest, read_runs(root), now=NOW)


def clean_sweep(root: Path, seeds: int) -> Table:
    for balancer, coef in DEMO_ARMS:
        for seed in range(seeds):
            make_run(root, balancer, coef, seed)
    return build(root, make_manifest(root, manifest_content(seeds)))


def assert_golden(name: str, text: str) -> None:
    """Equal to the file of tests/golden/tables; UPDATE_GOLDEN=1 writes it, to be read before it is committed."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


def in_terminal(table: Table, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_table(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_golden_markdown_of_a_clean_sweep(tmp_path: Path) -> None:
    assert_golden("clean.md", markdown(clean_sweep(tmp_path, 3)))


@pytest.mark.parametrize(("name", "render"), [("messy.md", markdown), ("messy.csv", csv_text), ("messy.tex", latex)])
def test_golden_files_of_a_messy_sweep(tmp_path: Path, name: str, render: Callable[[Table], str]) -> None:
    """Failed, diverged, collapsed, running, stale, preempted, missing and unreadable runs, as what they are."""
    text = render(build(tmp_path, make_messy_sweep(tmp_path)))
    assert_golden(name, text)
    for mark in ("1 failed", "3 diverged", "1 collapsed", "1 running", "1 missing", "1 unreadable"):
        assert mark in text


def test_golden_csv_of_one_seed(tmp_path: Path) -> None:
    make_run(tmp_path, "aux", 0.1, 0, numbers=summary(3.0625))
    make_run(tmp_path, "lossfree", None, 0, state="failed")
    manifest = make_manifest(tmp_path, manifest_content(1, (("aux", 0.1), ("lossfree", None))))
    assert_golden("one_seed.csv", csv_text(build(tmp_path, manifest)))


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    table = clean_sweep(tmp_path, 3)
    record = next(csv.DictReader(io.StringIO(csv_text(table))))
    cell = table.arms[0].cells["val_loss"]
    found = [float(record[f"val_loss_{k}"]) for k in ("mean", "sd", "ci95_half_width")]
    assert found == [cell.mean, cell.sd, cell.half_width]
    assert record["run_ids"].split() == [run.run_id for run in table.arms[0].runs]


def test_one_seed_says_what_it_cannot_say(tmp_path: Path) -> None:
    table = clean_sweep(tmp_path, 1)
    sentence = "One seed per arm: there is no spread, and differences between arms cannot be told from seed noise."
    assert caption(table).startswith(sentence)
    assert sentence in " ".join(in_terminal(table).split())
    assert sentence in markdown(table)
    assert "±" not in in_terminal(table) + markdown(table)


def test_nothing_done(tmp_path: Path) -> None:
    table = build(tmp_path, make_manifest(tmp_path, manifest_content(20)))
    assert caption(table).startswith("No run is done.")
    assert facts(table) == "scale – · runs 0 done of 80 · tokens per run – · data – · code –"
    assert "and 68 more; table.md lists them all" in in_terminal(table)
    assert markdown(table).count(": missing, smoke-") == 80


def test_a_value_over_fewer_runs_than_the_row_claims_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1)
    make_run(tmp_path, seed=2, numbers=summary(3.2, val_maxvio_global=None))
    text = markdown(build(tmp_path, make_manifest(tmp_path, manifest_content(arms=(("aux", 0.1),)))))
    assert "| 0.762 ± 0.159 (n=2) |" in text
    assert "some runs lack numbers that others have" in text


def test_a_clean_table_with_spread_fits_a_hundred_columns_in_one_line_per_arm(tmp_path: Path) -> None:
    lines = in_terminal(clean_sweep(tmp_path, 3)).splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line.split() for line in lines if " aux " in line) == (
        [
            "aux",
            "0.1",
            "3/3",
            "3.1000",
            "±0.2484",
            "31.00",
            "±2.48",
            "31.00",
            "±2.48",
            "0.775",
            "±0.062",
            "1.550",
            "±0.124",
        ]
    )


@pytest.mark.parametrize("width", [80, 100, 160])
def test_nothing_is_cut_off_in_a_terminal(tmp_path: Path, width: int) -> None:
    text = in_terminal(build(tmp_path, make_messy_sweep(tmp_path)), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for shown in ("2/3", "0/3", "1/3", "3.0500", "±0.6353", "(n=1)", "NOT FINAL"):
        assert shown in text


def test_warnings(tmp_path: Path) -> None:
    assert warning(clean_sweep(tmp_path / "a", 1)) is None
    make_run(tmp_path / "b", code=None)
    manifest = make_manifest(tmp_path / "b", manifest_content(1, (("aux", 0.1),)))
    assert warning(build(tmp_path / "b", manifest)) == "NOT FINAL: the version of the code is unknown."


def test_labels_are_texts_and_not_markup(tmp_path: Path) -> None:
    content = manifest_content(1, DEMO_ARMS[:2])
    for i, run in enumerate(content["runs"].values()):
        run |= {"label": f"x=[bold]|a*b_{i}", "settings": {"x": f"[bold]|a*b_{i}"}}
    table = build(tmp_path, make_manifest(tmp_path, content))
    assert "[bold]|a*b_0" in in_terminal(table)
    assert "| \\[bold]\\|a\\*b\\_0 |" in markdown(table)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_committed_tables_break_no_word(width: int) -> None:
    """Paired seeds beside a verdict left `undecid` of it at 80 columns."""
    runs, (manifests, _) = read_runs(COMMITTED), load_manifests(COMMITTED)
    noise = Noise.of(runs, manifests)
    for manifest in manifests:
        shown = in_terminal(ablation_table(manifest, runs, noise=noise), width)
        for word in ("undecided", "independent", "paired", "better", "worse"):
            begun = re.findall(rf"(?<![\w-]){word[:4]}\w*", shown)
            assert all(found in (word, "pair", "pairs", "worst") for found in begun), (manifest.name, set(begun))


@pytest.mark.parametrize("width", [80, 99])
def test_a_narrow_terminal_shows_the_verdict_whole(tmp_path: Path, width: int) -> None:
    table = ablation_table(make_messy_sweep(tmp_path), read_runs(tmp_path), now=NOW)
    shown = in_terminal(table, width)
    heads = [line for line in shown.splitlines() if "p adj." in line]
    assert heads
    assert all("finding" in line and "detectable" not in line for line in heads)
    assert "Not shown at this width: detectable, P(better), n." in shown
    for sheet in sheets(table):  # every word of every cell is there in one piece
        words = {w for cells in sheet.rows for cell in cells for w in cell.text.split() if len(w) <= 24}
        hidden = {
            w
            for cells in sheet.rows
            for t, c in zip(sheet.columns, cells, strict=True)
            for w in c.text.split()
            if t in ("detectable", "P(better)", "n")
        }
        assert {w for w in words - hidden if w not in shown} == set()
    wide = in_terminal(table, 140)
    assert "detectable" in wide
    assert "Not shown at this width" not in wide
