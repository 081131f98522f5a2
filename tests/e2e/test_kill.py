"""SIGKILL at random moments, to one run or to a whole sweep: started again, all ends as if nothing had happened."""

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
from megatron_helpers import needs_megatron
from processes import kill_everything, train, wait_until
from processes import start as start_line

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.engines.megatron.shim import installed_version
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.launch.follow import read_row
from moe_sweeps.launch.work import work
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.training.checkpoint import Checkpoints

KILLS = 10
LINE = [*TINY, "balancer=lossfree", "trainer.steps=120", "trainer.log_every=1", "trainer.checkpoint_every=7"]


def start(folder: RunDir) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moe_sweeps.training.worker"])
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
    step = max(step, step_of(folder) + 1)  # what the process before it has logged does not count
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


@pytest.mark.slow
@needs_megatron
@pytest.mark.timeout(600)
def test_a_kill_changes_nothing_on_megatron_either(folders: Path, real_data: TokenData) -> None:
    """With random numbers in training, which the jitter draws."""
    model = ["engine=megatron", "model.qk_norm=true", "router=sigmoid", "router.input_jitter=0.01"]
    run = compose_run(*LINE, *model, "trainer.steps=60")
    undisturbed = freeze(run, [], command="test")
    start(undisturbed).join()
    expected = result(undisturbed)
    assert undisturbed.provenance()["attempts"][0]["engine"]["megatron_core"] == installed_version()
    undisturbed.path.rename(folders / "undisturbed")
    folder, step = freeze(run, [], command="test"), random.Random(time.time_ns()).randrange(8, 50)
    assert kill_at(folder, step), f"the run ended before step {step}"
    start(folder).join()
    assert folder.status().attempt == 2
    found = result(folder)
    assert found[:2] + found[3:] == expected[:2] + expected[3:], step
    for name, tensor in expected[2].items():
        assert torch.equal(tensor, found[2][name]), (name, step)


def sweep_results(runs: Path) -> dict[str, Any]:
    """Per run id: summary, metrics and routing log, and the bytes of the final weights."""
    found = {}
    for folder in RunDir.all(runs):
        summary, metrics, weights, routing = result(folder)
        found[folder.run_id] = (summary, metrics, routing, {k: v.numpy().tobytes() for k, v in weights.items()})
    return found


def killed_sweep(line: list[str], runs: Path, kills: int, longest: float) -> None:
    """Type `line`, kill all its processes after a random time of training, `kills` times; then let it end."""
    for _ in range(kills):
        process = start_line(*line)
        wait_until(lambda: any(read_row("", f).state == State.running for f in RunDir.all(runs)))
        time.sleep(random.uniform(0, longest))
        assert process.poll() is None, f"the sweep was over before it could be killed: {process.communicate()}"
        assert kill_everything(runs) >= 1
        process.communicate()
        wait_until(lambda: kill_everything(runs) == 0)
    done = train(*line)
    assert done.returncode == 0, done.stdout + done.stderr


def check_sweep(line: list[str], runs: Path, undisturbed: Path, num_runs: int) -> None:
    found = sweep_results(runs)
    assert len(found) == num_runs
    assert [folder.status().state for folder in RunDir.all(runs)] == [State.done] * num_runs
    assert found == sweep_results(undisturbed)
    for _, metrics, _, _ in found.values():
        steps = [m["step"] for m in metrics if m["split"] == "train"]
        assert steps == list(range(4, steps[-1] + 1, 4))
    assert not [p for p in runs.rglob("*") if p.name.endswith((".tmp", "-draft", ".reserve"))]
    attempts = [folder.status().attempt for folder in RunDir.all(runs)]
    assert sum(attempts) > num_runs  # some were killed and resumed
    again = train(*line)
    assert f"already done: {num_runs}, to run: 0" in again.stdout
    assert [folder.status().attempt for folder in RunDir.all(runs)] == attempts


def undisturbed_sweep(line: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MOE_SWEEPS_RUNS", str(runs))
        done = train(*line)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
def test_a_sweep_killed_twice(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["-m", *TINY, "balancer=aux,lossfree", "trainer.steps=160", "launch.workers=2"]
    undisturbed_sweep(line, folders.parent / "undisturbed", monkeypatch)
    killed_sweep(line, folders, kills=2, longest=1.0)
    check_sweep(line, folders, folders.parent / "undisturbed", 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_of_twelve_killed_five_times(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginning with a kill while the data are prepared, and with workers that import a snapshot of the sources."""
    monkeypatch.setenv("MOE_SWEEPS_DATA", str(tmp_path / "data"))
    line = ["-m", *TINY, "balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6", "seed=0,1,2", "launch.snapshot=true"]
    line += ["trainer.steps=400", "launch.workers=2"]
    process = start_line(*line)
    wait_until(lambda: any((tmp_path / "data").glob("*.partial")))
    time.sleep(random.uniform(0, 10))
    assert kill_everything(folders) >= 1
    process.communicate()
    killed_sweep(line, folders, kills=5, longest=12.0)
    undisturbed_sweep(line, folders.parent / "undisturbed", monkeypatch)
    check_sweep(line, folders, folders.parent / "undisturbed", 12)
