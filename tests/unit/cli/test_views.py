"""What a person reads: plans, progress of one run without a terminal, summaries."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers import TINY
from rich.console import Console

from moe_sweeps.cli.views import TrainingBar, print_summary
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.sweep.plan import make_plan


def recorder(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=140, force_terminal=terminal, color_system=None)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def rows(folders: Path) -> list[tuple[str, RunDir]]:
    plan = make_plan([*TINY, "balancer=aux,lossfree,none"])
    return [(p.label, p.frozen("test", threads=1)) for p in plan.runs.values()]


def test_without_a_terminal_there_is_a_line_every_tenth() -> None:
    console = recorder()
    bar = TrainingBar(console, total_steps=100)
    for step in range(5, 101, 5):
        bar.logged(step, {"loss": 6.0, "maxvio_batch": 0.5}, 1234.0)
    lines = text(console).splitlines()
    assert len(lines) == 10
    assert lines[0] == "step 10/100  loss 6.0000  MaxVio 0.50  1,234 tokens/s"


def test_the_bar_of_a_terminal_shows_everything() -> None:
    console = recorder(terminal=True)
    bar = TrainingBar(console, total_steps=100)
    with bar.progress:
        bar.logged(50, {"loss": 6.0, "maxvio_batch": 0.5}, 1234.0)
    shown = text(console)
    assert "step     50/100" in shown
    assert "loss 6.0000  MaxVio 0.50  1,234 tokens/s" in shown


def test_the_summary_of_a_diverged_run(rows: list[tuple[str, RunDir]]) -> None:
    console = recorder()
    print_summary(console, rows[0][1], {"diverged_at_step": 7, "tokens": 1000}, State.diverged)
    assert "diverged at step" in text(console)
    assert "validation loss" not in text(console)
