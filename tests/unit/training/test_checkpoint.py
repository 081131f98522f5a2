"""Checkpoints: atomic, checksummed, the last k, and never an unpickled object."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from moe_sweeps.errors import DiskFull
from moe_sweeps.training.checkpoint import ROOM_FOR_LOGS, Checkpoints

CPU = torch.device("cpu")


def saved(folder: Path, *steps: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, {"x": torch.full((3,), float(step)), "nested": {"n": step}})
    return checkpoints


def test_the_newest_is_loaded_and_the_last_k_are_kept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    assert checkpoints.steps() == [2, 3]
    found = checkpoints.load_latest(CPU)
    assert found is not None
    step, state = found
    assert (step, state["nested"], state["x"].tolist()) == (3, {"n": 3}, [3.0, 3.0, 3.0])
    assert len(list(tmp_path.iterdir())) == 4


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, 2).load_latest(CPU) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "stamp"])
def test_a_damaged_checkpoint_falls_back(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    newest = tmp_path / "step-00000002.pt"
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    elif damage == "truncate":
        newest.write_bytes(content[:100])
    elif damage == "delete":
        newest.unlink()
    else:
        (tmp_path / "step-00000002.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        found = checkpoints.load_latest(CPU)
    assert found is not None
    assert found[0] == 1
    assert "step 2 is damaged" in caplog.text


def test_a_state_without_its_stamp_does_not_exist(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "step-00000002.pt").write_bytes(b"half")
    assert checkpoints.steps() == [1]


@dataclass
class Evil:
    proof: Path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    checkpoints.save(2, {"evil": Evil(tmp_path / "proof")})
    found = checkpoints.load_latest(CPU)
    assert found is not None
    assert found[0] == 1
    assert not (tmp_path / "proof").exists()


def test_a_failed_write_keeps_the_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DiskFull, match=r"needs [\d,]+ bytes and [\d,]+ are free"):
        checkpoints.save(2, {"x": torch.zeros(3)})
    assert checkpoints.steps() == [1]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_that_does_not_fit_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, 1)
    before = sorted(tmp_path.iterdir())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=ROOM_FOR_LOGS))
    with pytest.raises(DiskFull) as caught:
        checkpoints.save(2, {"x": torch.zeros(3)})
    assert caught.value.folder == tmp_path
    assert caught.value.free == ROOM_FOR_LOGS < caught.value.needed
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_of_another_name_is_a_persons_and_stays(tmp_path: Path) -> None:
    (tmp_path / "step-best.pt").write_bytes(b"mine")
    saved(tmp_path, 1, 2, 3)
    assert (tmp_path / "step-best.pt").read_bytes() == b"mine"


def test_the_state_of_a_worker_killed_before_the_stamp_is_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "step-00000002.pt").write_bytes(b"no stamp")
    checkpoints.save(3, {"x": torch.zeros(3)})
    assert [p.name for p in sorted(tmp_path.glob("*.pt"))] == ["step-00000001.pt", "step-00000003.pt"]


class _Bomb:
    """Unpickled as anything but data, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_execute_something_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    checkpoints = saved(tmp_path / "c", 1)
    content = io.BytesIO()
    torch.save({"x": _Bomb(tmp_path / "executed")}, content)
    data = content.getvalue()
    (tmp_path / "c" / "step-00000002.pt").write_bytes(data)
    stamp = {"step": 2, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "c" / "step-00000002.json").write_text(json.dumps(stamp))
    found = checkpoints.load_latest(CPU)
    assert found is not None
    assert found[0] == 1
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["step-00000002.pt", "step-00000002.json"])
def test_a_checkpoint_that_is_a_link_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "c").mkdir()
    checkpoints = saved(tmp_path / "c", 1, 2)
    (tmp_path / "c" / name).rename(tmp_path / name)
    (tmp_path / "c" / name).symlink_to(tmp_path / name)
    found = checkpoints.load_latest(CPU)
    assert found is not None
    assert found[0] == 1


def test_files_of_other_names_end_nothing(tmp_path: Path) -> None:
    (tmp_path / "step-x.pt").touch()
    (tmp_path / "step-x.json").touch()
    assert saved(tmp_path, 1, 2, 3).steps() == [2, 3]
