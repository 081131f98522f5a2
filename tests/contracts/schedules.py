"""What every schedule must keep, as functions of a run that uses it; `CHECKS` has them all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import compose_run

from moe_sweeps.experiment.schema import RunConfig, problems
from moe_sweeps.optim.lr_split import Role

STEPS, WARMUP = 50, 7


def run_with(kind: str) -> RunConfig:
    """A run of `schedule=kind` that trains STEPS steps."""
    return compose_run(f"schedule={kind}", f"schedule.warmup_steps={WARMUP}", f"trainer.steps={STEPS}")


def a_factor_is_of_the_step_alone(run: RunConfig) -> None:
    """The same whenever and in whatever order it is asked for, so a resumed run has the rates of one that never was."""
    found = {step: run.schedule.factor(step, STEPS) for step in reversed(range(STEPS))}
    assert [run.schedule.factor(step, STEPS) for step in range(STEPS)] == [found[step] for step in range(STEPS)]


def a_factor_is_at_most_the_peak_and_positive(run: RunConfig) -> None:
    assert all(0 < run.schedule.factor(step, STEPS) <= 1 for step in range(STEPS))


def the_warmup_rises_to_the_peak_at_its_last_step(run: RunConfig) -> None:
    rising = [run.schedule.factor(step, STEPS) for step in range(WARMUP)]
    assert rising == sorted(rising)
    assert rising[-1] == 1.0


def a_warmup_as_long_as_training_is_refused(run: RunConfig) -> None:
    assert list(run.schedule.check_steps(STEPS)) == []
    assert "warmup_steps" in str(next(iter(run.schedule.check_steps(WARMUP))))


def a_role_may_have_it(run: RunConfig) -> None:
    """The role's schedule is this one with its defaults, and every other role's stays."""
    mixed = compose_run(
        "schedule=constant",
        f"schedule.warmup_steps={WARMUP}",
        f"trainer.steps={STEPS}",
        f"schedule.router={run.schedule.kind}",
    )
    assert problems(mixed) == []
    found = [mixed.schedule.of(Role.router).factor(step, STEPS) for step in range(STEPS)]
    assert found == pytest.approx([run.schedule.factor(step, STEPS) for step in range(STEPS)])
    assert mixed.schedule.of(Role.dense) is mixed.schedule


CHECKS: tuple[Callable[[RunConfig], None], ...] = (
    a_factor_is_of_the_step_alone,
    a_factor_is_at_most_the_peak_and_positive,
    the_warmup_rises_to_the_peak_at_its_last_step,
    a_warmup_as_long_as_training_is_refused,
    a_role_may_have_it,
)
