"""Cancel, retry, edited files and full disks, with real workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import TINY, compose_run, records, without_times
from processes import manage, start, train, wait_until

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import DiskFull
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.training.worker import run_worker

pytestmark = pytest.mark.usefixtures("real_data")


def states(runs: Path) -> list[State]:
    return [folder.status().state for folder in RunDir.all(runs)]


def test_cancel_from_another_shell_and_retry_on_another_day(folders: Path) -> None:
    line = ["-m", *TINY, "seed=0,1", "trainer.steps=240", "launch.workers=1"]
    process = start(*line)
    wait_until(lambda: any(f.status().step > 0 for f in RunDir.all(folders)))
    (begun,) = (f for f in RunDir.all(folders) if f.status().attempt)
    worker = begun.status().pid
    assert worker
    os.kill(worker, signal.SIGSTOP)  # it is not over before it is asked
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(manage, "cancel", "sweep")
        wait_until(lambda: begun.cancel_requested)
        os.kill(worker, signal.SIGCONT)
        cancelled = asked.result()
    assert "2 cancelled" in cancelled.stdout, cancelled.stderr
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "2 cancelled" in output
    step = begun.checkpoint_step()
    assert 0 < step < 240

    again = train(*line)
    assert "to run: 0, cancelled: 2" in again.stdout
    assert states(folders) == [State.cancelled] * 2
    alone = train(*TINY, f"seed={begun.config()['seed']}", "trainer.steps=240")
    assert alone.returncode == 2
    assert f"`moe-sweeps retry --cancelled {begun.run_id}` resumes it" in alone.stderr

    retried = manage("retry", "--cancelled")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert states(folders) == [State.done] * 2
    assert begun.status().started_step == step  # it resumed where it was cancelled
    assert [r["step"] for r in records(begun) if r["split"] == "train"] == list(range(4, 241, 4))


@pytest.mark.parametrize("snapshot", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_a_file_edited_while_runs_wait_changes_nothing(folders: Path, tmp_path: Path, snapshot: str) -> None:
    """Config and code of the repository are ruined while the first of two runs trains; both end as submitted."""
    copy = tmp_path / "repository"
    for part in ("src", "conf", "sweeps", "tables"):
        shutil.copytree(REPOSITORY / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "train.py", copy)
    line = ["-m", *TINY, "seed=0,1", "trainer.steps=160", "launch.workers=1", f"launch.snapshot={snapshot}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(copy / "src"))
        process = start(*line, repository=copy)
        wait_until(lambda: any(f.status().step > 0 for f in RunDir.all(folders)))
        assert State.planned in states(folders)
        for file in (copy / "conf").rglob("*.yaml"):
            file.write_text("ruined: true\n")
        for file in (copy / "src").rglob("*.py"):
            file.write_text("raise RuntimeError('edited')\n")
        output, errors = process.communicate(timeout=120)
    assert states(folders) == [State.done] * 2, output + errors
    for folder in RunDir.all(folders):
        provenance = folder.provenance()
        assert [a["source_hash"] for a in provenance["attempts"]] == [provenance["source_hash"]]
        assert bool(provenance["snapshot"]) is (snapshot == "true")
        assert not folder.status().code_changed
        assert folder.config()["trainer"]["steps"] == 160


# --- a full disk ------------------------------------------------------------------------------------------------------

DISK_BYTES = 8 << 20


@pytest.fixture
def small_disk(folders: Path) -> Iterator[Path]:
    """The runs folder on a file system of its own of 8 MiB."""
    folders.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folders)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small tmpfs cannot be mounted here: {error}")
    try:
        yield folders
    finally:
        subprocess.run(["umount", "--lazy", str(folders)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Use up the space but for `leave` bytes."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        left = shutil.disk_usage(folder).free - leave
        while left > 0:
            try:
                left -= file.write(b"\1" * min(left, 1 << 16))
            except OSError:
                return


class FillAt:
    """An observer that fills the disk at a step."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step, self.action = step, action

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        if step == self.step:
            self.action()

    def alive(self, step: int) -> None: ...


@pytest.mark.parametrize("leave", [600_000, 0])
def test_a_disk_that_fills_up_while_a_run_trains(small_disk: Path, real_data: TokenData, leave: int) -> None:
    """With some space left the checkpoint does not fit; with none nothing does, and still the reason is recorded."""
    run = compose_run(*TINY)
    undisturbed = freeze(run, [], command="test")
    run_worker(undisturbed)
    expected = without_times(undisturbed.summary()), records(undisturbed)
    shutil.rmtree(undisturbed.path)

    folder = freeze(run, [], command="test")
    with pytest.raises(DiskFull):
        run_worker(folder, FillAt(12, lambda: fill(small_disk, leave)))
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    message = status.failure.message
    assert "the disk or the quota is full" in message
    assert str(folder.checkpoints if leave else folder.path) in message
    assert "bytes and" in message
    assert "are free" in message
    assert not [p for p in folder.path.rglob("*") if p.name.endswith((".tmp", ".reserve"))]
    assert folder.checkpoint_step() == 10
    assert {p.stem for p in folder.checkpoints.iterdir()} == {"step-00000005", "step-00000010"}

    (small_disk / "ballast").unlink()
    assert run_worker(folder) is State.done
    assert (without_times(folder.summary()), records(folder)) == expected
    assert folder.status().started_step == 10


def test_the_command_says_that_the_disk_is_full(small_disk: Path) -> None:
    """A sweep whose measured checkpoints will not fit is refused; a run that finds out on the way says so."""
    fill(small_disk, leave=700_000)
    refused = train("-m", *TINY)
    assert refused.returncode == 2
    assert "checkpoints would take" in refused.stderr
    assert states(small_disk) == []
    failed = train(*TINY)
    assert failed.returncode != 0
    assert "the disk or the quota is full" in failed.stderr
    status = manage("status")
    assert status.returncode == 1
    assert "failed: 1 run, DiskFull in files.py" in status.stdout
    (small_disk / "ballast").unlink()
    retried = manage("retry")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert states(small_disk) == [State.done]
