"""The notebooks of analysis/: executed, and what is committed is what they print."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from helpers import TINY
from processes import train

from analysis.execute import execute, notebooks, texts
from moe_sweeps.results.suite import COMMITTED
from moe_sweeps.rundir import RunDir

NAMES = [path.name for path in notebooks()]


@pytest.mark.parametrize("path", notebooks(), ids=NAMES)
def test_committed_outputs_are_those_of_the_committed_runs(path: Path) -> None:
    """`make notebooks` writes them anew."""
    assert texts(execute(path, COMMITTED)) == texts(nbformat.read(path, as_version=4))


def test_the_first_one_on_runs_of_ones_own(folders: Path) -> None:
    """Four real runs, trained here; the numbers that it prints are those of their summaries."""
    trained = train("-m", *TINY, "balancer=aux,lossfree", "seed=0,1")
    assert trained.returncode == 0, trained.stderr
    shown = "\n".join(texts(execute(notebooks()[0], folders)))
    assert "4 done" in shown
    for run in RunDir.all(folders):
        summary = json.loads((run.path / "summary.json").read_text())
        assert f"{summary['val_loss']:.4f}".rstrip("0") in shown
