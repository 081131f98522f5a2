"""SIGKILL at ten random steps: the run started again ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, compose_run, records, without_times

from moe_sweeps.checkpoint import Checkpoints
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.freeze import freeze
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.local import work

KILLS = 10
LINE = [*TINY, "balancer=lossfree", "trainer.steps=120", "trainer.log_every=1", "trainer.checkpoint_every=7"]


def start(folder: RunDir) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moe_sweeps.worker"])
    process = context.Process(target=work, args=(folder,))
    process.start()
    return process


def step_of(folder: RunDir) -> int:
    path = folder.path / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except ValueError:
        return 0  # the last line is being written


def kill_at(folder: RunDir, step: int) -> bool:
    """Start the run and SIGKILL it once it is past `step`; False when it was over before."""
    process = start(folder)
    while step_of(folder) < step and process.is_alive():
        time.sleep(0.002)
    alive = process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL) if alive else None
    process.join()
    return alive


def result(folder: RunDir) -> tuple[Any, Any, dict[str, torch.Tensor], str]:
    summary, metrics = without_times(folder.summary()), records(folder)
    found = Checkpoints(folder.checkpoints, 2).load_latest(torch.device("cpu"))
    assert found is not None
    routing = (folder.path / "routing.jsonl").read_text()
    return summary, metrics, found[1]["model"] | found[1]["balancer"], routing


def test_ten_kills_change_nothing(folders: Path, real_data: TokenData, monkeypatch: pytest.MonkeyPatch) -> None:
    run = compose_run(*LINE)
    undisturbed = freeze(run, [], command="test")
    process = start(undisturbed)
    process.join()
    assert undisturbed.status().state is State.done
    expected = result(undisturbed)
    undisturbed.path.rename(folders / "undisturbed")

    folder = freeze(run, [], command="test")
    steps = sorted(random.Random(time.time_ns()).sample(range(1, 115), KILLS))
    killed = sum(kill_at(folder, step) for step in steps)
    assert killed == KILLS, f"the run ended before it could be killed at all of {steps}"
    start(folder).join()
    assert folder.status().state is State.done, folder.log.read_text()
    assert folder.status().attempt == KILLS + 1

    summary, metrics, weights, routing = result(folder)
    assert summary == expected[0]
    assert metrics == expected[1]
    assert routing == expected[3]
    assert [m["step"] for m in metrics if m["split"] == "train"] == list(range(1, 121))
    for name, tensor in expected[2].items():
        assert torch.equal(tensor, weights[name]), (name, steps)
