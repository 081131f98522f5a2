"""A run folder that lost a file: what the others say, what is made again, and what concerns that run alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, compose_run

from moe_sweeps.errors import RunFolderError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.host.files import read_json, write_json
from moe_sweeps.records.recovery import UNKNOWN, checkpoint_steps
from moe_sweeps.records.rundir import MetricsLog, RunDir, State, Status

FINAL = {"val_loss": 3.5, "tokens": 24 * 4 * 32, "tokens_per_second": 1000.0, "collapsed": True}
Damage = Callable[[Path], object]


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: dict[str, Damage] = {
    "empty": lambda p: p.write_text(""),
    "cut": lambda p: p.write_text(p.read_text()[:30]),
    "zeros": lambda p: p.write_bytes(bytes(500)),
    "not UTF-8": lambda p: p.write_bytes(b'{"state": "\xff"}'),
    "a list": lambda p: p.write_text("[]"),
    "a number": lambda p: p.write_text("7"),
    "gone": lambda p: p.unlink(),
    "a folder": _folder,
    "a link to nothing": _link,
    "nested without end": lambda p: p.write_text("[" * 100_000),
}


def put(**changes: Any) -> Damage:
    return lambda p: p.write_text(json.dumps(json.loads(p.read_text()) | changes))


STATUS_DAMAGES: dict[str, Damage] = DAMAGES | {
    "unknown state": put(state="asleep"),
    "no state": lambda p: p.write_text("{}"),
    "negative step": put(step=-5),
    "step beyond the end": put(step=10**9),
    "step of text": put(step="five"),
    "step that is half": put(step=2.5),
    "attempt that is none": put(attempt=None),
    "heartbeat of text": put(heartbeat="now"),
    "heartbeat without end": lambda p: p.write_text(
        p.read_text().replace('"heartbeat": ', '"heartbeat": Infinity, "x": ')
    ),
    "failure of numbers": put(failure={"type": 1, "message": 2, "signature": 3}),
    "failure that is a list": put(failure=[1]),
    "host that is a number": put(host=7),
}


@pytest.fixture
def run(folders: Path) -> RunDir:
    """A run that was begun once and has a checkpoint of step 10."""
    folder = freeze(compose_run(*TINY), list(TINY), command="test")
    folder.update_provenance(attempts=[{"source_hash": "x", "data_fingerprint": "y"}])
    add_checkpoint(folder, 10)
    folder.write_status(Status(State.preempted, attempt=1, step=10, total_steps=24, slurm_job_id="7"))
    return folder


def add_checkpoint(folder: RunDir, step: int, size: int = 100) -> None:
    (folder.checkpoints / f"step-{step:08d}.pt").write_bytes(bytes(size))
    write_json(folder.checkpoints / f"step-{step:08d}.json", {"step": step, "bytes": size, "sha256": "0"})


def again() -> RunDir:
    return freeze(compose_run(*TINY), list(TINY), command="again")


def finish(folder: RunDir) -> None:
    folder.write_summary(FINAL)
    folder.write_status(Status(State.done, attempt=1, step=24, total_steps=24))


@pytest.mark.parametrize("damage", STATUS_DAMAGES.values(), ids=STATUS_DAMAGES)
def test_a_lost_status_is_what_the_rest_of_the_folder_says(
    damage: Damage, run: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    damage(run.path / "status.json")
    status = run.status()
    assert (status.state, status.step, status.attempt, status.total_steps) == (State.preempted, 10, 1, 24)
    assert status.tokens_per_step == 4 * 32
    assert status.rebuilt
    assert "status.json" in status.rebuilt
    assert again() == run
    assert "the rest of the folder says: preempted, step 10" in caplog.text
    assert run.read("status.json")["step"] == 10  # on disk, and so said once
    assert run.status().rebuilt is None


@pytest.mark.parametrize("damage", STATUS_DAMAGES.values(), ids=STATUS_DAMAGES)
def test_a_done_run_without_status_is_done(damage: Damage, run: RunDir) -> None:
    finish(run)
    damage(run.path / "status.json")
    status = run.status()
    assert (status.state, status.step, status.tokens_per_second) == (State.done, 24, 1000.0)
    assert status.collapsed
    assert again().read("status.json")["state"] == "done"


def test_a_diverged_run_without_status_is_diverged(run: RunDir) -> None:
    run.write_summary({"diverged_at_step": 12, "tokens": 12 * 4 * 32, "last_good": {}})
    (run.path / "status.json").write_text("")
    assert (run.status().state, run.status().step) == (State.diverged, 12)


def test_a_run_that_never_began_is_planned(folders: Path) -> None:
    folder = again()
    (folder.path / "status.json").write_text("")
    assert (folder.status().state, folder.status().attempt, folder.status().total_steps) == (State.planned, 0, 24)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_done_run_without_final_numbers_goes_on(damage: Damage, run: RunDir) -> None:
    finish(run)
    damage(run.path / "summary.json")
    assert run.trusted_status().state is State.preempted
    assert again().status().state is State.preempted


def test_only_a_whole_checkpoint_counts(run: RunDir) -> None:
    add_checkpoint(run, 15)
    (run.checkpoints / "step-00000015.pt").write_bytes(bytes(7))
    (run.checkpoints / "step-00000020.json").write_text("")
    (run.checkpoints / "step-notes.json").write_text("")
    (run.path / "status.json").write_text("")
    assert run.status().step == 10
    assert checkpoint_steps(run.checkpoints) == [10, 15, 20]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_lost_identity_follows_from_the_config(damage: Damage, run: RunDir) -> None:
    before = run.identity()
    damage(run.path / "identity.json")
    assert run in RunDir.all(run.path.parent)
    assert again() == run
    assert read_json(run.path / "identity.json") == before


def test_a_lost_identity_does_not_follow_from_the_config_of_another_run(run: RunDir) -> None:
    config = run.config()
    run.write_config(config | {"seed": 5})
    (run.path / "identity.json").write_text("")
    with pytest.raises(
        RunFolderError, match=r"cannot be made again: its config.yaml is that of run [0-9a-f]{12}\. Move"
    ):
        again()
    assert (run.path / "identity.json").read_text() == ""


def test_a_lost_config_of_a_run_with_results_concerns_that_run(run: RunDir) -> None:
    (run.path / "config.yaml").write_text("")
    with pytest.raises(RunFolderError, match=r"config.yaml is empty\. Move the folder away"):
        again()


def test_a_config_that_was_cut_between_two_lines_concerns_that_run(run: RunDir) -> None:
    lines = (run.path / "config.yaml").read_text().splitlines(keepends=True)
    (run.path / "config.yaml").write_text("".join(lines[: lines.index("launch:\n")]))
    with pytest.raises(RunFolderError, match=r"config.yaml is cut: it lacks launch.threads\. Move the folder away"):
        freeze(compose_run(*TINY[:-1]), [], command="again")  # without launch.threads=1


@pytest.mark.parametrize("content", ["{}", '{"attempts": 3}', '{"source_hash": "x", "attempts": {}}'])
def test_a_record_that_is_none_has_unknown_versions(content: str, run: RunDir) -> None:
    (run.path / "provenance.json").write_text(content)
    assert run.provenance()["source_hash"] == UNKNOWN
    assert [a["source_hash"] for a in run.provenance()["attempts"]] == [UNKNOWN]


@pytest.mark.parametrize("name", ["config.yaml", "identity.json", "provenance.json", "overrides.yaml", "status.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "gone"])
def test_a_folder_in_which_nothing_was_trained_is_made_anew(folders: Path, name: str, damage: str) -> None:
    folder = again()
    before = {p.name: p.read_text() for p in folder.path.glob("*.*") if p.is_file() and p.name != "status.json"}
    DAMAGES[damage](folder.path / name)
    assert again() == folder
    assert folder.status().rebuilt is None
    if name != "overrides.yaml":  # which nothing reads
        assert {k: (folder.path / k).read_text() for k in before if k != "provenance.json"} == {
            k: v for k, v in before.items() if k != "provenance.json"
        }
    assert folder.provenance()["source_hash"] == json.loads(before["provenance.json"])["source_hash"]


def test_a_folder_whose_content_was_all_lost_is_made_anew(folders: Path) -> None:
    folder = again()
    config = folder.config()
    for path in folder.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert again() == folder
    assert folder.config() == config
    assert folder.status().state is State.planned


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_versions_that_were_lost_are_no_known_ones(damage: Damage, run: RunDir) -> None:
    damage(run.path / "provenance.json")
    assert again().provenance()["attempts"][0]["source_hash"] == UNKNOWN
    assert run.provenance()["source_hash"] == UNKNOWN
    assert run.status().step == 10


def test_damage_behind_the_checkpoint_is_dropped_and_before_it_is_not(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        log.append({"step": step, "split": "train"})
    good = log.path.read_bytes()
    for tail in (bytes(64) + b"\n", b'{"step": 3, "spl\n', b"\xff\xfe\n", b"7\n", b'{"split": "val"}\n'):
        log.path.write_bytes(good + tail + b'{"step": 4, "split": "train"}\n')
        log.truncate_after(2)
        assert log.path.read_bytes() == good
    log.path.write_bytes(bytes(64) + b"\n" + good)
    with pytest.raises(RunFolderError, match="not JSON"):
        log.truncate_after(2)
    log.path.write_bytes(good.rstrip(b"\n"))  # the end of the last line is missing, and nothing else
    log.truncate_after(2)
    assert log.path.read_bytes() == good
