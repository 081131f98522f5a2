"""What a person reads: plans, progress without a terminal, the live table, failures."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from helpers import TINY
from rich.console import Console

from moe_sweeps.cli.views import (
    SweepView,
    TrainingBar,
    print_failures,
    print_summary,
    status_table,
)
from moe_sweeps.rundir import Failure, RunDir, State, Status
from moe_sweeps.sweep.budget import duration
from moe_sweeps.sweep.plan import make_plan


def recorder(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=140, force_terminal=terminal, color_system=None)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def rows(folders: Path) -> list[tuple[str, RunDir]]:
    plan = make_plan([*TINY, "balancer=aux,lossfree,none"])
    return [(p.label, p.frozen("test", workers=1)) for p in plan.runs.values()]


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


def test_the_live_table(rows: list[tuple[str, RunDir]]) -> None:
    (_, first), (_, second), _ = rows
    first.write_status(Status(State.running, step=12, total_steps=24, tokens_per_step=128, tokens_per_second=64.0))
    second.write_status(Status(State.done, step=24, total_steps=24, loss=3.25, maxvio=0.125, tokens_per_second=1e4))
    console = recorder()
    console.print(status_table(rows))
    shown = [" ".join(line.split()) for line in text(console).splitlines()]
    assert shown[0] == "1 running, 1 done, 1 planned"
    assert "balancer=aux running 12/24 - - 64 24 s" in shown  # 12 steps of 128 tokens at 64 tokens/s
    assert "balancer=lossfree done 24/24 3.2500 0.12 10,000" in shown


def test_without_a_terminal_changes_of_state_are_lines(rows: list[tuple[str, RunDir]]) -> None:
    console = recorder()
    with SweepView(console, rows) as view:
        rows[1][1].write_status(Status(State.done, step=24, total_steps=24, loss=3.25))
        view.tick()
        view.tick()
    assert text(console).splitlines() == ["balancer=lossfree: done, step 24/24, loss 3.2500", ""]


def test_failures_are_listed_with_their_reason(rows: list[tuple[str, RunDir]]) -> None:
    folder = rows[0][1]
    folder.write_status(Status(State.failed, failure=Failure("ValueError", "[too] hot", "s")))
    console = recorder()
    assert print_failures(console, rows) == 1
    assert "failed balancer=aux: ValueError: [too] hot" in text(console)
    assert "log.txt" in text(console)


def test_the_summary_of_a_diverged_run(rows: list[tuple[str, RunDir]]) -> None:
    console = recorder()
    print_summary(console, rows[0][1], {"diverged_at_step": 7, "tokens": 1000}, State.diverged)
    assert "diverged at step" in text(console)
    assert "validation loss" not in text(console)


def test_durations() -> None:
    assert [duration(s) for s in (45, 192, 18_400)] == ["about 45 s", "about 3.2 min", "about 5.1 h"]


def test_a_view_of_a_thousand_runs_is_quick(rows: list[tuple[str, RunDir]]) -> None:
    start = time.perf_counter()
    table = status_table(rows * 334)
    assert time.perf_counter() - start < 3
    assert len(table.rows) == 0  # none trains or failed
