"""What a plan finds before it is trained, and what would find as much for less."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY
from planted import FORK_SD, finish

from moe_sweeps.cli.documents.plan import power_data
from moe_sweeps.cli.manage import main
from moe_sweeps.results.looks import LATER
from moe_sweeps.results.power import Shape, power
from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.sweep.worth import untold, worth


def test_nothing_is_promised_without_a_spread(folders: Path) -> None:
    assert worth(make_plan([*TINY, "balancer=aux,lossfree", "seed=0,1,2"])) is None


def test_power_is_that_of_the_tables_test(folders: Path) -> None:
    finish(["balancer=aux", "seed=range(0,8)"])
    found = worth(make_plan([*TINY, "balancer=aux,lossfree", "seed=0,1,2,3"]))
    assert found
    assert found.finds
    shape = Shape(2, 8, counts=(8, 4))  # the eight runs of the baseline count; they lend nothing to themselves
    assert power(shape, found.finds / found.noise.sd) == pytest.approx(0.8, abs=0.01)
    one = worth(make_plan([*TINY, "balancer=aux,lossfree", "seed=0"]))
    assert one
    assert one.finds
    assert power(Shape(2, 8, counts=(8, 1)), one.finds / one.noise.sd) == pytest.approx(0.8, abs=0.01)
    assert one.finds / found.finds == pytest.approx(((1 + 1 / 8) / (1 / 4 + 1 / 8)) ** 0.5, rel=0.05)
    assert one.cheaper == ()
    assert worth(make_plan([*TINY, "balancer=aux"])) is None  # nothing is compared


def test_a_later_look_promises_less(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its table is held against another level, so the promise is, too."""
    finish(["balancer=aux", "seed=range(0,8)"])
    line = [*TINY, "balancer=aux,lossfree"]
    write_manifest(make_plan([*line, "seed=0,1"]), "test")
    found, asked = worth(make_plan([*line, "seed=0,1,2,3"])), 3
    assert found
    assert found.finds
    assert found.look == 2
    assert power(Shape(2, 8, counts=(8, 4)), found.finds / found.noise.sd, level=LATER) == pytest.approx(0.8, abs=0.01)
    assert main(["plan", "--no-probe", "--detect", str(asked), *line, "seed=0,1,2,3"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "it is look 2 at these arms, so a finding needs a p below 0.001" in out
    assert "it is look 2 at these arms, held against 0.001" in out


def test_seeds_that_are_there_are_told_beside_those_that_were_typed(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(["balancer=aux", "seed=range(0,8)"])
    assert main(["plan", "--no-probe", *TINY, "balancer=aux,lossfree", "seed=0,1,2"]) == 0
    text = "with 3 seeds an arm, 3 to 8 with the finished runs that are there, it finds"
    assert text in " ".join(capsys.readouterr().out.split())


def test_arms_of_the_plan_lend_nothing_to_themselves(folders: Path) -> None:
    finish(["balancer=aux,lossfree", "seed=range(0,3)"])
    found = worth(make_plan([*TINY, "balancer=aux,lossfree", "seed=0,1,2"]))
    assert found
    assert found.finds
    assert power(Shape(2, 3), found.finds / found.noise.sd) == pytest.approx(0.8, abs=0.01)


def test_arms_of_no_claim_are_what_a_cheaper_plan_leaves_out(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(["balancer=aux", "seed=range(0,8)"])
    found = worth(make_plan([*TINY, "sweep=lr_split", "seed=0,1,2"]))
    assert found
    assert found.asked == 0.02
    assert found.power is not None
    (cheaper,) = found.cheaper
    assert cheaper.change == "without the 3 arms that no claim speaks of"
    assert cheaper.share == pytest.approx(9 * cheaper.seeds / 36)
    assert main(["plan", "--no-probe", *TINY, "sweep=lr_split", "seed=0,1,2"]) == 0
    out = capsys.readouterr().out
    assert "power: with 3 seeds an arm" in out
    assert "as much is found without the 3 arms" in out


def test_a_plan_of_forks_is_judged_by_trunks_and_the_spread_of_forks(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["balancer=aux", "aux.coef=0.1,0.4", "fork.step=8"]
    finish([*line, "seed=range(0,6)"], sd=FORK_SD)
    plan = make_plan([*TINY, *line, "seed=0,1,2,3", "fork.replicates=2"])
    found = worth(plan)
    assert found
    assert found.finds
    assert (found.arms, found.seeds) == (2, 4)  # replicates are no seeds
    assert power(Shape(2, 4, by_design=True), found.finds / found.noise.sd) == pytest.approx(0.8, abs=0.01)
    assert found.cheaper == ()
    data = power_data(found)
    assert (data.finds, data.sd, data.freedom, data.spread_of) == (found.finds, found.noise.sd, 5, "forks")
    assert main(["plan", "--no-probe", *TINY, *line, "seed=0,1,2,3", "fork.replicates=2"]) == 0
    out = capsys.readouterr().out
    assert f"power: with 4 trunks it finds an arm that differs by {found.finds:.2g} nats" in out
    assert f"(sd {found.noise.sd:.2g} of forks within trunks, 1 replicate an arm, 5 degrees of freedom)" in out


def test_forks_without_finished_forks_get_the_cautious_figure(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*TINY, "balancer=aux", "aux.coef=0.1,0.4", "fork.step=8", "seed=0,1,2,3"]
    assert worth(make_plan(line)) is None
    assert main(["plan", "--no-probe", *line]) == 0
    assert "power: not known: no finished forks of this size tell how far they scatter" in capsys.readouterr().out
    finish(["balancer=aux", "seed=range(0,8)"])
    found = worth(make_plan(line))
    assert found
    assert found.finds
    assert power(Shape(2, 4, by_design=True), found.finds / found.noise.sd) == pytest.approx(0.8, abs=0.01)
    assert main(["plan", "--no-probe", *line, "--detect", "0.2"]) == 0
    out = capsys.readouterr().out
    assert out.count("no forks of this size are finished") == 2
    assert f"sd {found.noise.sd:.2g} of unforked runs, 7 degrees" in out
    assert "this plan has 4 trunks, and finds it" in out


def test_one_trunk_promises_nothing(folders: Path) -> None:
    line = ["balancer=aux", "aux.coef=0.1,0.4", "fork.step=8"]
    finish([*line, "seed=range(0,6)"], sd=FORK_SD)
    found = worth(make_plan([*TINY, *line, "seed=0", "fork.replicates=4"]))
    assert found
    assert found.finds is None


def test_only_forks_are_told_that_nothing_is_known(folders: Path) -> None:
    assert untold(make_plan([*TINY, "balancer=aux,lossfree", "fork.step=8"]))
    assert not untold(make_plan([*TINY, "balancer=aux", "fork.step=8"]))
    assert not untold(make_plan([*TINY, "balancer=aux,lossfree"]))


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("0", "one seed: an arm is taken to scatter as the others do"),
        ("0,1", "two seeds say almost nothing"),
        ("0,1,2", ""),
    ],
)
def test_a_promise_of_one_or_two_seeds_says_what_it_rests_on(
    folders: Path, capsys: pytest.CaptureFixture[str], seeds: str, said: str
) -> None:
    """One seed seems to find five times smaller differences than two: its own spread is assumed."""
    finish(["balancer=aux", "seed=range(0,8)"])
    line = ["plan", "--no-probe", *TINY, "balancer=aux,lossfree", f"seed={seeds}"]
    for more in ([], ["--detect", "0.05"]):
        assert main([*line, *more]) == 0
        out = capsys.readouterr().out
        assert (said in out) if said else ("take three or more" not in out)
