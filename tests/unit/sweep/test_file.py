"""Sweep files: typed, complete, and a start that the command line can change."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY

from moe_sweeps.errors import ConfigError
from moe_sweeps.paths import SWEEPS
from moe_sweeps.sweep.file import load_sweep
from moe_sweeps.sweep.grid import expand, single
from moe_sweeps.sweep.plan import make_plan

NAMES = sorted(p.stem for p in SWEEPS.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_sweep_file_says_what_it_is_for_and_plans(folders: Path, name: str) -> None:
    found = load_sweep(name)
    assert found.question.endswith("?")
    assert found.source
    assert found.expectation
    assert (SWEEPS / f"{name}.yaml").read_text().startswith("# ")
    plan = make_plan([f"sweep={name}", *TINY])
    assert plan.name == name
    assert len(plan.runs) >= len(found.seeds)


def test_the_grid_is_the_file_and_the_command_line_wins() -> None:
    grid = expand(["sweep=aux_coef", "aux.coef=0.3,0.5", "seed=7"])
    assert grid.axes == {"balancer": ["aux", "lossfree"], "aux.coef": ["0.3", "0.5"]}
    assert all("seed=7" in [str(s) for s in c] for c in grid.combinations)


def test_aux_coef_is_eighteen_runs_of_thirty(folders: Path) -> None:
    plan = make_plan(["sweep=aux_coef", *TINY])
    assert (len(plan.requests), len(plan.runs)) == (30, 18)  # five coefficients and lossfree, three seeds


def test_a_sweep_needs_m() -> None:
    with pytest.raises(ConfigError, match="Add -m to sweep"):
        single(["sweep=aux_coef"])


def test_an_unknown_sweep_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep=aux_coeff is refused.*Did you mean sweep=aux_coef\?"):
        expand(["sweep=aux_coeff"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question: q?\nsource: s\ngird: {}\n", "gird"),
        ("question: q?\nsource: s\nseeds: [a]\n", "cannot be read"),
        ("question: q?\nsource: s\ngrid: {aux.coef: []}\n", r"aux\.coef=\[\] is refused: the axis has no values"),
        ("source: s\n", "question"),
    ],
)
def test_mistakes_in_a_sweep_file_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_sweep("mine", tmp_path)
