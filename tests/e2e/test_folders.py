"""Run folders that lost a file, and run folders of somebody else, by the commands as a person types them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from processes import manage, train

from moe_sweeps.host.files import read_json
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir, State

pytestmark = pytest.mark.usefixtures("real_data")
LINE = (
    *("scale=smoke", "trainer.steps=8", "schedule.warmup_steps=2", "trainer.checkpoint_every=4"),
    *("trainer.final_eval_sequences=8", "trainer.eval_sequences=8", "launch.workers=1", "launch.threads=1"),
)
GROUP = 54321
# Somebody else, who may read everything, the interpreter among it, and write nothing that is not theirs.
SOMEBODY = (
    *("setpriv", "--reuid=nobody", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


def by_seed(runs: Path) -> dict[int, RunDir]:
    return {folder.config()["seed"]: folder for folder in RunDir.all(runs)}


def summary_numbers(folder: RunDir) -> tuple[float, float]:
    found = folder.summary()
    assert found is not None
    return found["val_loss"], found["train_maxvio_batch"]


def test_a_lost_file_concerns_its_run_alone_and_is_made_again_where_it_can_be(folders: Path, tmp_path: Path) -> None:
    assert train("-m", *LINE, "seed=0,1,2,3,4").returncode == 0
    runs = by_seed(folders)
    numbers = {seed: summary_numbers(folder) for seed, folder in runs.items()}
    (runs[0].path / "status.json").write_text("")
    (runs[1].path / "identity.json").write_text("")
    (runs[2].path / "summary.json").write_text('{"val_')
    (runs[3].path / "status.json").write_text("[]")
    (runs[3].path / "summary.json").unlink()  # of this one the checkpoints are left
    (runs[4].path / "identity.json").write_text("")
    (runs[4].path / "config.yaml").write_text("")
    (manifest,) = folders.glob("sweeps/*/manifest.json")
    manifest.write_text(manifest.read_text()[:50])

    seen = manage("status")
    assert "status.json was lost; rebuilt from other files" in seen.stdout
    assert "manifest.json: the manifest cannot be read" in seen.stdout

    done = train("-m", *LINE, "seed=0,1,2,3,4,5")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert f"{runs[0].path.name}: status.json is empty; the rest of the folder says: done, step 8" in done.stderr
    assert f"{runs[1].path.name}: identity.json was missing or damaged; it follows from config.yaml" in done.stderr
    assert f"{runs[4].path}: config.yaml is empty" in done.stdout.replace("/config.yaml:", ":")
    assert "left out: smoke-aux seed=4" in done.stdout
    now = by_seed_without(folders, runs[4])
    assert {seed: folder.status().state for seed, folder in now.items()} == dict.fromkeys((0, 1, 2, 3, 5), State.done)
    assert {seed: summary_numbers(now[seed]) for seed in range(4)} == {seed: numbers[seed] for seed in range(4)}
    assert [now[seed].status().attempt for seed in (0, 1, 2, 3)] == [1, 1, 2, 2]

    tables = manage("tables")
    assert tables.returncode == 1
    assert f"{runs[4].path}: identity.json is not complete JSON" in tables.stdout
    assert f"{runs[0].path}:" not in tables.stdout  # it was healed

    shutil.move(runs[4].path, tmp_path / "away")  # as the message says
    assert train("-m", *LINE, "seed=0,1,2,3,4").returncode == 0
    assert summary_numbers(by_seed(folders)[4]) == numbers[4]
    assert read_json(manifest)["sweep_id"] == manifest.parent.name


def by_seed_without(runs: Path, broken: RunDir) -> dict[int, RunDir]:
    return {folder.config()["seed"]: folder for folder in RunDir.all(runs) if folder != broken}


# --- somebody else ----------------------------------------------------------------------------------------------------


def somebody(arguments: Sequence[str], home: Path, group: str = "nogroup") -> subprocess.CompletedProcess[str]:
    """A command of the user nobody, whose umask is 022."""
    environment = os.environ | {"HOME": str(home), "MOE_SWEEPS_REPORTS": str(home / "reports"), "COLUMNS": "160"}
    line = [*SOMEBODY, f"--regid={group}", "sh", "-c", 'umask 022; exec "$@"', "sh", sys.executable, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment, check=False)


def their_train(home: Path, *arguments: str, group: str = "nogroup") -> subprocess.CompletedProcess[str]:
    return somebody([str(REPOSITORY / "train.py"), *arguments], home, group)


def their_manage(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return somebody(["-c", "import sys; from moe_sweeps.cli.manage import main; sys.exit(main())", *arguments], home)


def _why_not() -> str:
    if os.geteuid() != 0:
        return "only root can be somebody else"
    try:
        done = subprocess.run(
            [*SOMEBODY, "--regid=nogroup", sys.executable, "-c", ""], capture_output=True, check=False
        )
    except OSError as error:
        return str(error)
    return done.stderr.decode() if done.returncode else ""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of the user nobody's own."""
    if why := _why_not():
        pytest.skip(why)
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.chown(folder, "nobody")
    return folder


def tree(root: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in root.rglob("*")}


@pytest.mark.slow
def test_somebody_else_finds_what_is_done_and_is_told_what_is_closed(folders: Path, home: Path) -> None:
    assert train("-m", *LINE, "seed=0,1").returncode == 0
    before = tree(folders)
    whole = their_train(home, "-m", *LINE, "seed=0,1")
    assert whole.returncode == 0, whole.stderr
    assert "already done: 2, to run: 0" in whole.stdout
    assert (home / "reports" / "index.html").exists() or list((home / "reports").glob("sweep-*/table.csv"))
    part = their_train(home, "-m", *LINE, "seed=1")  # a sweep that has no manifest
    assert part.returncode == 0, part.stderr
    assert "1/1" in part.stdout
    one = their_train(home, *LINE, "seed=0")
    assert one.returncode == 0, one.stderr
    assert "is already done; nothing to train" in one.stdout
    for line in (("-m", *LINE, "seed=0,7"), (*LINE, "seed=7")):
        new = their_train(home, *line)
        assert new.returncode == 2
        assert f"{folders} (owner: root) is closed to you: Permission denied" in new.stderr
        assert "Set MOE_SWEEPS_RUNS" in new.stderr
        assert "Traceback" not in new.stderr
    commands = ("status", "watch", "tables", "retry", "doctor"), ("cancel", "--all")
    found = {name: their_manage(home, name) for name in commands[0]} | {"cancel": their_manage(home, *commands[1])}
    run = RunDir.all(folders)[0].run_id
    found |= {name: their_manage(home, name, run) for name in ("report", "explain")}
    assert {name: done.returncode for name, done in found.items() if name != "doctor"} == dict.fromkeys(
        ("status", "watch", "tables", "retry", "cancel", "report", "explain"), 0
    )
    assert f"runs in {folders}" in found["doctor"].stdout
    assert "no file can be created and locked in it (owner: root)" in found["doctor"].stdout
    assert not any("Traceback" in done.stderr for done in found.values())
    assert tree(folders) == before


def test_a_run_that_is_not_over_is_closed_in_one_sentence(folders: Path, home: Path) -> None:
    assert train(*LINE, "trainer.stop_at=4").returncode == 0
    (folder,) = RunDir.all(folders)
    for done in (
        their_train(home, *LINE),
        their_train(home, "-m", *LINE, "seed=0"),
        their_manage(home, "cancel", "--all"),
    ):
        assert done.returncode == 2, done.stdout
        assert f"{folder.path} (owner: root) is closed to you" in done.stderr.replace("/.lock", "")
        assert "Traceback" not in done.stderr
    assert folder.status().is_paused


@pytest.mark.slow
def test_a_group_goes_on_with_each_others_runs(folders: Path, home: Path) -> None:
    folders.mkdir()
    shutil.chown(folders, group=GROUP)
    folders.chmod(0o2775)
    before = os.umask(0o022)
    try:
        assert train("-m", *LINE, "seed=0,1", "trainer.stop_at=4").returncode == 0
    finally:
        os.umask(before)
    theirs = their_train(home, "-m", *LINE, "seed=0,1,2", group=str(GROUP))
    assert theirs.returncode == 0, theirs.stderr
    assert {s: f.status().state for s, f in by_seed(folders).items()} == dict.fromkeys((0, 1, 2), State.done)
    assert [by_seed(folders)[seed].path.owner() for seed in (0, 2)] == ["root", "nobody"]
    assert {stat.S_IMODE(f.path.stat().st_mode) & 0o022 for f in RunDir.all(folders)} == {0o020}


def test_a_root_that_cannot_be_written_is_no_obstacle_to_its_finished_runs_for_its_owner(folders: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the tests with another user show the same")
    assert train(*LINE).returncode == 0
    folders.chmod(0o555)
    try:
        assert train("-m", *LINE, "seed=0").returncode == 0
        assert train(*LINE, "seed=7").returncode == 2
    finally:
        folders.chmod(0o755)
