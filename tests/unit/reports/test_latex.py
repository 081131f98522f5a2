"""LaTeX: escapes, and a real engine where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from unit.results.folders import NOW, make_messy_sweep
from unit.results.suite import make_suite

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.reports.latex import MOST_LINES, PREAMBLE, blocks, escape, latex, pages, sheet_latex
from moe_sweeps.reports.recommend import recommendations
from moe_sweeps.reports.scorecard import scorecard_sheet
from moe_sweeps.reports.sheets import Cell, Sheet, text_cell
from moe_sweeps.results.claims import judge
from moe_sweeps.results.costs import cost_table
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table

ENGINES = ("pdflatex", "lualatex", "xelatex", "tectonic")


def test_nothing_in_a_label_is_a_command() -> None:
    assert escape(r"a_b%{c}\d#$&~^±–") == (
        r"a\_b\%\{c\}\textbackslash{}d\#\$\&\textasciitilde{}\textasciicircum{}$\pm$--"
    )


def test_costs_and_recommendations_are_tables_too(tmp_path: Path) -> None:
    make_suite(tmp_path)
    runs, (manifests, _) = read_runs(tmp_path), load_manifests(tmp_path)
    table = ablation_table(next(m for m in manifests if m.name == "aux_coef"), runs)
    text = latex(table, cost_table(table, runs))
    assert r"\label{tab:aux-coef-costs}" in text
    assert "loss, equal time" in text
    summary = recommendations([table])
    assert summary is not None
    assert r"\label{tab:all-recommended}" in sheet_latex(summary)


def wide_sheet(columns: int, rows: int, words: int) -> Sheet:
    titles = ("arm", *(f"number {i}" for i in range(columns)))
    row = (text_cell("word " * words), *(Cell(f"{i}.123456 ± 0.123456", float(i)) for i in range(columns)))
    return Sheet("wide", "Wide", titles, (False, *[True] * columns), (row,) * rows)


def test_a_wide_sheet_is_split_by_columns_and_never_set_below_seven_points() -> None:
    sheet = wide_sheet(12, 3, 2)
    found = blocks(sheet)
    assert all(block[0] == 0 for block in found)
    assert [place for block in found for place in block[1:]] == list(range(1, 13))
    text = sheet_latex(sheet)
    assert text.count(r"\begin{tabular}") == len(found) > 1
    assert text.count(r"\label{") == 1
    sizes = [float(size) for size in re.findall(r"\\fontsize\{([\d.]+)\}", text)]
    assert len(sizes) == len(found)
    assert min(sizes) >= 7
    assert "resizebox" not in text


def test_a_long_sheet_is_split_by_rows_and_loses_none() -> None:
    sheet = wide_sheet(1, 120, 20)
    found = pages(sheet)
    assert [row for page in found for row in page] == list(range(120))
    assert max(len(page) for page in found) * 3 <= MOST_LINES
    assert sheet_latex(sheet).count("0.123456 $") == 120


def test_statements_are_a_table_too(tmp_path: Path) -> None:
    make_suite(tmp_path)
    runs, (manifests, _) = read_runs(tmp_path), load_manifests(tmp_path)
    table = ablation_table(next(m for m in manifests if m.name == "aux_coef"), runs)
    sheet = scorecard_sheet([(table, judge(table))])
    assert sheet is not None
    text = sheet_latex(sheet)
    assert text.count("0.6 is better than 0.1.") == len(blocks(sheet))
    assert r"\label{tab:all-scorecard}" in text
    assert len(sheet.rows) == 4


def test_an_engine_sets_every_table(tmp_path: Path) -> None:
    engine = next((found for name in ENGINES if (found := shutil.which(name))), None)
    if engine is None:
        pytest.skip(f"no LaTeX engine is installed ({', '.join(ENGINES)})")
    make_suite(tmp_path / "suite")
    runs, (manifests, _) = read_runs(tmp_path / "suite"), load_manifests(tmp_path / "suite")
    noise = Noise.of(runs, manifests)
    tables = [ablation_table(m, runs, noise=noise) for m in manifests]
    texts = [latex(table, cost_table(table, runs)) for table in tables]
    summary = recommendations(tables)
    assert summary is not None
    texts.append(sheet_latex(summary))
    claims = scorecard_sheet([(table, judge(table)) for table in tables])
    assert claims is not None
    texts.append(sheet_latex(claims))
    texts.append(latex(ablation_table(make_messy_sweep(tmp_path / "messy"), read_runs(tmp_path / "messy"), now=NOW)))
    body = "\n".join(f"{text}\\clearpage" for text in texts)
    source = f"\\documentclass{{article}}{PREAMBLE}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "paper.tex").write_text(source)
    done = subprocess.run(
        [engine, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Missing character" not in done.stdout
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
