"""Rows: the numbers of a step under one name each, each step once and only when it is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moe_sweeps.records.rundir import MetricsLog
from moe_sweeps.tracking.rows import Row, Rows


class Run:
    """A run that logs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics, self.routing = MetricsLog(path / "metrics.jsonl"), MetricsLog(path / "routing.jsonl")

    def train(self, *steps: int, shift: float = 0.0) -> None:
        for step in steps:
            self.routing.append({"step": step, "split": "train", "dead_L": [0, step], "lr": {"expert": step / 10}})
            self.metrics.append({"step": step, "split": "train", "loss": 1 / step + shift})

    def val(self, step: int) -> None:
        self.metrics.append({"step": step, "split": "val", "loss": 2 / step})
        self.routing.append({"step": step, "split": "val", "maxvio_L": [0.5, None], "load_LE": [[1, 2], [3, 4]]})

    def truncate_after(self, step: int) -> None:
        self.metrics.truncate_after(step)
        self.routing.truncate_after(step)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def of_step(step: int) -> dict[str, Any]:
    router = {"router/dead/layer_0": 0.0, "router/dead/layer_1": float(step)}
    return {"train/loss": 1 / step, "lr/expert": step / 10} | router


def test_a_step_is_given_out_when_a_later_one_is_logged(run: Run) -> None:
    rows = Rows(run.path)
    assert list(rows.read()) == []
    run.train(4)
    assert list(rows.read()) == []
    run.val(4)
    run.train(8)
    assert list(rows.read()) == [Row(4, of_step(4) | {"val/loss": 0.5, "val/maxvio/layer_0": 0.5})]
    assert list(rows.read()) == []
    assert rows.last() == Row(8, of_step(8))
    assert rows.last() is None
    assert rows.after == 8


def test_half_a_line_waits_for_its_other_half(run: Run) -> None:
    rows = Rows(run.path)
    run.train(4)
    path = run.path / "metrics.jsonl"
    whole = path.read_text() + '{"step": 8, "split": "train", "loss": 0.125}\n'
    for end in range(len(path.read_text()), len(whole)):
        path.write_text(whole[:end])
        assert list(rows.read()) == []
    path.write_text(whole)
    assert [row.step for row in rows.read()] == [4]


def test_what_is_done_again_after_a_resume_is_not_given_out_again(run: Run) -> None:
    rows = Rows(run.path)
    run.train(4, 8, 12)
    assert [row.step for row in rows.read()] == [4, 8]
    run.truncate_after(4)
    assert list(rows.read()) == []
    run.train(8, 12, 16, shift=100)
    (row,) = rows.read()
    # Step 12 was open when the run died; the values of its new attempt count.
    assert (row.step, row.values["train/loss"]) == (12, 1 / 12 + 100)
    assert rows.last() == Row(16, of_step(16) | {"train/loss": 1 / 16 + 100})


@pytest.mark.parametrize("back_to", range(0, 21, 4))
@pytest.mark.parametrize("reads", [(), (1,), (0, 1), (0, 2), (1, 3)])
def test_each_step_once_wherever_it_is_cut_and_whenever_it_is_read(
    run: Run, back_to: int, reads: tuple[int, ...]
) -> None:
    rows, found = Rows(run.path), list[Row]()

    def read(moment: int) -> None:
        found.extend(rows.read() if moment in reads else [])

    run.train(4, 8, 12, 16, 20)
    read(0)
    run.truncate_after(back_to)
    read(1)
    run.train(*range(back_to + 4, 25, 4))
    read(2)
    run.val(24)
    run.metrics.drop(24, "val")  # the end is evaluated again when an attempt died there
    read(3)
    run.val(24)
    run.routing.append({"step": 4, "split": "saturation", "saturation_L": [0.5]})
    found.extend(rows.read())
    last = rows.last()
    assert last is not None
    assert [row.step for row in [*found, last]] == [4, 8, 12, 16, 20, 24]
    assert [row.values for row in found] == [of_step(s) for s in range(4, 21, 4)]
    assert last.values == of_step(24) | {"val/loss": 2 / 24, "val/maxvio/layer_0": 0.5}


def test_what_the_tracker_holds_is_passed_over(run: Run) -> None:
    run.train(4, 8, 12, 16)
    rows = Rows(run.path, after=8)
    assert [row.step for row in rows.read()] == [12]
    assert Rows(run.path, after=16).last() is None
