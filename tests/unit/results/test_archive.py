"""An archive holds what tables need and nothing else, and never loses what it has."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
from unit.results.folders import make_manifest
from unit.results.suite import AUX, make_suite_run, short_hash, sweep_content

from moe_sweeps.host.files import write_json
from moe_sweeps.records.manifest import Manifest, decision_path, load_manifests, manifest_path
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports.markdown import markdown
from moe_sweeps.results.archive import archive
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[Path, Manifest]:
    """Two arms with two seeds: three runs are done, one has failed."""
    runs = tmp_path / "runs"
    for place, settings in enumerate(AUX[:2]):
        for seed in range(2):
            state = "failed" if (place, seed) == (1, 1) else "done"
            run = make_suite_run(runs, settings, seed, loss=3 + place / 10 + seed / 50, maxvio=0.3, state=state)
            (run.checkpoints / "step.pt").write_bytes(b"large")
    return runs, make_manifest(runs, sweep_content("aux_coef", AUX[:2], seeds=2))


def table(root: Path) -> str:
    (manifest,), problems = load_manifests(root)
    assert not problems
    return markdown(ablation_table(manifest, read_runs(root), now=0.0))


def test_its_table_is_that_of_the_runs(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    runs, manifest = sweep
    found = archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept")
    assert (len(found.copied), len(found.kept), len(found.left_out)) == (3, 0, 1)
    assert not list((tmp_path / "kept").rglob("*.pt"))
    before, after = (
        [line for line in table(root).splitlines() if line[0:1] == "|"] for root in (runs, tmp_path / "kept")
    )
    assert [line.replace("1 failed", "1 missing") for line in before] == after  # it is trained again, or stays missing
    assert any("1 missing" in line for line in after)


def test_again_it_copies_what_is_new(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    runs, manifest = sweep
    archive(RunDir.all(runs)[:1], [manifest], runs, tmp_path / "kept")
    again = archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept")
    assert (len(again.copied), len(again.kept)) == (2, 1)


def test_another_result_of_the_same_run_stays_out(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    runs, manifest = sweep
    archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept")
    run = RunDir.find(runs, short_hash(AUX[0], 0))
    assert run is not None
    run.write_summary((run.summary() or {}) | {"val_loss": 9.0})
    found = archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept")
    (problem,) = found.problems
    assert "holds another result" in str(problem)
    assert len(found.kept) == 2
    kept = RunDir.find(tmp_path / "kept", run.run_id)
    assert kept is not None
    assert (kept.summary() or {})["val_loss"] == 3.0


def decide(root: Path, name: str, *looks: str, trained: tuple[str, ...] = (), answer: str = "") -> Path:
    """The record of a decision with these looks."""
    path = decision_path(root, "abc")
    path.parent.mkdir(parents=True, exist_ok=True)
    closed = [{"sweep_id": look, "answers": answer} for look in looks]
    write_json(path, {"version": 1, "name": name, "trained": list(trained), "closed": closed})
    return path


def test_the_looks_of_a_decision_are_kept_and_none_is_lost(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    runs, manifest = sweep
    kept = tmp_path / "kept"
    decide(runs, "aux_coef", "first")
    assert not archive([], [manifest], runs, kept).problems
    longer = decide(runs, "aux_coef", "first", "second").read_text()
    assert not archive([], [manifest], runs, kept).problems
    assert decision_path(kept, "abc").read_text() == longer
    decide(runs, "aux_coef", "first")
    (problem,) = archive([], [manifest], runs, kept).problems
    assert "has looks that this decision lacks" in str(problem)
    assert decision_path(kept, "abc").read_text() == longer


def test_the_decision_of_another_sweep_is_left_and_a_damaged_one_is_told(
    sweep: tuple[Path, Manifest], tmp_path: Path
) -> None:
    runs, manifest = sweep
    path = decide(runs, "gating", "first")
    assert not archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept").problems
    assert not decision_path(tmp_path / "kept", "abc").exists()
    for damage in ("", "[]", '{"name": "aux_coef"}', '{"name": "aux_coef", "closed": [3]}'):
        path.write_text(damage)
        found = archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept")
        assert [problem.path for problem in found.problems] == [path]
        assert not decision_path(tmp_path / "kept", "abc").exists()
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept").problems
    path.unlink()
    decide(tmp_path / "elsewhere", "aux_coef", "first")
    path.parent.rmdir()
    path.parent.symlink_to(decision_path(tmp_path / "elsewhere", "abc").parent)
    (problem,) = archive([], [manifest], runs, tmp_path / "kept").problems
    assert "is a link" in str(problem)
    assert not decision_path(tmp_path / "kept", "abc").exists()


@pytest.mark.parametrize(("trained", "answer"), [(("b",), ""), ((), "better"), (("b",), "better")])
def test_the_decision_of_another_machine_stays(
    sweep: tuple[Path, Manifest], tmp_path: Path, trained: tuple[str, ...], answer: str
) -> None:
    """The first look at the same arms has the same id everywhere."""
    runs, manifest = sweep
    decide(runs, "aux_coef", "first", trained=("a",))
    assert not archive([], [manifest], runs, tmp_path / "kept").problems
    before = decision_path(tmp_path / "kept", "abc").read_text()
    decide(runs, "aux_coef", "first", trained=trained, answer=answer)
    (problem,) = archive([], [manifest], runs, tmp_path / "kept").problems
    assert "has looks that this decision lacks" in str(problem)
    assert decision_path(tmp_path / "kept", "abc").read_text() == before


def test_the_sweep_of_another_machine_stays(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    runs, manifest = sweep
    kept = tmp_path / "kept"
    archive([], [manifest], runs, kept)
    fewer = dataclasses.replace(manifest, runs=dict(list(manifest.runs.items())[:2]))
    fewer.write(runs)
    (problem,) = archive([], [fewer], runs, kept).problems
    assert "has runs that this sweep lacks" in str(problem)
    assert len(load_manifests(kept)[0][0].runs) == 4
    manifest.write(runs)
    assert not archive([], [manifest], runs, kept).problems


@pytest.mark.parametrize("kind", ["FIFO", "folder", "link"])
def test_one_bad_file_stops_nothing_else(sweep: tuple[Path, Manifest], tmp_path: Path, kind: str) -> None:
    runs, manifest = sweep
    decide(runs, "aux_coef", "first")
    bad = RunDir.find(runs, short_hash(AUX[0], 0))
    assert bad is not None
    for path in (bad.path / "metrics.jsonl", manifest_path(runs, manifest.sweep_id).parent / "notes.json"):
        path.unlink(missing_ok=True)
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/etc/passwd")
    found = archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept")
    assert len(found.copied) == 2
    assert len(found.problems) == 2
    assert load_manifests(tmp_path / "kept")[0]
    assert decision_path(tmp_path / "kept", "abc").exists()


def test_a_full_disk_ends_it(sweep: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runs, manifest = sweep
    monkeypatch.setattr("moe_sweeps.results.archive.sync_tree", full)
    with pytest.raises(OSError, match="No space left"):
        archive(RunDir.all(runs), [manifest], runs, tmp_path / "kept")


def test_a_record_of_an_older_version_is_no_other_decision(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    """Loading and saving adds `left_open` to its looks, which made `archive` refuse it for good."""
    runs, manifest = sweep
    kept = tmp_path / "kept"
    path = decide(runs, "aux_coef", "first")
    assert not archive([], [manifest], runs, kept).problems
    content = json.loads(path.read_text())
    content["closed"][0]["left_open"] = {}
    path.write_text(json.dumps(content))
    assert not archive([], [manifest], runs, kept).problems
    assert decision_path(kept, "abc").read_text() == path.read_text()


def test_every_look_of_a_decision_is_archived_with_it(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    """Tables count looks by their manifests: with the newest alone it was the first look again."""
    runs, manifest = sweep
    earlier = dataclasses.replace(manifest, sweep_id="0123456789ab")
    earlier.write(runs)
    decide(runs, "aux_coef", "0123456789ab", manifest.sweep_id)
    assert not archive([], [manifest], runs, tmp_path / "kept").problems
    assert {m.sweep_id for m in load_manifests(tmp_path / "kept")[0]} == {"0123456789ab", manifest.sweep_id}


def test_the_ids_of_a_record_are_no_paths(sweep: tuple[Path, Manifest], tmp_path: Path) -> None:
    runs, manifest = sweep
    dataclasses.replace(manifest, sweep_id="0123456789ab").write(tmp_path / "elsewhere")
    decide(runs, "aux_coef", "../../elsewhere/sweeps/0123456789ab")
    assert not archive([], [manifest], runs, tmp_path / "kept").problems
    assert [m.sweep_id for m in load_manifests(tmp_path / "kept")[0]] == [manifest.sweep_id]
