"""A run whose config, canonical form and id do not agree is no evidence for what its config says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import TINY, compose_run
from unit.results.folders import make_manifest, make_run

from moe_sweeps.errors import RunFolderError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.identity import identity, infrastructure
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.genuine import RECORD, flatten, record, why_no_evidence
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table
from moe_sweeps.training.worker import run_worker

LINES: list[list[str]] = [
    [], ["balancer=lossfree"], ["balancer=lossfree", "balancer.update_every=micro_step"], ["data_seed=7", "seed=3"],
    ["aux.coef=0", "aux.normalization=talk"], ["optimizer=shampoo", "optimizer.precondition_frequency=5"],
    ["experts=dense"], ["balancer=none"], ["lr_split=batch_fraction"], ["lr_split=static", "lr_split.expert=2"],
    ["router.weight_decay=0.1"],
]  # fmt: skip


def problem(run: RunDir) -> str | None:
    config, found = flatten(run.config()), run.identity()
    return why_no_evidence(config, found, flatten(found.get("canonical", {})), run.provenance().get(RECORD))


def frozen(root: Path, *line: str) -> RunDir:
    return freeze(compose_run(*TINY, f"paths.runs={root}", *line), list(line), command="test")


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_what_is_frozen_is_genuine_with_its_record_and_without(tmp_path: Path, line: list[str]) -> None:
    run = frozen(tmp_path, *line)
    assert problem(run) is None
    run.update_provenance(**{RECORD: None})
    assert problem(run) is None


def test_every_stored_run_is_genuine() -> None:
    stored = [path.parent for path in (REPOSITORY / "results").rglob("identity.json")]
    stored += [
        path.parent for path in (REPOSITORY / "tests" / "unit" / "experiment" / "stored_runs").rglob("identity.json")
    ]
    assert len(stored) >= 81
    assert {path.name: why for path in stored if (why := problem(RunDir(path)))} == {}


@pytest.mark.parametrize(
    ("knob", "value"),
    [("optimizer.base_lr", 1.0), ("seed", 5), ("data_seed", 5), ("balancer.kind", "lossfree"), ("aux.coef", 0.9)],
)
@pytest.mark.parametrize("recorded", [True, False])
def test_an_edit_of_what_decides_the_result_is_seen(tmp_path: Path, knob: str, value: Any, recorded: bool) -> None:
    run = frozen(tmp_path)
    if not recorded:  # a run of the time before
        run.update_provenance(**{RECORD: None})
    edit(run, knob, value)
    assert str(problem(run)).startswith(f"config.yaml was edited: {knob.removesuffix('.kind')} is {value}, and")


def test_an_edit_of_a_knob_at_its_neutral_value_is_seen_by_the_record(tmp_path: Path) -> None:
    run = frozen(tmp_path)
    kept, flat = run.provenance()[RECORD], flatten(run.config())
    counted, without = flatten(run.identity()["canonical"]), set(kept["without"])
    hidden = [k for k in flat if k not in counted and not {k, k.partition(".")[0]} & without]
    assert hidden
    for knob in hidden:
        found = why_no_evidence(flat | {knob: "x"}, run.identity(), counted, kept)
        assert found == "config.yaml was edited after it was frozen"


@pytest.mark.parametrize("knob", ["launch.max_attempts_without_progress", "trainer.log_every", "name"])
def test_infrastructure_may_be_edited(tmp_path: Path, knob: str) -> None:
    run = frozen(tmp_path)
    edit(run, knob, 77)
    assert problem(run) is None


def test_asking_again_with_other_infrastructure_or_unread_knobs_is_no_edit(tmp_path: Path) -> None:
    run = frozen(tmp_path, "balancer=lossfree", "aux.coef=0.1")
    again = frozen(tmp_path, "balancer=lossfree", "aux.coef=0.2", "trainer.log_every=3")
    assert (again.path, again.config()["aux"]["coef"]) == (run.path, 0.2)
    assert problem(again) is None
    assert len(run.provenance()[RECORD]["sha256"]) == 2  # killed between the two files, it would have been no edit


def test_an_edited_identity_is_seen(tmp_path: Path) -> None:
    run = frozen(tmp_path)
    content = run.identity()
    edits: list[dict[str, Any]] = [
        {"arm": "0" * 12},
        {"canonical": content["canonical"] | {"seed": 9}},
        {"canonical": {}},
    ]
    for changes in edits:
        run.write_identity(content | changes)
        assert str(problem(run)).startswith("identity.json was edited")
    run.write_identity({k: v for k, v in content.items() if k != "canonical"})
    assert problem(run) == "identity.json has no canonical form"


def test_the_record_leaves_out_infrastructure_alone() -> None:
    run = compose_run(*TINY)
    without = set(infrastructure(run))
    assert {"launch", "tracking", "paths", "name", "scale", "compat", "trainer.log_every"} <= without
    assert not without & {"seed", "data_seed", "model", "trainer", "optimizer", "balancer"}
    known = record(flatten(to_dict(run)), without)
    assert record(flatten(to_dict(run)), without, known) == known
    assert identity(run)["run_id"] == identity(compose_run(*TINY, "trainer.log_every=9"))["run_id"]


def test_a_table_marks_it_and_takes_no_number_from_it(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "aux", 0.1, seed) for seed in range(3)]
    manifest = make_manifest(tmp_path)
    edit(runs[2], "aux.coef", 0.2)
    loaded = read_runs(tmp_path)
    (row,) = (row for row in loaded.rows.values() if row["seed"] == 2)
    assert (row["state"], loaded.problems) == ("edited", [])
    assert (row["val_loss"], row["val_accuracy"]) == (None, None)
    arm = ablation_table(manifest, loaded).arms[0]
    assert (arm.cells["val_loss"].n, arm.done) == (2, 2)
    assert [run.outcome for run in arm.runs] == ["done", "done", "edited"]
    assert arm.runs[2].detail == "config.yaml was edited: aux.coef is 0.2, and the run was planned with 0.1"


def test_a_worker_does_not_train_what_was_edited(tmp_path: Path) -> None:
    run = frozen(tmp_path)
    edit(run, "optimizer.base_lr", 1.0)
    with pytest.raises(
        RunFolderError, match=r"config\.yaml was edited: optimizer\.base_lr is 1\.0, and the run was planned"
    ):
        run_worker(run)


def edit(run: RunDir, knob: str, value: Any) -> None:
    """As a person does, with an editor."""
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    group, _, name = knob.partition(".")
    if name:
        config[group][name] = value
    else:
        config[group] = value
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))


def test_flatten_uses_hydras_names() -> None:
    tree = {"optimizer": {"kind": "adamw", "betas": [0.9, 0.95], "extra": {"kind": "x", "eps": 1}}, "seed": 0}
    expected = {"optimizer": "adamw", "optimizer.betas": "[0.9,0.95]", "optimizer.extra": "x", "optimizer.extra.eps": 1}
    assert flatten(tree) == expected | {"seed": 0}
