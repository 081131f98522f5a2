"""The rule of router collapse: on given MaxVio sequences, and as the outcome of real runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, TINY, compose_run, never, records, trainer, without_times

from moe_sweeps.balancing import Balancer
from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Interrupted
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.results.frame import load_runs
from moe_sweeps.training.collapse import CollapseWatch
from moe_sweeps.training.worker import run_worker

# Learning moves no weight, so that a router that is made to collapse stays so.
LINE = [
    *TINY,
    "balancer=none",
    "lr_split=static",
    "lr_split.router=0",
    "lr_split.norm=0",
    "trainer.collapse_patience=6",
]
STOP = [*LINE, "trainer.stop_on_collapse=true"]


def watch(patience: int = 3, threshold: float = 0.9, num_experts: int = 8, top_k: int = 2) -> CollapseWatch:
    settings = TrainerConfig(collapse_patience=patience, collapse_threshold=threshold, stop_on_collapse=True)
    return CollapseWatch(settings, num_experts, top_k, CPU)


def collapsed_at(ours: CollapseWatch, values: list[float]) -> int | None:
    for step, value in enumerate(values, start=1):
        ours.add(step, torch.tensor(value, dtype=torch.float64))
    return ours.collapsed_at()


def test_it_takes_patience_many_steps_in_a_row() -> None:
    assert collapsed_at(watch(), [3.0, 3.0, 0.1, 3.0, 3.0, 2.0]) is None
    assert collapsed_at(watch(), [0.1, 3.0, 3.0, 3.0, 3.0]) == 4
    assert collapsed_at(watch(), [3.0, 3.0, 3.0, 0.0, 3.0, 3.0, 3.0]) == 3  # the first time counts, recovered or not


def test_the_threshold_is_a_share_of_the_maximum() -> None:
    """E = 8, k = 2: the maximum is 3, and 0.9 of it 2.7."""
    assert collapsed_at(watch(), [2.69] * 5) is None
    assert collapsed_at(watch(), [2.71] * 5) == 3
    assert collapsed_at(watch(threshold=0.5), [1.51] * 5) == 3


def test_where_every_token_uses_every_expert_nothing_collapses() -> None:
    assert collapsed_at(watch(num_experts=2, top_k=2), [0.0] * 5) is None


def test_the_state_goes_on_in_the_middle_of_the_patience() -> None:
    first, second = watch(), watch()
    assert collapsed_at(first, [3.0, 3.0]) is None
    second.load_state_dict(first.state_dict())
    second.add(3, torch.tensor(3.0))
    assert second.collapsed_at() == 3


def test_it_asks_the_device_at_multiples_of_the_patience_alone() -> None:
    ours = watch()
    assert collapsed_at(ours, [0.1, 3.0, 3.0, 3.0]) == 4
    assert [step for step in range(4, 10) if ours.says_stop(step)] == [6, 9]


@pytest.fixture
def everything_goes_to_two_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that ranks experts 0 and 1 first for every token."""

    def ranking_TE(self: Balancer, layer: int, logits_TE: torch.Tensor, scores_TE: torch.Tensor) -> torch.Tensor:
        return torch.arange(logits_TE.shape[-1], 0.0, -1.0).expand_as(logits_TE)

    monkeypatch.setattr(Balancer, "ranking_TE", ranking_TE)


def finished(*line: str) -> tuple[RunDir, dict[str, Any]]:
    folder = freeze(compose_run(*LINE, *line), [], command="test")
    assert run_worker(folder) is State.done
    summary = folder.summary()
    assert summary is not None
    return folder, summary


def test_a_healthy_run_is_not_marked(folders: Path, real_data: TokenData) -> None:
    folder, summary = finished()
    assert summary["collapsed"] is False
    assert not {"collapsed_at_step", "stopped_early"} & summary.keys()
    assert folder.status().collapsed is False


@pytest.mark.usefixtures("everything_goes_to_two_experts")
def test_a_collapsed_run_is_marked_and_trained_to_the_end(folders: Path, real_data: TokenData) -> None:
    folder, summary = finished()
    assert (summary["collapsed"], summary["collapsed_at_step"]) == (True, 6)
    assert summary["train_maxvio_batch"] == 3.0
    assert "stopped_early" not in summary
    assert folder.status().collapsed is True
    assert folder.status().step == 24
    (row,) = load_runs(folders).frame.to_dict("records")
    assert (row["collapsed"], row["collapsed_at_step"]) == (True, 6)


@pytest.mark.usefixtures("everything_goes_to_two_experts")
@pytest.mark.parametrize("log_every", [1, 7, 24])
def test_it_is_stopped_early_on_request_and_at_the_same_step_however_it_is_logged(
    folders: Path, real_data: TokenData, log_every: int
) -> None:
    folder, summary = finished("trainer.stop_on_collapse=true", f"trainer.log_every={log_every}")
    assert (summary["collapsed"], summary["collapsed_at_step"], summary["stopped_early"]) == (True, 6, True)
    assert summary["tokens"] == 6 * 4 * 32
    assert math.isfinite(summary["val_loss"])
    assert folder.status().step == 6
    assert run_worker(folder) is State.done  # it is finished: nothing is trained again
    assert folder.status().attempt == 1


@pytest.mark.usefixtures("everything_goes_to_two_experts")
@pytest.mark.parametrize("stopped_at", [4, 6])
def test_a_resume_in_the_middle_of_the_patience_changes_nothing(
    folders: Path, real_data: TokenData, stopped_at: int
) -> None:
    run = compose_run(*LINE, "trainer.stop_on_collapse=true")
    whole = trainer(run, real_data)
    expected = without_times(whole.train(never))
    lines = records(whole.folder)
    whole.folder.path.rename(folders / "elsewhere")
    stopped = trainer(run, real_data)
    with pytest.raises(Interrupted):
        stopped.train(lambda: stopped.step == stopped_at)
    resumed = trainer(run, real_data)
    assert without_times(resumed.train(never)) == expected
    assert records(resumed.folder) == lines


def test_a_dense_model_has_no_router_to_collapse(folders: Path, real_data: TokenData) -> None:
    _, summary = finished("experts=dense")
    assert summary["collapsed"] is False
    assert run_id(compose_run("experts=dense", "trainer.stop_on_collapse=true")) == run_id(compose_run("experts=dense"))
