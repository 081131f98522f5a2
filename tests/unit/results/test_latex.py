"""LaTeX: escapes, and a real engine where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from unit.results.folders import NOW, make_messy_sweep
from unit.results.suite import make_suite

from moe_sweeps.results import load_runs
from moe_sweeps.results.costs import cost_table
from moe_sweeps.results.latex import PREAMBLE, escape, latex, sheet_latex
from moe_sweeps.results.manifest import load_manifests
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.recommend import recommendations
from moe_sweeps.results.tables import ablation_table

ENGINES = ("pdflatex", "lualatex", "xelatex", "tectonic")


def test_nothing_in_a_label_is_a_command() -> None:
    assert escape(r"a_b%{c}\d#$&~^±–") == (
        r"a\_b\%\{c\}\textbackslash{}d\#\$\&\textasciitilde{}\textasciicircum{}$\pm$--"
    )


def test_costs_and_recommendations_are_tables_too(tmp_path: Path) -> None:
    make_suite(tmp_path)
    runs, (manifests, _) = load_runs(tmp_path), load_manifests(tmp_path)
    table = ablation_table(next(m for m in manifests if m.name == "aux_coef"), runs)
    text = latex(table, cost_table(table, runs))
    assert r"\label{tab:aux-coef-costs}" in text
    assert "loss, equal time" in text
    summary = recommendations([table])
    assert summary is not None
    assert r"\label{tab:all-recommended}" in sheet_latex(summary)


def test_an_engine_sets_every_table(tmp_path: Path) -> None:
    engine = next((found for name in ENGINES if (found := shutil.which(name))), None)
    if engine is None:
        pytest.skip(f"no LaTeX engine is installed ({', '.join(ENGINES)})")
    make_suite(tmp_path / "suite")
    runs, (manifests, _) = load_runs(tmp_path / "suite"), load_manifests(tmp_path / "suite")
    noise = Noise.of(runs.frame, manifests)
    tables = [ablation_table(m, runs, noise=noise) for m in manifests]
    texts = [latex(table, cost_table(table, runs)) for table in tables]
    summary = recommendations(tables)
    assert summary is not None
    texts.append(sheet_latex(summary))
    texts.append(latex(ablation_table(make_messy_sweep(tmp_path / "messy"), load_runs(tmp_path / "messy"), now=NOW)))
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
