"""Records of submissions: one that cannot be read hides none of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from moe_sweeps.errors import LaunchError
from moe_sweeps.launch.slurm.records import ArrayRecord, all_records


@pytest.mark.parametrize("content", ["", '{"jobs": [', "[]", "7", '{"jobs": 1, "created": 2}', '{"created": 1}'])
def test_a_damaged_record_is_said_and_passed_over(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "sweeps" / "a" / "slurm"
    folder.mkdir(parents=True)
    good = ArrayRecord.new(folder, tmp_path, [["run-1"]], {"gpus": 0}, tmp_path)
    good.write()
    (folder / "moe-000000000000.json").write_text(content)
    assert list(all_records(tmp_path)) == [good]
    assert "moe-000000000000.json cannot be read" in caplog.text
    assert "if squeue knows a job moe-000000000000, scancel it" in caplog.text


@pytest.fixture
def record(tmp_path: Path) -> ArrayRecord:
    folder = tmp_path / "sweeps" / "a" / "slurm"
    folder.mkdir(parents=True)
    found = ArrayRecord.new(folder, tmp_path, [["run-1"], ["run-2", "run-3"]], {"gpus": 0}, tmp_path)
    found.write()
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"runs_root": "/tmp"},
        {"runs_root": 7},
        {"jobs": [["../run-1"]]},
        {"jobs": [["/tmp/run-1"]]},
        {"jobs": [[".hidden"]]},
        {"jobs": [[7]]},
        {"jobs": ["run-1"]},
        {"job_id": "77 --all"},
        {"job_id": "--user=x"},
        {"job_id": 7},
        {"code": ["x"]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_record_leads_nowhere_else(record: ArrayRecord, changes: dict[str, Any], tmp_path: Path) -> None:
    assert list(all_records(tmp_path)) == [record]
    record.path.write_text(json.dumps(json.loads(record.path.read_text()) | changes))
    with pytest.raises((ValueError, TypeError)):
        ArrayRecord.read(record.path)
    assert list(all_records(tmp_path)) == []


def test_a_runs_folder_may_be_reached_through_a_link(record: ArrayRecord, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert ArrayRecord.read(tmp_path / "link" / record.path.relative_to(tmp_path)).jobs == record.jobs


def test_a_job_does_what_its_own_user_wrote_alone(record: ArrayRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    record.require_owner()
    record.path.chmod(0o664)
    with pytest.raises(LaunchError, match="others can write"):
        record.require_owner()
    record.write()
    record.require_owner()
    if os.geteuid() == 0:
        os.chown(record.path, 1234, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 1234)
    with pytest.raises(LaunchError, match="belongs to user"):
        record.require_owner()


def test_a_record_is_closed_to_a_group_whatever_the_umask(record: ArrayRecord) -> None:
    before = os.umask(0)
    try:
        record.write()
    finally:
        os.umask(before)
    assert record.path.stat().st_mode & 0o777 == 0o644
