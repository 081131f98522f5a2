"""LaTeX: escapes, and a real engine where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from unit.results.folders import NOW, make_messy_sweep
from unit.results.suite import make_suite

from moe_sweeps.results import load_runs
from moe_sweeps.results.latex import PREAMBLE, escape, latex
from moe_sweeps.results.manifest import load_manifests
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.tables import ablation_table

ENGINES = ("pdflatex", "lualatex", "xelatex", "tectonic")


def test_nothing_in_a_label_is_a_command() -> None:
    assert escape(r"a_b%{c}\d#$&~^±–") == (
        r"a\_b\%\{c\}\textbackslash{}d\#\$\&\textasciitilde{}\textasciicircum{}$\pm$--"
    )


def test_an_engine_sets_every_table(tmp_path: Path) -> None:
    engine = next((found for name in ENGINES if (found := shutil.which(name))), None)
    if engine is None:
        pytest.skip(f"no LaTeX engine is installed ({', '.join(ENGINES)})")
    make_suite(tmp_path / "suite")
    runs, (manifests, _) = load_runs(tmp_path / "suite"), load_manifests(tmp_path / "suite")
    noise = Noise.of(runs.frame, manifests)
    texts = [latex(ablation_table(m, runs, noise=noise)) for m in manifests]
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
