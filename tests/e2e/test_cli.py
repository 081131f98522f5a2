"""The commands as a person types them, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers import TINY, compose_run
from processes import start, train, wait_until

from moe_sweeps.freeze import freeze
from moe_sweeps.rundir import RunDir, State

pytestmark = pytest.mark.usefixtures("real_data")
DEMO = ["-m", "balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6", *TINY]


def attempts(runs: Path) -> list[int]:
    return [folder.status().attempt for folder in RunDir.all(runs)]


def test_the_demo_line(folders: Path, tmp_path: Path) -> None:
    first = train(*DEMO)
    assert first.returncode == 0, first.stderr
    assert "balancer (2) x aux.coef (3) = 6 combinations, 4 distinct runs" in first.stdout
    assert "aux.coef is not read by balancer=lossfree (balancer=aux or balancer=aux_lossfree reads it)" in first.stdout
    assert "already done: 0, to run: 4" in first.stdout
    assert [f.status().state for f in RunDir.all(folders)] == [State.done] * 4
    table = pd.read_csv(next((tmp_path / "reports").glob("*/table.csv")))
    assert len(table) == 4
    for folder in RunDir.all(folders):
        summary = folder.summary()
        assert summary is not None
        assert f"{summary['val_loss']:.4f}" in first.stdout

    second = train(*DEMO)
    assert second.returncode == 0
    assert "already done: 4, to run: 0" in second.stdout
    assert attempts(folders) == [1] * 4  # nothing was trained again
    assert first.stdout.split("Seeds:")[0].splitlines()[-6:] == second.stdout.split("Seeds:")[0].splitlines()[-6:]

    third = train(*DEMO, "seed=1", "launch.workers=1")
    assert "already done: 0, to run: 4" in third.stdout
    assert len(RunDir.all(folders)) == 8


def test_one_run_with_a_summary_and_its_folder(folders: Path) -> None:
    done = train(*TINY, "balancer=lossfree", "aux.coef=0.3")
    assert done.returncode == 0, done.stderr
    readers = "balancer=aux or balancer=aux_lossfree"
    assert f"aux.coef is not read by this run: it has balancer=lossfree, and {readers} would read it" in done.stdout
    folder = RunDir.all(folders)[0]
    assert f"run folder: {folder.path}" in done.stdout
    assert "validation loss" in done.stdout
    again = train(*TINY, "balancer=lossfree")
    assert "already done; nothing to train" in again.stdout
    assert attempts(folders) == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["aux.coeff=0.1"], "did you mean aux.coef"),
        (["-m", "aux.coef=0.1,-3"], "in the combination aux.coef=-3; nothing was started"),
        (["experts.top_k=9", "experts=e8"], "use experts.top_k<=8"),
        (["trainer.batch_size=100000", "trainer.micro_batch_size=8"], "use a smaller batch, shorter sequences"),
        (["engine.device=cuda"], "torch sees no cuda device"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(folders: Path, line: list[str], message: str) -> None:
    refused = train(*line)
    assert refused.returncode == 2
    assert message in refused.stderr.lower()
    assert "Traceback" not in refused.stderr
    assert not folders.exists()


def test_a_failing_run_does_not_end_the_others(folders: Path) -> None:
    """One run's metrics are damaged, so its worker fails; the others finish, and the failure is in plain sight."""
    damaged = freeze(compose_run(*TINY, "seed=1"), [], command="test")
    (damaged.path / "metrics.jsonl").write_text("garbage\n")
    done = train("-m", *TINY, "seed=0,1,2")
    assert done.returncode == 1, done.stdout + done.stderr
    states = {f.config()["seed"]: f.status().state for f in RunDir.all(folders)}
    assert states == {0: State.done, 1: State.failed, 2: State.done}
    assert "RunFolderError" in done.stdout
    assert "has a line that is not JSON: 'garbage" in done.stdout
    assert "RunFolderError" in (damaged.path / "traceback.txt").read_text()
    assert re.search(r"1 failed", done.stdout)


def test_ctrl_c_twice_and_the_same_line_again(folders: Path) -> None:
    """Ctrl-C reaches the whole process group, as in a terminal; an impatient second one loses nothing."""
    line = ["-m", *TINY, "seed=0,1", "trainer.steps=400", "trainer.checkpoint_every=1000", "launch.workers=2"]
    process = start(*line)
    wait_until(lambda: sum(_lines(f) for f in RunDir.all(folders)) > 20)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode == 130
    assert "the same line typed again goes on" in errors
    stopped = [f.status() for f in RunDir.all(folders)]
    assert {s.state for s in stopped} <= {State.preempted, State.planned}
    assert any(0 < s.step < 400 for s in stopped)
    again = train(*line)
    assert again.returncode == 0, again.stderr
    assert "go on from where they stopped" in again.stdout
    assert [f.status().state for f in RunDir.all(folders)] == [State.done] * 2
    for folder in RunDir.all(folders):
        steps = [r["step"] for r in _records(folder) if r["split"] == "train"]
        assert steps == list(range(4, 401, 4))


def test_two_shells_train_every_run_once(folders: Path) -> None:
    """Started at the same moment: one trains, the other follows, and both end with the table."""
    line = ["-m", *TINY, "seed=0,1,2"]
    both = [start(*line) for _ in "ab"]
    said = []
    for process in both:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert "runs 3 done of 3" in output
        said.append("another process runs this sweep; following it" in output)
    assert sorted(said) == [False, True]
    assert [f.status().state for f in RunDir.all(folders)] == [State.done] * 3
    assert attempts(folders) == [1] * 3


def test_a_follower_takes_over_when_the_driver_is_killed(folders: Path) -> None:
    """Its worker goes on without it, and is neither disturbed nor doubled."""
    line = ["-m", *TINY, "seed=0,1", "trainer.steps=300", "launch.workers=1"]
    driver = start(*line)
    wait_until(lambda: any(_lines(f) > 5 for f in RunDir.all(folders)))
    follower = start(*line)
    assert follower.stdout is not None
    said = iter(follower.stdout.readline, "")
    assert any("following it" in sentence for sentence in said)
    driver.kill()
    driver.communicate()
    output, errors = follower.communicate(timeout=240)
    assert follower.returncode == 0, errors
    assert "the process that ran this sweep is gone; going on here" in output
    assert [f.status().state for f in RunDir.all(folders)] == [State.done] * 2
    assert attempts(folders) == [1] * 2


def test_a_run_whose_worker_keeps_dying_is_given_up(folders: Path) -> None:
    line = ["-m", *TINY, "seed=0", "trainer.steps=100000", "trainer.checkpoint_every=100000"]
    process = start(*line, "launch.max_attempts_without_progress=2")
    for attempt in (1, 2):
        wait_until(lambda n=attempt: _is_training(RunDir.all(folders), n))  # type: ignore[misc]
        os.kill(RunDir.all(folders)[0].status().pid or 0, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "running (attempt 2)" in output
    assert "failed: 1 run, died: SIGKILL" in output
    assert "2 attempts in a row reached no new checkpoint" in output
    assert RunDir.all(folders)[0].status().state is State.failed


def test_help_shows_groups_options_and_examples(folders: Path) -> None:
    text = train("--help").stdout
    assert text.count("python train.py") >= 4
    for word in ("balancer", "lossfree", "scale", "talk_long", "experts", "e128", "Use as the control"):
        assert word in text


def test_cfg_prints_the_config_that_would_run(folders: Path) -> None:
    assert "coef: 0.25" in train("--cfg", "aux.coef=0.25").stdout


def _records(folder: RunDir) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def _is_training(folders: list[RunDir], attempt: int) -> bool:
    return any((s := folder.status()).attempt == attempt and s.step > 0 for folder in folders)


def _lines(folder: RunDir) -> int:
    path = folder.path / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0
