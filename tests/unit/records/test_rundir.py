"""The run folder: complete or absent, one worker at a time, metrics without gaps or duplicates."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from moe_sweeps.errors import RunBusyError, RunFolderError
from moe_sweeps.host.files import write_atomic
from moe_sweeps.records.rundir import Failure, MetricsLog, RunDir, State, Status, failure_signature

CONTENT: dict[str, Any] = {"config": {"seed": 0}, "overrides": ["seed=0"], "provenance": {"source_hash": "x"}}


def create(root: Path, run_id: str = "0123456789ab", identity: dict[str, Any] | None = None) -> RunDir:
    identity = identity or {"version": 1, "run_id": run_id}
    return RunDir.create(root, "test", run_id, identity=identity, total_steps=5, **CONTENT)


def test_a_new_folder_is_complete(tmp_path: Path) -> None:
    folder = create(tmp_path)
    assert folder.path.name == "test-0123456789ab"
    assert folder.run_id == "0123456789ab"
    assert folder.config() == {"seed": 0}
    assert folder.status().state is State.planned
    assert folder.status().total_steps == 5
    assert folder.summary() is None
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["test-0123456789ab"]  # no drafts are left
    assert RunDir.all(tmp_path) == [folder]


def test_creating_again_returns_the_folder_untouched(tmp_path: Path) -> None:
    folder = create(tmp_path)
    folder.write_status(Status(state=State.done))
    assert create(tmp_path) == folder
    assert folder.status().state is State.done


def test_an_id_with_another_identity_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    with pytest.raises(RunFolderError, match="holds another experiment"):
        create(tmp_path, identity={"version": 2})


def test_two_folders_of_one_run_are_refused(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / "other-0123456789ab").mkdir()
    with pytest.raises(RunFolderError, match="several folders"):
        RunDir.find(tmp_path, "0123456789ab")


def _create_in_process(root: Path, queue: multiprocessing.Queue[str]) -> None:
    queue.put(str(create(root).path))


def test_processes_that_create_one_run_together_all_get_the_same_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_create_in_process, args=(tmp_path, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    assert {queue.get(timeout=60) for _ in processes} == {str(tmp_path / "test-0123456789ab")}
    for process in processes:
        process.join()
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["test-0123456789ab"]


def test_the_lock_keeps_a_second_worker_out(tmp_path: Path) -> None:
    folder = create(tmp_path)
    assert not folder.is_locked()
    with folder.lock():
        assert folder.is_locked()
        with pytest.raises(RunBusyError, match="two workers never train one run"), folder.lock():
            pass
    with folder.lock():
        pass


def test_status_survives_writing(tmp_path: Path) -> None:
    folder = create(tmp_path)
    status = Status(State.failed, attempt=2, step=3, total_steps=5, failure=Failure("E", "m", "s"))
    folder.write_status(status)
    assert folder.status() == status


def test_status_reads_files_with_unknown_fields() -> None:
    assert Status.from_dict({"state": "done", "from_the_future": 1}).state is State.done


def test_metrics_are_cut_back_to_a_step_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 2, 3):
        log.append({"step": step, "split": "train"})
    with log.path.open("a") as file:
        file.write('{"step": 4, "spl')
    log.truncate_after(2)
    assert [r["step"] for r in log.records()] == [1, 2, 2]


def test_a_complete_line_that_is_not_json_is_an_error(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.path.write_text("garbage\n")
    with pytest.raises(RunFolderError, match="not JSON"):
        log.records()


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        MetricsLog(tmp_path / "m").append({"step": 1, "loss": float("nan")})


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failures_with_one_cause_have_one_signature(tmp_path: Path) -> None:
    errors = []
    for content in ("a", "b"):
        log = MetricsLog(tmp_path / content)
        log.path.write_text(f"{content}\n")
        with pytest.raises(RunFolderError) as caught:
            log.records()
        errors.append(caught.value)
    assert str(errors[0]) != str(errors[1])
    assert {failure_signature(e) for e in errors} == {"RunFolderError in metrics_log.py:_lines"}
    failure = create(tmp_path / "runs").record_failure(errors[0])
    assert failure.type == "RunFolderError"
    assert "not JSON" in (tmp_path / "runs" / "test-0123456789ab" / "traceback.txt").read_text()
