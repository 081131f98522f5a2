"""Grids: what a line asks for, counted against brute force."""

from __future__ import annotations

import itertools
import time

import pytest

from moe_sweeps.errors import ConfigError
from moe_sweeps.sweep.grid import ONE_RUN, expand, first_spellings, single


def test_the_product_of_the_axes_first_axis_slowest() -> None:
    grid = expand(["balancer=aux,lossfree", "scale=smoke", "aux.coef=0.1,0.2,0.6"])
    assert grid.axes == {"balancer": ["aux", "lossfree"], "aux.coef": ["0.1", "0.2", "0.6"]}
    expected = list(itertools.product(["balancer=aux", "balancer=lossfree"], ["scale=smoke"], ["0.1", "0.2", "0.6"]))
    assert [[str(s) for s in c] for c in grid.combinations] == [[b, s, f"aux.coef={c}"] for b, s, c in expected]


def test_ranges_choices_and_globs() -> None:
    assert expand(["seed=range(0,3)"]).axes == {"seed": ["0", "1", "2"]}
    assert expand(["seed=choice(5,7)"]).axes == {"seed": ["5", "7"]}
    assert expand(["balancer=glob(*)"]).axes["balancer"] == [
        "aux",
        "aux_lossfree",
        "expert_choice",
        "lossfree",
        "none",
        "quantile",
    ]
    assert expand(["experts=glob(e*,exclude=e128)"]).axes == {"experts": ["e16", "e8"]}


def test_without_axes_there_is_one_combination() -> None:
    assert [str(s) for s in single(["seed=1", "scale=smoke"])] == ["seed=1", "scale=smoke"]
    assert single([]) == ()


def test_the_last_of_two_settings_of_a_key_wins() -> None:
    assert [str(s) for s in single(["seed=1", "seed=2"])] == ["seed=2"]


def test_a_sweep_without_m_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"seed=0,1 is refused: it asks for 2 runs.*Add -m"):
        single(["seed=0,1"])


@pytest.mark.parametrize("line", ["balancer=glob(x*)", "seed=choice()", "seed=range(0,0)"])
def test_an_empty_axis_is_refused(line: str) -> None:
    with pytest.raises(ConfigError):
        expand([line])


@pytest.mark.parametrize("typed", ["0.3,0.30,3e-1,.3,0.5", "choice(0.3,.3,0.5)", "sort(0.5,0.30,0.3)"])
def test_a_number_has_one_spelling_on_an_axis(typed: str) -> None:
    assert expand([f"aux.coef={typed}"]).axes == {"aux.coef": ["0.3", "0.5"]}
    assert expand(["trainer.grad_clip=1,1.0,2"]).axes == {"trainer.grad_clip": ["1", "2"]}
    assert expand(["name=1,1.0"]).axes == {"name": ["1", "1.0"]}  # two texts


def test_long_seeds_are_compared_to_the_last_digit() -> None:
    assert expand(["seed=9007199254740992,9007199254740993"]).axes["seed"] == ["9007199254740992", "9007199254740993"]


def test_thousands_of_values_are_spelt_at_once() -> None:
    values = [str(number / 1000) for number in range(20_000)]
    started = time.perf_counter()
    others = {"0.50": "0.5", "5e-1": "0.5", "true": "true", "True": "true", "a": "a", "A": "A"}
    assert first_spellings([*values, *others]) == dict(zip(values, values, strict=True)) | others
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("line", ["launch=local,slurm", "launch.workers=1,2"])
def test_runs_of_a_sweep_are_launched_alike(line: str) -> None:
    with pytest.raises(ConfigError, match="how runs are launched is the same for all runs"):
        expand([line])


def test_one_run_is_asked_for_where_there_is_no_m() -> None:
    with pytest.raises(ConfigError, match=r"asks for 2 runs, and this is about one run\. Choose one value\.$"):
        single(["balancer=aux,lossfree"], *ONE_RUN)


def test_a_link_stays_as_it_was_typed() -> None:
    combinations = expand(["lr_split=static", "lr_split.expert=1,${lr_split.dense}", "lr_split.dense=0.5"]).combinations
    assert [[str(s) for s in c][1] for c in combinations] == ["lr_split.expert=1", "lr_split.expert=${lr_split.dense}"]
