"""The size of a checkpoint by arithmetic, beside that of real ones."""

from __future__ import annotations

import pytest
from helpers import TINY, compose_run

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.launch.probe import random_tokens
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.checkpoint_size import checkpoint_bytes
from moe_sweeps.training.rehearsal import rehearse

SLACK = 40_000  # bytes: less than three thousandths of any checkpoint that matters
DUE = ("optimizer.precondition_frequency=2",)
CASES = [
    *((f"optimizer={kind}", *(DUE if kind in ("shampoo", "soap") else ())) for kind in sorted(REGISTRY["optimizer"])),
    *((f"balancer={kind}",) for kind in sorted(REGISTRY["balancer"])),
    ("experts=dense",),
    ("lr_split=batch_fraction",),
    ("trainer.steps=3", "schedule.warmup_steps=1", "model.layers=6"),
]


@pytest.mark.parametrize("line", CASES, ids="-".join)
def test_it_is_that_of_a_real_one(line: tuple[str, ...]) -> None:
    found: list[int] = []

    def weigh(folder: RunDir) -> None:
        found.append(max(path.stat().st_size for path in folder.checkpoints.glob("*.pt")))

    run = compose_run(*TINY, *line, "engine.device=cpu")
    rehearse(run, random_tokens(run), 2, end=weigh)
    assert found[0] <= checkpoint_bytes(run) <= found[0] + SLACK


def test_a_rehearsal_that_does_not_save_leaves_none() -> None:
    found: list[int] = []
    run = compose_run(*TINY, "engine.device=cpu")
    rehearse(
        run,
        random_tokens(run),
        2,
        saves=False,
        end=lambda folder: found.append(len(list(folder.checkpoints.iterdir()))),
    )
    assert found == [0]


def test_the_talks_models() -> None:
    """Weights and two moments, 12 bytes a parameter; Shampoo's factors and their roots are most of its state."""
    assert checkpoint_bytes(compose_run("scale=talk")) == pytest.approx(12.017e9, rel=1e-3)
    assert checkpoint_bytes(compose_run("scale=talk_e128", "optimizer=shampoo")) == pytest.approx(113.2e9, rel=1e-3)
