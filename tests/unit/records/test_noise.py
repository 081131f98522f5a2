"""Which runs are alike: by what they are, and not by a label; and their spread against numbers computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers import TINY, compose_run
from unit.results.suite import make_suite

from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import canonical_form
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.manifest import Manifest, RunRecord
from moe_sweeps.records.noise import SWEEP, noise_runs, pooled_sd, size_of
from moe_sweeps.records.rundir import RunDir, State, Status
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table
from moe_sweeps.sweep.detect import measured_noise


@pytest.mark.parametrize(
    "override", ["seed=7", "balancer=none", "optimizer.base_lr=0.1", "experts.num_experts=16", "router.init=small"]
)
def test_what_arms_differ_in_is_no_size(override: str) -> None:
    assert size_of(canonical_form(compose_run(*TINY, override))) == size_of(canonical_form(compose_run(*TINY)))


@pytest.mark.parametrize(
    "override", ["model.width=32", "model.layers=3", "trainer.steps=48", "trainer.batch_size=8", "data.vocab_size=1024"]
)
def test_another_model_length_batch_or_text_is_another_size(override: str) -> None:
    assert size_of(canonical_form(compose_run(*TINY, override))) != size_of(canonical_form(compose_run(*TINY)))


def test_the_pooled_spread() -> None:
    """Variances 0.04 (2 degrees of freedom) and 0.02 (1): (2 * 0.04 + 0.02) / 3; a single value says nothing."""
    found = pooled_sd([[4.0, 4.2, 4.4], [1.0, 1.2], [9.0]])
    assert found is not None
    assert found[0] == pytest.approx(math.sqrt(0.1 / 3))
    assert found[1] == 3
    assert pooled_sd([[1.0], []]) is None


def test_the_runs_of_the_noise_floor_are_those_of_any_sweep_of_that_name_or_file(tmp_path: Path) -> None:
    manifests = make_suite(tmp_path)
    assert noise_runs(manifests) == set(next(m for m in manifests if m.name == SWEEP).runs)


def finished(*line: str, val_loss: float) -> RunDir:
    folder = freeze(compose_run(*TINY, *line), [], command="test")
    folder.write_summary({"val_loss": val_loss})
    folder.write_status(Status(State.done))
    return folder


def swept(folders: list[RunDir], name: str) -> Manifest:
    runs = {f.run_id: RunRecord(f.path.name, f.identity()["arm"], "x", i) for i, f in enumerate(folders)}
    return Manifest(name, name, runs, created="2026-01-01T00:00:00+00:00")


def test_a_table_of_another_width_has_no_floor_though_its_scale_has_the_same_name(folders: Path) -> None:
    noise_sweep = swept([finished(f"seed={s}", val_loss=4 + s / 10) for s in range(3)], SWEEP)
    noise_sweep.write(folders)
    same = swept([finished("balancer=none", val_loss=5.0)], "same")
    wider = swept([finished("model.width=32", val_loss=5.0)], "wider")
    runs = read_runs(folders)
    noise = Noise.of(runs, [noise_sweep, same, wider])
    floors = {m.name: ablation_table(m, runs, noise=noise).floor for m in (same, wider)}
    assert floors["wider"] is None
    assert floors["same"] is not None
    assert floors["same"].sd == pytest.approx(0.1)
    detected = measured_noise(folders, compose_run(*TINY))
    assert detected is not None
    assert detected.sd == pytest.approx(floors["same"].sd)  # one rule for both
    assert measured_noise(folders, compose_run(*TINY, "model.width=32")) is None


PROXY_AS_COMMITTED = ("scale=proxy_v1",)


@pytest.mark.parametrize(
    "other",
    [
        ["trainer.steps=600", "trainer.batch_size=32", "trainer.micro_batch_size=32"],
        ["trainer.steps=1000", "trainer.batch_size=16", "trainer.micro_batch_size=16"],  # as many tokens
        ["trainer.steps=1000"],
        ["model.layers=2"],
        ["model.qk_norm=true"],
        ["scale=proxy"],
    ],
    ids=" ".join,
)
def test_the_committed_runs_lend_their_noise_to_no_other_design_of_that_scale(other: list[str]) -> None:
    """The label `scale` may come to mean something else; the runs of its day are told apart by what they are."""
    root = REPOSITORY / "results" / "proxy" / "runs"
    committed = measured_noise(root, compose_run(*PROXY_AS_COMMITTED))
    assert committed is not None
    assert committed.freedom >= 12
    assert measured_noise(root, compose_run(*PROXY_AS_COMMITTED, *other)) is None
