"""Two folders of one run are compared to the last bit, and what differs is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.comparing import compare_folders, same, without_clock
from moe_sweeps.training.checkpoint import Checkpoints


def state(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "step": 3,
        "model": {"weight": torch.tensor([1.0, float("nan"), 0.0])},
        "stepper": {"state": [{"exp_avg": torch.zeros(2)}, {"exp_avg": torch.ones(2)}]},
        "clock": {"train_seconds": 1.5},
    }
    return whole | changes


def folder(path: Path, content: dict[str, Any], loss: float = 2.5, seconds: float = 1.0) -> RunDir:
    run = RunDir(path / "smoke-aux-0123456789ab")
    run.checkpoints.mkdir(parents=True)
    Checkpoints(run.checkpoints, 1).save(3, content)
    record = {"step": 3, "split": "train", "loss": loss, "tokens_per_second": 100 / seconds, "seconds_forward": seconds}
    (run.path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return run


def test_the_same_but_for_the_clock(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", state())
    other = folder(tmp_path / "other", state(clock={"train_seconds": 99.0}), seconds=7.0)
    found = compare_folders(one, other)
    assert not any(part.differences for part in found.values())
    assert {name: part.values for name, part in found.items()} == {
        "step": 1,
        "model": 1,
        "stepper": 2,
        "metrics.jsonl": 1,
        "routing.jsonl": 0,
    }


def named(one: RunDir, other: RunDir) -> list[str]:
    return [f"{name}: {text}" for name, part in compare_folders(one, other).items() for text in part.differences]


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "a bit of a weight": (
        {"model": {"weight": torch.tensor([1.0, float("nan"), -0.0])}},
        "model: weight (1 of 3, by up to 0)",
    ),
    "a moment": (
        {"stepper": {"state": [{"exp_avg": torch.zeros(2)}, {"exp_avg": torch.tensor([1.0, 1.5])}]}},
        "stepper: state.1.exp_avg (1 of 2, by up to 0.5)",
    ),
    "a number": ({"step": 4}, "step: (3 and 4)"),
    "a part that is missing": ({"model": {}}, "model: weight (torch.float32 of shape (3,) and nothing)"),
}


@pytest.mark.parametrize(("change", "expected"), CHANGED.values(), ids=CHANGED.keys())
def test_what_differs_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    one, other = folder(tmp_path / "one", state()), folder(tmp_path / "two", state(**change))
    assert named(one, other) == [expected]


def test_a_line_of_a_log_that_differs_is_named(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "one", state()), folder(tmp_path / "two", state(), loss=2.5000001)
    assert named(one, other) == ["metrics.jsonl: line 1 (loss)"]


def test_a_run_without_a_checkpoint_cannot_be_compared(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "one", state()), folder(tmp_path / "two", state())
    Checkpoints(other.checkpoints, 1)._remove(3)
    with pytest.raises(MoeSweepsError, match="without an intact checkpoint"):
        compare_folders(one, other)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (float("nan"), float("nan"), True),
        (0.0, -0.0, False),
        (1, 1.0, False),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), False),
        (torch.zeros(2), torch.zeros(1, 2), False),
        (torch.zeros(()), torch.zeros(()), True),
        (torch.ones(2), None, False),
    ],
)
def test_the_same_is_meant_literally(one: Any, other: Any, alike: bool) -> None:
    assert same(one, other) is alike


def test_what_depends_on_the_clock_is_left_out() -> None:
    record = {"loss": 2.0, "tokens_per_second": 1.0, "seconds_optimizer": 3.0, "peak_memory_mb": 4.0}
    assert without_clock(record) == {"loss": 2.0}
