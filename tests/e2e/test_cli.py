"""The commands as a person types them, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers import TINY, compose_run
from processes import command, press_ctrl_c_until_it_ends, start, train, wait_until

from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.paths import REPOSITORY, TABLES
from moe_sweeps.records.rundir import RunDir, State

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
    """One run cannot save its state, so its worker fails; the others finish, and the failure is in plain sight."""
    damaged = freeze(compose_run(*TINY, "seed=1"), [], command="test")
    (damaged.checkpoints / "step-00000005.pt").mkdir()
    done = train("-m", *TINY, "seed=0,1,2")
    assert done.returncode == 1, done.stdout + done.stderr
    states = {f.config()["seed"]: f.status().state for f in RunDir.all(folders)}
    assert states == {0: State.done, 1: State.failed, 2: State.done}
    assert "IsADirectoryError" in done.stdout
    assert "IsADirectoryError" in (damaged.path / "traceback.txt").read_text()
    assert re.search(r"1 failed", done.stdout)


def test_ctrl_c_again_and_again_and_the_same_line(folders: Path) -> None:
    """Ctrl-C reaches the whole process group, as in a terminal; impatient further ones lose nothing."""
    line = ["-m", *TINY, "seed=0,1", "trainer.steps=400", "trainer.checkpoint_every=1000", "launch.workers=2"]
    process = start(*line)
    wait_until(lambda: sum(_lines(f) for f in RunDir.all(folders)) > 20)
    press_ctrl_c_until_it_ends(process)
    _, errors = process.communicate(timeout=240)
    assert "Traceback" not in errors
    assert process.returncode == 130
    assert "run the same command again to resume" in errors
    stopped = [f.status() for f in RunDir.all(folders)]
    assert {s.state for s in stopped} <= {State.preempted, State.planned}
    assert any(0 < s.step < 400 for s in stopped)
    again = train(*line)
    assert again.returncode == 0, again.stderr
    assert "resume from their checkpoints" in again.stdout
    assert [f.status().state for f in RunDir.all(folders)] == [State.done] * 2
    for folder in RunDir.all(folders):
        steps = [r["step"] for r in _records(folder) if r["split"] == "train"]
        assert steps == list(range(4, 401, 4))


@pytest.mark.parametrize("after", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("line", [["train.py", "-m", *TINY, "seed=0,1"], ["-m", "moe_sweeps", "plan", *TINY]])
def test_ctrl_c_before_anything_is_trained(folders: Path, tmp_path: Path, line: list[str], after: float) -> None:
    """While modules are imported, or a plan is made. Python says on stderr what it has imported."""
    said = tmp_path / "stderr"
    with said.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", *line], stdout=errors, stderr=errors, start_new_session=True,
            cwd=REPOSITORY,
        )  # fmt: skip
    wait_until(lambda: "moe_sweeps.host.program" in said.read_text())
    time.sleep(after)
    press_ctrl_c_until_it_ends(process)
    assert "Traceback" not in said.read_text()
    assert process.returncode == 130
    assert said.read_text().count("stopped") == 1


def test_two_shells_train_every_run_once(folders: Path) -> None:
    """Started at the same moment: one trains, the other follows, and both end with the table."""
    line = ["-m", *TINY, "seed=0,1,2"]
    held = freeze(compose_run(*TINY, "seed=2"), [], command="test")
    logs = [folders.with_name(f"shell-{name}") for name in "ab"]
    both = []
    with held.lock():  # the first is not over before the other is there
        for log in logs:
            with log.open("w") as out:
                both.append(subprocess.Popen(command(*line), stdout=out, stderr=out, start_new_session=True))
        wait_until(lambda: any("following it" in log.read_text() for log in logs))
    said = []
    for process, log in zip(both, logs, strict=True):
        assert process.wait(240) == 0, log.read_text()
        assert "runs 3 done of 3" in log.read_text()
        said.append("another process runs this sweep; following it" in log.read_text())
    assert sorted(said) == [False, True]
    assert [f.status().state for f in RunDir.all(folders)] == [State.done] * 3
    assert attempts(folders) == [1] * 3


def test_a_follower_takes_over_when_the_driver_is_killed(folders: Path) -> None:
    """Its worker goes on without it, and is neither disturbed nor doubled."""
    line = ["-m", *TINY, "seed=0,1", "trainer.steps=300", "launch.workers=1"]
    held = freeze(compose_run(*TINY, "trainer.steps=300", "seed=1"), [], command="test")
    with held.lock():  # the driver is not over before it is killed
        driver = start(*line)
        wait_until(lambda: any(_lines(f) > 5 for f in RunDir.all(folders)))
        (worker,) = (f.status().pid for f in RunDir.all(folders) if f.status().attempt)
        assert worker
        os.kill(worker, signal.SIGSTOP)  # nor is its worker
        follower = start(*line)
        assert follower.stdout is not None
        said = iter(follower.stdout.readline, "")
        assert any("following it" in sentence for sentence in said)
        driver.kill()
        driver.communicate()
        os.kill(worker, signal.SIGCONT)
    output, errors = follower.communicate(timeout=240)
    assert follower.returncode == 0, errors
    assert "the process that ran this sweep is gone; resuming here" in output
    assert [f.status().state for f in RunDir.all(folders)] == [State.done] * 2
    assert attempts(folders) == [1] * 2


def test_a_run_whose_worker_keeps_dying_is_given_up(folders: Path) -> None:
    line = ["-m", *TINY, "seed=0", "trainer.steps=100000", "trainer.checkpoint_every=100000"]
    process = start(*line, "launch.max_attempts_without_progress=2")
    for attempt in (1, 2):
        wait_until(lambda n=attempt: _is_training(RunDir.all(folders), n))  # type: ignore[misc]
        os.kill(RunDir.all(folders)[0].status().pid or 0, signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
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


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """Eighty documents, and beside them what a notebook and a data set leave there."""
    folder = tmp_path / "web"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    records = [json.dumps({"text": " ".join(f"word{(7 * i + j) % 101}" for j in range(60))}) for i in range(80)]
    for name in ("a.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl"):
        (folder / name).write_text("\n".join(records))
    (folder / "README.md").write_text("# A data set")
    return folder


def test_only_text_is_read_and_plan_and_log_say_so(
    folders: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_SWEEPS_DATA", str(tmp_path / "data"))
    line = [*TINY, "data=text", "data.vocab_size=50304", "data.val_fraction=0.2"]
    done = train("-m", *line, f"data.files={web}/")
    assert done.returncode == 0, done.stdout + done.stderr
    [folder] = RunDir.all(folders)
    for text in (done.stdout, folder.log.read_text()):
        assert f"text: 1 file, 0.0 MB, from {web}" in text
        assert "passed over: 2 files; hidden: 1 (.ipynb_checkpoints/a-checkpoint.jsonl)" in text
        assert "cards and licences: 1 (README.md)" in text
        assert "duplicates" not in text
    refused = train("-m", *line, f"data.files={web}/nowhere")
    assert refused.returncode == 2
    assert f"{web}/nowhere matches no file" in refused.stderr
    assert "Plan" not in refused.stdout


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_lacks_a_character_costs_no_result(
    folders: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has a plus-minus sign and dashes, which latin-1 has in part and ASCII not at all."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    line = [sys.executable, "train.py", "-m", *TINY, "seed=0,1"]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, encoding=encoding, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "95% t-interval" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_tables_file_that_is_wrong_is_refused_before_training(folders: Path, tmp_path: Path) -> None:
    path = TABLES / "wrong_in_a_test.yaml"
    path.write_text("titel: x")
    try:
        refused = train("-m", *TINY, "name=wrong_in_a_test")
    finally:
        path.unlink()
    assert refused.returncode == 2
    assert "tables/wrong_in_a_test.yaml=titel is refused" in refused.stderr
    assert not RunDir.all(folders)
