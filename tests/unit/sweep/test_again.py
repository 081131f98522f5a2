"""A finished run trained again: its old result is kept aside, whatever dies when, and no table counts it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TINY, compose_run, make_run

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import RunBusyError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.code_record import CodeRecord
from moe_sweeps.records.remarks import change_remarks, remarks_of
from moe_sweeps.records.rundir import RunDir, State, Status
from moe_sweeps.results.archive import archive
from moe_sweeps.results.frame import load_runs
from moe_sweeps.sweep.again import supersede
from moe_sweeps.sweep.other_code import other_code, other_code_of
from moe_sweeps.training.worker import run_worker

OLD = CodeRecord.of({"training/trainer.py": "0ld"})


@pytest.fixture
def run(folders: Path) -> RunConfig:
    return compose_run(*TINY)


def finished(run: RunConfig, state: State = State.done, loss: float = 3.0) -> RunDir:
    """A run folder with all that a finished one has, that other code trained."""
    folder = freeze(run, [], command="test")
    folder.update_provenance(**OLD.entry(), attempts=[{"source_hash": OLD.version}], pairing={"batches": "b"})
    (folder.checkpoints / "step-00000024.json").write_text("{}")
    (folder.checkpoints / "step-00000024.pt").write_bytes(b"weights")
    for name in ("metrics.jsonl", "routing.jsonl", "log.txt"):
        (folder.path / name).write_text(f'{{"step": 24, "split": "train", "of": "{name}"}}\n')
    (folder.path / "routing_samples").mkdir(exist_ok=True)
    (folder.path / "routing_samples" / "step.npy").write_bytes(b"picks")
    folder.write_summary({"val_loss": loss})
    folder.write_status(Status(state, attempt=2, step=24, total_steps=24))
    return folder


def content(path: Path) -> dict[str, bytes]:
    files = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(path)): p.read_bytes() for p in files if "superseded" not in p.relative_to(path).parts}


def test_the_old_content_is_kept_whole_and_the_run_is_like_new(run: RunConfig) -> None:
    folder = finished(run)
    before = content(folder.path)
    new = freeze(compose_run(*TINY, "seed=1"), [], command="test")
    kept = supersede(folder)
    assert kept == folder.path / "superseded" / "1"
    assert content(kept) == before
    status = folder.status()
    assert (status.state, status.attempt, status.step, status.total_steps) == (State.planned, 0, 0, 24)
    assert content(folder.path).keys() == content(new.path).keys()
    provenance = folder.provenance()
    assert provenance["source_hash"] == new.provenance()["source_hash"]
    assert "attempts" not in provenance
    assert "pairing" not in provenance
    assert provenance["superseded"][0]["source_hash"] == OLD.version
    assert folder.identity()["run_id"] == folder.run_id
    assert freeze(run, [], command="test") == folder  # the same identity


def test_it_is_trained_from_the_first_step_and_its_record_has_no_old_code(run: RunConfig, real_data: TokenData) -> None:
    fresh = freeze(compose_run(*TINY, "seed=1"), [], command="test")
    assert run_worker(fresh) is State.done
    result = fresh.summary()
    fresh.update_provenance(**OLD.entry(), attempts=[{"source_hash": OLD.version}])
    fresh.write_summary({**(result or {}), "val_loss": 99.0})
    assert other_code_of([fresh]).trained == [fresh]
    supersede(fresh)
    assert run_worker(fresh) is State.done
    assert (fresh.summary() or {})["val_loss"] == (result or {})["val_loss"]
    assert fresh.status().attempt == 1
    found = other_code_of([fresh])
    assert (found.trained, found.begun, found.files) == ([], [], [])
    row = load_runs(fresh.path.parent).frame.set_index("run_id").loc[fresh.run_id]
    assert row["source_hash"] == fresh.provenance()["source_hash"]
    steps = [json.loads(line)["step"] for line in (fresh.path / "metrics.jsonl").read_text().splitlines()]
    assert steps[0] == 4


def test_what_people_wrote_about_the_run_stays_with_it(run: RunConfig) -> None:
    folder = finished(run)
    change_remarks(folder.path, lambda found: found.with_note("look at this"))
    supersede(folder)
    assert remarks_of(folder.path).line == "look at this"


def test_twice_keeps_both(run: RunConfig) -> None:
    for number, loss in ((1, 3.0), (2, 4.0)):
        folder = finished(run, loss=loss)
        kept = supersede(folder)
        assert kept == folder.path / "superseded" / str(number)
        assert RunDir(kept).summary() == {"val_loss": loss}
    assert [entry["folder"] for entry in folder.provenance()["superseded"]] == ["superseded/1", "superseded/2"]


def test_nothing_that_reads_runs_sees_it(run: RunConfig, tmp_path: Path) -> None:
    folder = finished(run, loss=3.0)
    supersede(folder)
    finished(run, loss=4.0)
    runs, problems = load_runs(folder.path.parent)
    assert (list(runs["val_loss"]), problems) == ([4.0], [])
    assert RunDir.all(folder.path.parent) == [folder]
    assert RunDir.find(folder.path.parent, folder.run_id) == folder
    archive([folder], [], folder.path.parent, tmp_path / "archive")
    assert not list((tmp_path / "archive").rglob("superseded"))


@pytest.mark.parametrize("state", [State.planned, State.running, State.failed, State.preempted, State.cancelled])
def test_a_run_without_a_result_is_left_alone(run: RunConfig, state: State) -> None:
    folder = finished(run, state)
    before = content(folder.path)
    assert supersede(folder) is None
    assert content(folder.path) == before


def test_a_run_in_other_hands_is_left_alone(run: RunConfig) -> None:
    folder = finished(run)
    before = content(folder.path)
    with folder.lock(), pytest.raises(RunBusyError):
        supersede(folder)
    assert content(folder.path) == before


def test_an_archived_run_without_checkpoints_can_be_trained_again(run: RunConfig) -> None:
    folder = finished(run, State.diverged)
    shutil.rmtree(folder.checkpoints)
    assert supersede(folder) is not None
    assert folder.checkpoints.is_dir()


def test_a_link_out_of_the_folder_is_not_followed(run: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    folder = finished(run)
    (folder.path / "link").symlink_to(tmp_path / "precious")
    kept = supersede(folder)
    assert kept is not None
    assert (kept / "link").is_symlink()
    assert not (folder.path / "link").exists()
    assert (tmp_path / "precious" / "file").read_text() == "x"


class Died(BaseException):
    """The process is gone at this moment."""


CALLS: list[tuple[object, str]] = [
    (shutil, "copy2"), (shutil, "copytree"), (shutil, "rmtree"), (Path, "rename"), (Path, "replace"), (Path, "unlink"),
    (Path, "mkdir"), (os, "mkdir"),
]  # fmt: skip


def test_whatever_dies_when_the_old_result_is_whole_somewhere(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the n-th change to the disk, for every n, and then typed again."""
    died = 0
    for moment in range(200):
        root = RunDir(finished(run).path).path
        shutil.rmtree(root)
        folder = finished(run)
        before = content(folder.path)
        with monkeypatch.context() as patch:
            left = [moment]
            for owner, name in CALLS:
                patch.setattr(owner, name, _dying(getattr(owner, name), left))
            try:
                supersede(folder)
            except Died:
                died += 1
            else:
                break
        _require_old_result_or_new_run(folder, before)
        if folder.status().state is State.done:
            assert supersede(folder) is not None
            kept = [content(p) for p in (folder.path / "superseded").iterdir() if not p.name.startswith(".")]
            assert any(found["summary.json"] == before["summary.json"] for found in kept)
            assert any("checkpoints/step-00000024.pt" in found for found in kept)
        refrozen = freeze(run, [], command="test").provenance()
        assert refrozen["source_hash"] != OLD.version
        assert not refrozen.get("attempts")
    else:
        raise AssertionError("it never came to its end")
    assert died > 10


def _dying(call: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def instead(*arguments: object, **more: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise Died
        return call(*arguments, **more)

    return instead


def _require_old_result_or_new_run(folder: RunDir, before: dict[str, bytes]) -> None:
    if folder.status().state is State.done:
        now = content(folder.path)
        assert all(now.get(name) == text for name, text in before.items() if not name.startswith("checkpoints"))
        assert folder.provenance()["source_hash"] == OLD.version
    else:
        assert folder.status().attempt == 0
        assert folder.checkpoint_step() == 0
        assert content(folder.path / "superseded" / "1") == before


def test_results_of_other_code_and_runs_begun_by_it_are_told_apart(folders: Path) -> None:
    now = compose_run(*TINY, "seed=7")
    freeze(now, [], command="test")
    runs = {seed: compose_run(*TINY, f"seed={seed}") for seed in range(6)}
    states = (State.done, State.diverged, State.preempted, State.failed, State.running, State.planned)
    made = [finished(run, state) for run, state in zip(runs.values(), states, strict=True)]
    made[5].write_status(Status(State.planned, total_steps=24))
    found = other_code([*zip(runs.values(), made, strict=True), (now, None), (make_run(), None)])
    assert found.trained == made[:2]
    assert found.begun == made[2:5]
    assert "training/trainer.py" in found.files


def test_a_folder_that_cannot_be_read_is_passed_over(run: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = finished(run), finished(compose_run(*TINY, "seed=1"))
    (bad.path / "config.yaml").write_text("model: [")
    assert other_code_of([bad, good]).trained == [good]
    assert "so its code is not compared" in caplog.text
    (good.path / "provenance.json").write_text("{")
    assert other_code_of([good]).trained == [good]  # nobody knows any more by which
