"""Snapshots of the sources: what is in them, that they are shared, and that nothing half-made is ever found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment import freeze as freezing
from moe_sweeps.experiment.freeze import freeze, snapshot_of
from moe_sweeps.experiment.snapshot import content_hash, environment, source_files, take_snapshot
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import State


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with a tracked, an edited, a new and an ignored source."""
    root = tmp_path / "repository"
    (root / "src" / "moe_sweeps").mkdir(parents=True)
    for name, text in {
        ".gitignore": "*.pyc\n",
        "src/moe_sweeps/a.py": "a = 1\n",
        "train.py": "",
        "notes.md": "",
    }.items():
        (root / name).write_text(text)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    (root / "src/moe_sweeps/a.py").write_text("a = 2\n")
    (root / "src/moe_sweeps/new.py").write_text("")
    (root / "src/moe_sweeps/a.pyc").write_text("")
    return root


def test_it_holds_the_working_tree_without_what_git_ignores(repository: Path, tmp_path: Path) -> None:
    folder = take_snapshot(tmp_path / "runs", repository)
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == ["src/moe_sweeps/a.py", "src/moe_sweeps/new.py", "train.py"]
    assert (folder / "src/moe_sweeps/a.py").read_text() == "a = 2\n"
    assert list(folder.parent.iterdir()) == [folder]


def test_files_that_hold_keys_stay_out(repository: Path, tmp_path: Path) -> None:
    """Tracked or new: a copy of them lies where a group may read."""
    for name in ("src/.env", "src/.env.local", "src/moe_sweeps/tls.pem", "src/.netrc", "src/.env.d/x.py"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("KEY=1")
    subprocess.run(["git", "add", "src/.env"], cwd=repository, check=True)
    assert source_files(repository) == ["src/moe_sweeps/a.py", "src/moe_sweeps/new.py", "train.py"]
    assert (REPOSITORY / ".gitignore").read_text().splitlines().count(".env*") == 1


def test_keys_in_settings_are_not_copied(repository: Path, tmp_path: Path) -> None:
    """A group may read the snapshot; no run with that setting is accepted."""
    (repository / "conf").mkdir()
    (repository / "conf" / "mine.yaml").write_bytes(b"setup: [export HF_TOKEN=abc]  # \xff\n")
    folder = take_snapshot(tmp_path / "runs", repository)
    assert (folder / "conf" / "mine.yaml").read_bytes() == b"setup: [export HF_TOKEN=***]  # \xff\n"


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o400), (0o027, 0o440), (0o022, 0o444)])
def test_no_file_is_opened_wider_than_the_umask(repository: Path, tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        folder = take_snapshot(tmp_path / "runs", repository)
    finally:
        os.umask(before)
    found = [p.stat().st_mode & 0o777 for p in folder.rglob("*")]
    assert {m for m in found if m & umask} == set()
    assert (folder / "train.py").stat().st_mode & 0o777 == mode


def test_equal_sources_share_one(repository: Path, tmp_path: Path) -> None:
    first = take_snapshot(tmp_path / "runs", repository)
    assert take_snapshot(tmp_path / "runs", repository) == first
    (repository / "train.py").write_text("print()")
    second = take_snapshot(tmp_path / "runs", repository)
    assert second != first
    assert (first / "train.py").read_text() == ""


def test_a_file_that_was_deleted_is_not_missed(repository: Path) -> None:
    (repository / "train.py").unlink()
    assert source_files(repository) == ["src/moe_sweeps/a.py", "src/moe_sweeps/new.py"]


def test_without_git_everything_but_caches_is_taken(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (repository / "src/moe_sweeps/__pycache__").mkdir()
    (repository / "src/moe_sweeps/__pycache__/a.pyc").write_text("")
    assert source_files(repository) == [f"src/moe_sweeps/{n}" for n in ("a.py", "a.pyc", "new.py")] + ["train.py"]


def test_a_copy_inside_another_repository_that_ignores_it_is_taken_whole(repository: Path, tmp_path: Path) -> None:
    copy = repository / "unpacked.pyc"  # an ignored name
    (copy / "src" / "moe_sweeps").mkdir(parents=True)
    (copy / "src" / "moe_sweeps" / "a.py").write_text("a = 3\n")
    assert source_files(copy) == ["src/moe_sweeps/a.py"]


def test_the_hash_tells_where_a_file_ends() -> None:
    assert content_hash({"a": b"bc"}) != content_hash({"ab": b"c"})
    assert content_hash({"a": b"1", "b": b"2"}) == content_hash({"b": b"2", "a": b"1"})


def test_a_process_imports_from_it_and_finds_the_folders_of_the_repository(tmp_path: Path) -> None:
    snapshot = take_snapshot(tmp_path / "my runs")
    code = "from moe_sweeps import paths; print(paths.REPOSITORY, paths.CONF, paths.resolve('runs'), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(snapshot), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [str(snapshot), str(snapshot / "conf"), str(REPOSITORY / "runs")]


def test_one_that_was_removed_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(MoeSweepsError, match=r"snapshot .* is gone. `moe-sweeps retry RUN --current-code`"):
        environment(tmp_path / "snapshots" / "0")


def test_a_run_keeps_its_snapshot_until_it_fails(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same submission all runs share one; later ones get the sources of their own day."""
    run = compose_run(*TINY, "launch.snapshot=true")
    folder = freeze(run, [], command="test")
    first = snapshot_of(folder)
    assert first is not None
    assert (first / "src/moe_sweeps/experiment/freeze.py").read_bytes() == Path(freezing.__file__).read_bytes()
    assert snapshot_of(freeze(compose_run(*TINY), [], command="test")) is None  # it has not started: submitted anew
    freeze(run, [], command="test")

    monkeypatch.setattr(freezing, "_snapshot", lambda _: Path("tomorrow"))
    status = folder.status()
    status.state, status.attempt = State.preempted, 1
    folder.write_status(status)
    freeze(run, [], command="test")
    assert snapshot_of(folder) == first
    status.state = State.failed
    folder.write_status(status)
    freeze(run, [], command="test")
    assert snapshot_of(folder) == folders / "snapshots" / "tomorrow"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: _write(s / "src/moe_sweeps/a.py", "import os\n"),
        lambda s: _write(s / "src/torch.py", "import os\n"),
        lambda s: (s / "src/moe_sweeps/new.py").unlink(),
        lambda s: (s / "src/other").symlink_to("/tmp"),
        lambda s: os.mkfifo(s / "src/pipe.py"),
    ],
    ids=["edited", "added", "removed", "a link", "a FIFO"],
)
def test_a_snapshot_that_was_changed_is_not_executed(repository: Path, tmp_path: Path, damage: object) -> None:
    snapshot = take_snapshot(tmp_path / "runs", repository)
    (snapshot / "src/moe_sweeps/__pycache__").mkdir()
    (snapshot / "src/moe_sweeps/__pycache__/a.pyc").write_bytes(b"")
    assert environment(snapshot)["PYTHONPATH"].startswith(str(snapshot / "src"))
    damage(snapshot)  # type: ignore[operator]
    with pytest.raises(MoeSweepsError, match="was changed"):
        environment(snapshot)


def test_a_snapshot_of_another_user_is_executed_where_it_is_ones_own_code(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take_snapshot(tmp_path / "runs", repository)
    monkeypatch.setattr("moe_sweeps.experiment.snapshot._is_own", lambda _: False)
    with pytest.raises(MoeSweepsError, match="another user's and not your own code"):
        environment(snapshot)
    monkeypatch.setattr("moe_sweeps.experiment.snapshot.REPOSITORY", repository)
    assert environment(snapshot)["PYTHONPYCACHEPREFIX"].endswith("moe_sweeps/bytecode")


def test_a_run_names_a_snapshot_of_its_own_runs_folder(tmp_path: Path) -> None:
    run = freeze(compose_run(*TINY, f"paths.runs={tmp_path}"), [], command="test")
    run.update_provenance(snapshot="../../elsewhere")
    with pytest.raises(MoeSweepsError, match="names no snapshot"):
        snapshot_of(run)
