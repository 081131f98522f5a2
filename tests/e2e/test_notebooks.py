"""The notebooks of analysis/: executed, and what is committed is what they print."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from helpers import TINY
from nbformat.v4 import new_code_cell, new_notebook, new_output
from processes import train

from analysis.execute import execute, notebooks, texts
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports.suite import COMMITTED

NAMES = [path.name for path in notebooks()]


@pytest.mark.parametrize("path", notebooks(), ids=NAMES)
def test_committed_outputs_are_those_of_the_committed_runs(path: Path) -> None:
    """`make notebooks` writes them anew."""
    assert texts(execute(path, COMMITTED)) == texts(nbformat.read(path, as_version=4))


def test_what_a_cell_prints_does_not_depend_on_the_messages_it_came_in() -> None:
    """A busy machine sends one print as two messages."""
    printed = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    warned, shown = new_output("stream", name="stderr", text="c\n"), new_output("display_data", {"text/plain": "d"})
    in_pieces = new_notebook(cells=[new_code_cell(outputs=[*printed, warned, shown, shown])])
    assert texts(in_pieces) == ["a\nb\n", "c\n", "d", "d"]


def test_the_first_one_on_runs_of_ones_own(folders: Path) -> None:
    """Four real runs, trained here; the numbers that it prints are those of their summaries."""
    trained = train("-m", *TINY, "balancer=aux,lossfree", "seed=0,1")
    assert trained.returncode == 0, trained.stderr
    shown = "\n".join(texts(execute(notebooks()[0], folders)))
    assert "4 done" in shown
    for run in RunDir.all(folders):
        summary = json.loads((run.path / "summary.json").read_text())
        assert f"{summary['val_loss']:.4f}".rstrip("0") in shown
