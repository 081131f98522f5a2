"""Power cuts: no name reaches the disk before what it names, in everything that a run and a sweep write."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import TINY
from unit.cli.fake_runs import fake_run

from moe_sweeps.experiment.snapshot import take_snapshot
from moe_sweeps.host.files import make_folder, share, sync_folder, write_atomic
from moe_sweeps.launch.slurm.records import ArrayRecord
from moe_sweeps.records import mirror
from moe_sweeps.records.rundir import MetricsLog, RunDir, State
from moe_sweeps.results.archive import archive
from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.sweep.search.stop import request_stop
from moe_sweeps.training.checkpoint import Checkpoints


class Disk:
    """Watches which content is on disk when a name is given, and which names are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.lost: list[str] = []  # names that a power cut could leave without their content
        self.pending: set[Path] = set()  # folders with names that are not on disk yet
        fsync, replace, rename = os.fsync, Path.replace, Path.rename

        def watched_fsync(handle: int) -> None:
            self.synced.add(os.fstat(handle).st_ino)
            self.pending.discard(Path(f"/proc/self/fd/{handle}").resolve())
            fsync(handle)

        def renaming(original: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
            def watched(path: Path, target: Path) -> Path:
                inside = [p for p in [path, *path.rglob("*")] if p.stat().st_ino not in self.synced]
                self.lost += [str(p) for p in inside if p.is_file() or p == path]
                self.pending.add(Path(target).parent.resolve())
                return original(path, target)

            return watched

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(Path, "replace", renaming(replace))
        monkeypatch.setattr(Path, "rename", renaming(rename))


def _checkpoint(root: Path) -> None:
    Checkpoints(fake_run(root).checkpoints, keep=2).save(5, {"x": torch.zeros(3)})


def _slurm(root: Path) -> None:
    folder = root / "sweeps" / "a" / "slurm"
    folder.mkdir(parents=True)
    ArrayRecord.new(folder, root, [["x"]], {}, root).write()


def _manifest(root: Path) -> None:
    write_manifest(make_plan([*TINY, f"paths.runs={root}", "seed=0,1"]), "test")


def _archive(root: Path) -> None:
    folder = fake_run(root, 0, State.done)
    folder.write_summary({"val_loss": 1.0})
    archive([folder], [], root, root / "archive")


def _metrics(root: Path) -> None:
    log = MetricsLog(root / "metrics.jsonl")
    log.append({"step": 1, "split": "val"})
    log.truncate_after(1)


def _tracker(root: Path) -> None:
    folder = fake_run(root)
    make_folder(folder.path / "tracking")
    mirror.Record("x").write(folder)


def _stop(root: Path) -> None:
    request_stop(root)


DURABLE: dict[str, Callable[[Path], object]] = {
    "a new run": lambda root: RunDir.create(
        root, "r", "0" * 12, config={}, overrides=[], identity={}, provenance={}, total_steps=1
    ),
    "summary": lambda root: fake_run(root).write_summary({"val_loss": 1.0}),
    "provenance": lambda root: fake_run(root).update_provenance(pairing={}),
    "identity": lambda root: fake_run(root).write_identity({"run_id": "x"}),
    "config": lambda root: fake_run(root).write_config({"seed": 1}),
    "cancel": lambda root: fake_run(root).request_cancel(),
    "metrics cut back": _metrics,
    "checkpoint": _checkpoint,
    "manifest": _manifest,
    "SLURM record": _slurm,
    "stop of a search": _stop,
    "snapshot": take_snapshot,
    "archive": _archive,
}
# Its name may come late: the one before is as good.
WHOLE: dict[str, Callable[[Path], object]] = {
    "status": lambda root: fake_run(root).write_status(fake_run(root).status()),
    "tracker": _tracker,
}


@pytest.mark.parametrize("name", [*DURABLE, *WHOLE])
def test_a_power_cut_leaves_the_old_file_or_the_new_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    (DURABLE | WHOLE)[name](tmp_path)
    assert disk.lost == []


@pytest.mark.parametrize("name", ["a new run", "metrics cut back", "manifest", "SLURM record", "stop of a search"])
def test_what_others_rely_on_keeps_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    DURABLE[name](tmp_path)
    assert disk.pending == set()


def test_a_file_of_a_run_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_run(tmp_path)  # whose status may come late
    disk = Disk(monkeypatch)
    folder.write_summary({"val_loss": 1.0})
    folder.update_provenance(pairing={})
    folder.request_cancel()
    Checkpoints(folder.checkpoints, keep=2).save(5, {"x": torch.zeros(3)})
    assert disk.pending == set()


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)
    with pytest.raises(OSError, match="Invalid"):
        write_atomic(tmp_path / "x", "y", durable=True)
    assert list(tmp_path.iterdir()) == []


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def shared_root(tmp_path: Path) -> Path:
    """A root that a group shares, under a umask that shares nothing."""
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(0o2775)
    return root


def test_below_a_root_that_a_group_shares_all_is_shared(shared_root: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = fake_run(shared_root)
        make_folder(shared_root / "sweeps" / "abc")
        with folder.lock():
            pass
        folder.make_log()
    finally:
        os.umask(before)
    folders = [folder.path, folder.checkpoints, shared_root / "sweeps", shared_root / "sweeps" / "abc"]
    assert [_mode(p) & 0o020 for p in folders] == [0o020] * 4
    assert [_mode(p) & 0o060 for p in (folder.path / ".lock", folder.log)] == [0o060] * 2
    assert _mode(folder.path) & 0o002 == 0  # of nobody else's


def test_a_private_root_stays_private(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir(mode=0o700)
    folder = fake_run(root)
    share(folder.path)
    assert _mode(folder.path) & 0o022 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another group")
def test_a_folder_of_another_group_is_not_opened_to_it(shared_root: Path) -> None:
    new = shared_root / "new"
    new.mkdir(mode=0o755)
    os.chown(new, -1, 12345)
    share(new)
    assert _mode(new) & 0o020 == 0


@pytest.mark.parametrize(("mode", "umask"), [(0o775, 0o022), (0o777, 0o077), (0o1777, 0o027), (0o2775, 0o077)])
def test_what_nobody_shares_on_purpose_is_no_wider_than_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    """A folder may be open to its group by chance; and a umask of 077 means all that it says."""
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(mode)
    before = os.umask(umask)
    try:
        folder = fake_run(root)
        with folder.lock():
            pass
        folder.make_log()
    finally:
        os.umask(before)
    assert {p: oct(_mode(p)) for p in (folder.path, *folder.path.rglob("*")) if _mode(p) & umask} == {}
