"""What a command line of a search means, and what is refused."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from moe_sweeps.cli.train import main
from moe_sweeps.errors import ConfigError
from moe_sweeps.sweep.grid import expand
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.sweep.search.plan import make_search_plan
from moe_sweeps.sweep.search.space import Choices, Interval, asks_for_search, read_space

LINE = ("search=tpe", "scale=smoke", "optimizer.base_lr=tag(log,interval(1e-4,1e-2))", "balancer=aux,lossfree")


def test_hydras_grammar_makes_axes_constants_and_replicates() -> None:
    space = read_space((*LINE, "search.trials=7", "model.layers=int(interval(1,4))", "aux.coef=range(1,4)", "seed=3,1"))
    assert space.axes == {
        "aux.coef": Choices(("1", "2", "3"), ordered=True),
        "balancer": Choices(("aux", "lossfree")),
        "model.layers": Interval(1, 4, whole=True),
        "optimizer.base_lr": Interval(1e-4, 1e-2, log=True),
    }
    assert (space.constants, space.seeds) == ({"scale": "smoke"}, ("3", "1"))
    assert space.search == {"search": "tpe", "search.trials": "7"}
    assert space.size is None


def test_a_listed_space_has_a_size_and_corners() -> None:
    space = read_space(("search=random", "balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6"))
    assert space.size == 6
    assert len(list(space.corners(6))) == 6
    assert len(list(space.corners(5))) == 1 + 1 + 2  # the first, and one step from it along each axis


@pytest.mark.parametrize(
    ("interval", "param", "text"),
    [
        (Interval(1e-4, 1e-2), 0.0012345678, "0.001235"),
        (Interval(1e-4, 1e-2), 1e-4, "0.0001"),
        (Interval(0.12344, 1), 0.123441, "0.12344"),  # rounding does not leave the interval
        (Interval(1, 8, whole=True), 5, "5"),
        (Choices(("a", "b"), ordered=True), 1, "b"),
        (Choices(("a", "b")), "b", "b"),
    ],
)
def test_a_suggestion_as_a_setting(interval: Interval | Choices, param: float, text: str) -> None:
    assert interval.text(param) == text


@pytest.mark.parametrize(
    ("argument", "field", "words"),
    [
        ("seed=interval(0,5)", "seed", "seeds are replicates, never something to search for"),
        ("data_seed=1,2", "data_seed", "seeds are replicates"),
        ("data_seed=interval(0,5)", "data_seed", "seeds are replicates"),
        ("aux.coef=interval(1,1)", "aux.coef", "an interval goes from a number to a larger one"),
        ("aux.coef=interval(2,1)", "aux.coef", "an interval goes from a number to a larger one"),
        ("aux.coef=interval(0,inf)", "aux.coef", "an interval goes from a number to a larger one"),
        ("aux.coef=tag(log,interval(0,1))", "aux.coef", "on a log scale numbers are above 0"),
        ("aux.coef=tag(lgo,interval(0,1))", "aux.coef", "the tags of an interval are log and int"),
        ("aux.coef=interval(0,1),2", "aux.coef", "an interval or a range stands alone"),
        ("model.layers=tag(int,interval(1.2,2.8))", "model.layers", "there are no two whole numbers between these"),
        ("aux.coef=tag(log,int,interval(-0.5,8))", "aux.coef", "on a log scale numbers are above 0"),
        ("balancer=interval(0,1)", "balancer", "this key chooses an option"),
        ("search.trials=3,4", "search.trials", "a search has one value of it"),
        ("search=tpe,random", "search", "a search has one value of it"),
        ("sweep=aux_coef", "sweep", "a sweep file lists its combinations"),
        ("aux.coef=interval(0,", "aux.coef", "it cannot be parsed"),
    ],
)
def test_refused(argument: str, field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        read_space((*LINE, argument))
    assert error.value.field == field


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("aux.coeff=interval(0,1)",), "Did you mean aux.coef"),
        (("balancer=aux,losfree",), "Did you mean balancer=lossfree"),
        (("aux.coef=interval(-1,1)",), "it must be >= 0"),
        (("model.layers=interval(1,4)",), "must be a whole number"),
        (("balancer=aux,lossfree", "balancer.rate=interval(1e-4,1e-2)"), "it is a key of balancer="),
        (("aux.coef=0.1,0.2", "search.min_steps=300"), "the first rung must lie below trainer.steps=300"),
        (("aux.coef=0.1,0.2", "search.min_steps=9", "trainer.steps=140,150"), "rungs compare runs of one length"),
        (("aux.coef=0.1,0.2", "trainer.stop_at=9"), "a search stops runs at its own rungs"),
        (("aux.coef=0.1,0.2", "launch=slurm"), "a search chooses the next run by results"),
        (("aux.coef=0.1,0.2", "search.metric=val_los"), "Did you mean val_loss"),
        (("optimizer.base_lr=1e-3,1e-2", "experts=dense", "search.metric=val_maxvio_global"), "no router"),
        ((), "there is nothing to search"),
        (("aux.coef=0.1,0.2", "paths.runs=/a,/b"), "paths.runs=/a, /b is refused: it cannot change a result"),
        (("aux.coef=0.1,0.2", "paths.runs=/a${aux.coef}"), "the folders are the same for all runs"),
        (("aux.coef=0.1,0.2", "launch=local,slurm"), "launch=local, slurm is refused: it cannot change a result"),
        (("aux.coef=0.1,0.2", "launch.workers=1,2"), "launch.workers=1, 2 is refused: it cannot change a result"),
        (("aux.coef=0.1,0.2", "tracking=wandb"), "the package wandb is not installed here"),
    ],
)
def test_refused_before_anything_starts(
    arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    with pytest.raises(ConfigError, match=words):
        make_search_plan(("search=tpe", "scale=smoke", *arguments))


def test_a_search_is_never_taken_for_a_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert asks_for_search(("aux.coef=1", "search=tpe"))
    assert not asks_for_search(("search=none", "aux.coef=1"))
    assert main(["search=tpe", "aux.coef=interval(0,1)"]) == 2
    assert "Add -m." in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"an interval has no values to list.*search=tpe"):
        expand(["aux.coef=interval(0,1)"])
    with pytest.raises(ConfigError, match="a grid lists its combinations"):
        make_plan(["search=tpe", "aux.coef=0.1,0.2"])


def test_a_plan_needs_no_optuna() -> None:
    code = "import sys; from moe_sweeps.cli import train, search; search.make_search_plan(sys.argv[1:]); "
    code += "assert 'optuna' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "search=tpe", "aux.coef=interval(0,1)"], check=True, timeout=120)


def test_whole_numbers_lie_between_the_ends() -> None:
    space = read_space((*LINE, "aux.coef=tag(log,int,interval(0.5,8))", "experts.top_k=tag(int,interval(1.5,3.5))"))
    assert space.axes["aux.coef"] == Interval(1, 8, log=True, whole=True)
    assert space.axes["experts.top_k"] == Interval(2, 3, whole=True)


def test_an_interval_of_a_whole_number_is_explained() -> None:
    with pytest.raises(ConfigError) as caught:
        make_search_plan((*LINE, "model.layers=interval(1.5,4)"))
    assert any("int(interval(1,8))" in note for note in caught.value.__notes__)


def test_the_same_question_is_the_same_search() -> None:
    line = ("search=tpe", "scale=smoke", "aux.coef=0.1,0.2", "balancer=aux,lossfree", "seed=0,1")
    asked = make_search_plan(line).search_id
    assert make_search_plan(("seed=0,1", *reversed(line), "search.trials=99", "launch.workers=3")).search_id == asked
    for other in ("search=random", "aux.coef=0.1,0.3", "trainer.steps=299", "seed=0", "search.sampler_seed=1"):
        assert make_search_plan((*line, other)).search_id != asked, other


def test_ranges_and_spellings_in_a_space() -> None:
    space = read_space(("search=tpe", "aux.coef=sort(range(0.4,0.1,-0.1))", "router.z_loss=0.3,0.30,3e-1,0.1"))
    assert space.axes["aux.coef"] == Choices(("0.2", "0.3", "0.4"), ordered=True)
    assert space.axes["router.z_loss"] == Choices(("0.3", "0.1"))


def test_a_shuffled_axis_is_the_same_search_each_time_that_it_is_typed() -> None:
    line = ("search=tpe", "scale=smoke", "aux.coef=shuffle(range(0.1,0.9,0.1))", "balancer=shuffle(aux,lossfree)")
    assert len({make_search_plan(line).search_id for _ in range(5)}) == 1


def test_a_key_that_is_linked_to_an_axis_follows_each_trial() -> None:
    plan = make_search_plan(("search=tpe", "scale=smoke", "aux.coef=interval(0.1,0.4)", "router.z_loss=${aux.coef}"))
    (run,) = plan.trial(0, {"aux.coef": 0.25}, []).runs.values()
    assert (run.aux.coef, run.router.z_loss) == (0.25, 0.25)
