"""Run folders become one tidy frame, and what cannot be read becomes a problem."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import at_most
from unit.results.folders import CODE, DATA, NOW, arm_hash, make_run, run_hash, summary

from moe_sweeps.records.genuine import arm_of, hash_of
from moe_sweeps.records.rundir import Failure, MetricsLog, RunDir
from moe_sweeps.results import load_curves, load_runs
from moe_sweeps.results.runs import QUALITY


def test_a_row_holds_identity_status_provenance_config_and_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path, "aux", 0.2, 1, numbers=summary(3.25, per_domain={"code": 2.5}))
    frame, problems = load_runs(tmp_path)
    assert problems == []
    row = frame.iloc[0]
    expected = {
        "run_id": run_hash("aux", 0.2, 1), "arm": arm_hash("aux", 0.2), "folder": str(run.path), "state": "done",
        "attempt": 1, "step": 200, "total_steps": 200, "heartbeat": NOW, "source_hash": CODE, "data_fingerprint": DATA,
        "pairing.initial_weights": "f00", "pairing.batches": "ba7", "git.commit": "abc", "git.dirty": False,
        "command": "python train.py", "balancer": "aux", "aux": "default", "aux.coef": 0.2, "trainer.steps": 200,
        "seed": 1, "scale": "smoke", "val_loss": 3.25, "val_perplexity": 32.5, "val_accuracy": 0.325,
        "val_maxvio_global": 0.8125, "train_maxvio_batch": 1.625, "tokens": 40_960, "per_domain.code": 2.5,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert frame[["failure", "launch.workers"]].isna().all(axis=None)


def test_runs_that_are_not_done_have_no_final_numbers(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, state="diverged", numbers=summary(99.0, diverged_at_step=37))
    make_run(tmp_path, seed=2, state="running", numbers=summary(5.0))
    frame = load_runs(tmp_path).frame.set_index("seed").sort_index()
    assert frame["val_loss"].mean() == 3.0
    assert frame.loc[1, "last_good.val_loss"] == 99.0
    assert frame.loc[1, "diverged_at_step"] == 37
    assert frame["val_loss"].isna().tolist() == [False, True, True]


def test_a_failure_keeps_its_message(tmp_path: Path) -> None:
    make_run(tmp_path, state="failed", failure=Failure("ValueError", "no luck", "ValueError in x"))
    row = load_runs(tmp_path).frame.iloc[0]
    assert (row["failure"], row["failure_signature"]) == ("ValueError: no luck", "ValueError in x")


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_no_runs_give_an_empty_frame_with_its_columns(tmp_path: Path, folder: str) -> None:
    frame, problems = load_runs(tmp_path / folder)
    assert frame.empty
    assert problems == []
    assert {"run_id", "arm", "state", "seed", "scale", *QUALITY} <= set(frame.columns)


def _cut(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text((folder / name).read_text()[:20])


def _remove(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def _set(name: str, **changes: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))

    return change


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty status": (lambda folder: (folder / "status.json").write_text(""), "status.json is not complete JSON"),
    "unknown state": (_set("status.json", state="asleep"), "'asleep' is not a valid State"),
    "no status": (_remove("status.json"), "status.json is missing"),
    "cut summary": (_cut("summary.json"), "summary.json is not complete JSON"),
    "no summary": (_remove("summary.json"), "summary.json is missing"),
    "not an object": (lambda folder: (folder / "summary.json").write_text("[]"), "holds list instead of an object"),
    "NaN loss": (_set("summary.json", val_loss=float("nan")), "summary.json is not complete JSON (NaN is not JSON)"),
    "no loss": (_set("summary.json", val_loss=None), "val_loss in summary.json is None"),
    "text for a number": (_set("summary.json", val_accuracy="0.3"), "val_accuracy in summary.json is '0.3'"),
    "no identity": (_remove("identity.json"), "identity.json is missing"),
    "other identity": (_set("identity.json", run_id="0" * 12), "identity.json says that this is run 000000000000"),
    "identity without arm": (lambda f: (f / "identity.json").write_text(json.dumps({"run_id": f.name[-12:]})), "'arm'"),
    "no config": (_remove("config.yaml"), "config.yaml is missing"),
    "config not YAML": (lambda folder: (folder / "config.yaml").write_text("{a: ["), "config.yaml is not YAML"),
    "empty config": (lambda folder: (folder / "config.yaml").write_text(""), "holds NoneType instead of a mapping"),
    "no provenance": (_remove("provenance.json"), "provenance.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folders_are_listed_and_do_not_hide_the_others(tmp_path: Path, damage: str) -> None:
    make_run(tmp_path, seed=0)
    broken = make_run(tmp_path, seed=1).path
    spoil, reason = DAMAGE[damage]
    spoil(broken)
    frame, problems = load_runs(tmp_path)
    assert list(frame["seed"]) == [0]
    assert [p.path for p in problems] == [broken]
    assert reason in problems[0].reason


def test_two_folders_of_one_run_are_both_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    shutil.copytree(run.path, tmp_path / f"copy-{run.run_id}")
    frame, problems = load_runs(tmp_path)
    assert frame.empty
    assert len(problems) == 2
    assert "several folders" in problems[0].reason


def test_drafts_sweeps_and_other_folders_are_no_runs(tmp_path: Path) -> None:
    for name in (".0123456789ab.1234.tmp", "sweeps", "my notes"):
        (tmp_path / name).mkdir()
    frame, problems = load_runs(tmp_path)
    assert frame.empty
    assert problems == []


def test_curves_are_tidy(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=seed) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        log = MetricsLog(run.path / "metrics.jsonl")
        log.append({"step": 10, "split": "train", "loss": 4.0 + seed, "lr": 0.1})
        log.append({"step": 10, "split": "val", "loss": 5.0 + seed})
    curves, problems = load_curves(load_runs(tmp_path).frame["folder"])
    assert problems == []
    assert list(curves.columns) == ["run_id", "split", "step", "loss", "lr"]
    val = curves.query("split == 'val'").set_index("run_id")["loss"]
    assert val.to_dict() == {runs[0].run_id: 5.0, runs[1].run_id: 6.0}


def test_a_damaged_curve_is_a_problem_and_a_cut_or_missing_one_is_not(tmp_path: Path) -> None:
    good, cut, bad, none = (make_run(tmp_path, seed=seed).path for seed in range(4))
    record = '{"step": 1, "split": "train", "loss": 1.0}\n'
    (good / "metrics.jsonl").write_text(record)
    (cut / "metrics.jsonl").write_text(record + record[:12])
    (bad / "metrics.jsonl").write_text("gibberish\n" + record)
    curves, problems = load_curves([good, cut, bad, none])
    assert list(curves["run_id"]) == [RunDir(good).run_id, RunDir(cut).run_id]
    assert [p.path for p in problems] == [bad]


def test_no_curves_keep_the_columns(tmp_path: Path) -> None:
    curves, _ = load_curves([])
    assert curves.empty
    assert list(curves.columns) == ["run_id", "split", "step"]


def test_a_thousand_runs_are_read_in_seconds(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    groups = {f"group{i}": {"kind": "x"} | {f"knob{j}": 0.1 * j for j in range(8)} for i in range(12)}
    config = yaml.safe_dump(groups | {"seed": 0, "scale": "smoke"})
    texts = {name: (run.path / name).read_text() for name in ("provenance.json", "status.json", "summary.json")}
    for i in range(1000):
        form = {"seed": 0, "number": i}
        identity = {"run_id": hash_of(form), "arm": arm_of(form, 0, 0), "canonical": form}
        folder = tmp_path / "many" / f"smoke-aux-{identity['run_id']}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config)
        (folder / "identity.json").write_text(json.dumps(identity))
        for name, text in texts.items():
            (folder / name).write_text(text)
    with at_most(10):
        frame, problems = load_runs(tmp_path / "many")
    assert len(frame) == 1000
    assert problems == []
