"""Cheaper plans: forks, fewer arms, another scale; with what they cost and how their question differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY
from planted import FORK_SD, SD, finish

from moe_sweeps.cli.manage import main
from moe_sweeps.errors import ConfigError
from moe_sweeps.results.power import Shape, power
from moe_sweeps.sweep.cheaper import other_scales
from moe_sweeps.sweep.detect import measured_noise
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.sweep.worth import worth

# TINY leaves layers and heads to them.
HERE, THERE = "scale=proxy", "scale=smoke"
SWEEP = ("sweep=lr_split", "seed=0,1,2")


def test_forks_that_scatter_less_are_offered_for_what_they_cost(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(["balancer=aux", "seed=range(0,8)"])
    line = ["balancer=aux", "aux.coef=0.1,0.4", "seed=range(0,6)"]
    finish([*line, "fork.step=8"], sd=FORK_SD)
    found = worth(make_plan([*TINY, *line]))
    assert found
    (cheaper,) = found.cheaper
    assert cheaper.change == "fork.step=8"
    assert cheaper.caveat == "its question is: from step 8 on"
    assert cheaper.share == pytest.approx(cheaper.seeds * (2 * 2 / 3 + 1 / 3) / 12)
    assert main(["plan", "--no-probe", *TINY, *line]) == 0
    text = f"as much is found with fork.step=8, {cheaper.seeds} trunks: {cheaper.share:.0%} of its core time, but its"
    assert text in capsys.readouterr().out


def test_forks_keep_what_they_promise_by_the_test_of_tables_of_forks(folders: Path) -> None:
    finish(["balancer=aux", "seed=range(0,8)"])
    line = ["balancer=aux", "aux.coef=0.1,0.4", "seed=range(0,6)"]
    finish([*line, "fork.step=8"], sd=FORK_SD)
    found = worth(make_plan([*TINY, *line]))
    forks = worth(make_plan([*TINY, *line, "fork.step=8"]))
    assert found
    assert forks
    assert found.finds
    (cheaper,) = found.cheaper
    at, before = (
        power(Shape(2, trunks, by_design=True), found.finds / forks.noise.sd)
        for trunks in (cheaper.seeds, cheaper.seeds - 1)
    )
    assert at >= 0.8 > before


def test_fewer_arms_of_forks_still_pay_for_their_trunks(folders: Path) -> None:
    line = ["sweep=lr_split", "seed=range(0,8)", "fork.step=8"]
    finish(line, sd=FORK_SD)
    found = worth(make_plan([*TINY, *line]))
    assert found
    (cheaper,) = found.cheaper
    assert cheaper.change == "without the 3 arms that no claim speaks of"
    assert cheaper.share == pytest.approx(cheaper.seeds * (9 * 2 / 3 + 1 / 3) / (8 * (12 * 2 / 3 + 1 / 3)))


def test_another_scale_is_offered_with_its_own_noise_cost_and_label(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish([HERE, "balancer=aux", "lr_split=static", "seed=range(0,8)"], seconds=8.0)
    finish([THERE, "balancer=aux", "lr_split=static", "seed=range(0,8)"], sd=SD / 8, seconds=1.0)
    plan = make_plan([*TINY, HERE, *SWEEP])
    found = worth(plan)
    assert found
    (scale,) = [one for one in found.cheaper if one.change.startswith("scale=")]
    assert (scale.change, scale.finds) == (THERE, 0.02)
    assert scale.caveat == "it asks the question at another size"
    assert scale.share == pytest.approx(scale.seeds * 12 * 1.0 / (36 * 8.0))
    there = measured_noise(folders, next(iter(make_plan([*TINY, THERE, *SWEEP]).runs.values())).run)
    assert there
    at, before = (power(Shape(12, n, lent=there.lent), 0.02 / there.sd) for n in (scale.seeds, scale.seeds - 1))
    assert at >= 0.8 > before
    assert main(["plan", "--no-probe", *TINY, HERE, *SWEEP]) == 0
    text = f"0.02 nats are found with scale=smoke, {scale.seeds} seeds an arm: {scale.share:.0%} of its core time, but"
    assert f"{text} it asks the question at another size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("there", "line"),
    [
        (["seed=0"], SWEEP),  # one seed: no noise of that scale
        (["seed=range(0,8)"], ("balancer=aux", "aux.coef=0.1,0.4", "seed=0,1,2")),  # no claim names a margin
        (["seed=range(0,8)"], (*SWEEP, "optimizer=muon")),  # nothing finished tells its time
        (["seed=range(0,8)"], (*SWEEP, "fork.step=8")),  # a fork at another scale is another fork
    ],
)
def test_another_scale_is_not_offered(folders: Path, there: list[str], line: tuple[str, ...]) -> None:
    for scale, seeds, sd in ((HERE, ["seed=range(0,8)"], SD), (THERE, there, SD / 8)):
        finish([scale, "balancer=aux", "lr_split=static", *seeds], sd=sd)
    assert offered_scales([HERE, *line]) == []


def test_a_scale_of_the_same_cost_is_not_offered(folders: Path) -> None:
    for scale in (HERE, THERE):
        finish([scale, "balancer=aux", "lr_split=static", "seed=range(0,8)"])
    assert offered_scales([HERE, *SWEEP]) == []


def test_a_scale_whose_size_the_line_overrides_is_no_other(folders: Path) -> None:
    size = ["model.layers=2", "model.heads=2", "model.qk_norm=false", "model.init_std=0.02"]
    finish([HERE, *size, "balancer=aux", "lr_split=static", "seed=range(0,8)"], sd=SD / 8)
    assert offered_scales([HERE, *size, *SWEEP]) == []


def test_a_scale_at_which_the_sweep_does_not_compose_is_passed_over(folders: Path) -> None:
    """The heads of scale=talk do not divide this width."""
    with pytest.raises(ConfigError, match=r"model\.heads"):
        make_plan([*TINY, "scale=talk", *SWEEP])
    assert list(other_scales(make_plan([*TINY, HERE, *SWEEP]), 0.01)) == []


def offered_scales(line: list[str]) -> list[str]:
    found = worth(make_plan([*TINY, *line]))
    assert found
    return [one.change for one in found.cheaper if one.change.startswith("scale=")]
