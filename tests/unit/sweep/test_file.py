"""Sweep files: typed, complete, testable, and a start that the command line can change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TINY

from moe_sweeps.errors import ConfigError
from moe_sweeps.paths import SWEEPS
from moe_sweeps.sweep.file import load_sweep, matches
from moe_sweeps.sweep.grid import expand, single
from moe_sweeps.sweep.manifest import bound
from moe_sweeps.sweep.plan import make_plan

NAMES = sorted(p.stem for p in SWEEPS.glob("*.yaml"))
GOOD = """
question: Which?
source: here
baseline: {aux.coef: 0.1}
grid: {balancer: aux, aux.coef: [0.1, 0.2]}
expect:
  - {claim: c, kind: better, metric: val_loss, arm: {aux.coef: 0.2}, than: {aux.coef: 0.1}, by: 0.01}
"""


@pytest.mark.parametrize("name", NAMES)
def test_every_sweep_file_says_what_it_is_for_and_plans(folders: Path, name: str) -> None:
    found = load_sweep(name)
    assert found.question.endswith("?")
    assert (SWEEPS / f"{name}.yaml").read_text().startswith("# ")
    plan = make_plan([f"sweep={name}", "scale=smoke"])
    assert plan.name == name
    assert len(plan.runs) == len(plan.requests)  # a built-in grid asks for nothing twice
    assert len(plan.arms(found.baseline)) == 1
    assert [bound(e, plan).cannot for e in found.expect] == [None] * len(found.expect)
    assert all(r.unread == {} for r in plan.requests)


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        ("noise_floor", 1),
        ("lr_split", 3 * 4),
        ("expert_lr_x_aux", 4 * 4),
        ("num_experts_x_aux", 2 * 2 + 2),
        ("lossfree_vs_aux", 3),
        ("aux_coef", 5 + 1),
        ("load_based_lr", 2 * (1 + 3 + 2)),
        ("shampoo", 2 * 2),
        ("gating", 2 * (2 + 1)),
        ("expert_lr_at_scale", 2 * 2),
        ("megatron_gating", 2 + 2 + 2),
        ("megatron_expert_lr", 2 * 2),
        ("router_learning", 12),
    ],
)
def test_the_built_in_grids(folders: Path, name: str, arms: int) -> None:
    plan = make_plan([f"sweep={name}", "scale=smoke"])
    assert len({p.arm for p in plan.runs.values()}) == arms
    assert len(plan.runs) == arms * len(load_sweep(name).seeds)


def test_equal_normalised_pressure_is_equal(folders: Path) -> None:
    """coef_talk = coef_switch * E/k (docs/definitions.md), so E=16 needs twice the coefficient of E=8."""
    grid = load_sweep("num_experts_x_aux").grid
    at_8, at_16 = grid[0].values("aux.coef"), grid[1].values("aux.coef")
    assert [2 * float(c) for c in at_8] == [float(c) for c in at_16]


def test_the_command_line_wins_and_what_it_replaced_is_known() -> None:
    grid = expand(["sweep=aux_coef", "aux.coef=0.3,0.5", "seed=7", "scale=smoke", "balancer=aux"])
    assert grid.axes == {"aux.coef": ["0.3", "0.5"]}
    assert all("seed=7" in [str(s) for s in c] for c in grid.combinations)
    assert [(r.key, r.old, r.new) for r in grid.replaced] == [
        ("aux.coef", ("0.01", "0.1", "0.2", "0.4", "0.6"), ("0.3", "0.5")),
        ("seed", ("0", "1", "2"), ("7",)),
        ("scale", (), ("smoke",)),
        ("balancer", ("aux", "lossfree"), ("aux",)),
    ]
    assert expand(["sweep=aux_coef", "seed=0,1,2"]).replaced == ()  # what the file says already


def test_an_expectation_whose_arms_were_typed_away_cannot_be_judged(folders: Path) -> None:
    plan = make_plan(["sweep=aux_coef", *TINY, "aux.coef=0.1,0.2"])
    reasons = [bound(e, plan).cannot for e in load_sweep("aux_coef").expect]
    assert reasons == [None, None, None, "no arm has aux.coef=0.01"]


def test_an_expectation_is_bound_to_arms(folders: Path) -> None:
    plan = make_plan(["sweep=aux_coef", *TINY, "seed=0"])
    arm = {p.label: p.arm for p in plan.runs.values()}
    turning, falls, better, ratio = (bound(e, plan) for e in load_sweep("aux_coef").expect)
    assert turning.points == tuple((c, arm[f"balancer=aux aux.coef={c}"]) for c in ("0.01", "0.1", "0.2", "0.4", "0.6"))
    assert (turning.kind, turning.metric, turning.better) == ("turning_point", "val_loss", "lower")
    assert turning.at == ("0.2",)
    assert falls.points == turning.points
    assert (better.arm, better.than) == (arm["balancer=lossfree"], arm["balancer=aux aux.coef=0.2"])
    assert ratio.bound == 5.0


def test_points_are_in_order_and_spelt_as_in_the_plan(folders: Path) -> None:
    plan = make_plan(["sweep=expert_lr_x_aux", *TINY, "seed=0", "lr_split.expert=2.0,0.5,1.0"])
    along = [bound(e, plan) for e in load_sweep("expert_lr_x_aux").expect if e.axis == "lr_split.expert" and e.at]
    assert along
    for statement in along:
        values = [value for value, _ in statement.points]
        assert values == ["0.5", "1.0", "2.0"]
        assert statement.at
        assert set(statement.at) <= set(values)


def test_a_sweep_needs_m() -> None:
    with pytest.raises(ConfigError, match="Add -m to sweep"):
        single(["sweep=aux_coef"])


def test_an_unknown_sweep_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep=aux_coeff is refused.*Did you mean sweep=aux_coef\?"):
        expand(["sweep=aux_coeff"])


def test_scalars_are_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD.replace("[0.1, 0.2]", "[0.10, 2e-1, null, true]"))
    assert load_sweep("mine", tmp_path).grid[0].values("aux.coef") == ("0.10", "2e-1", "null", "true")


# (what to replace in GOOD, by what, what the message must say)
MISTAKES = [
    ("grid:", "gird:", r"sweep\.gird=.*Did you mean grid\?"),
    ("question: Which?", "", r"question= is refused: a sweep file must say it"),
    ("source: here", "source: [a]", r"source=.* is refused: it must be a text"),
    ("source: here", "source: here\nsource: there", r"source= is refused: one mapping has the key twice"),
    ("source: here", "source: here\nseeds: [a]", r"seeds=a is refused: a seed is a whole number"),
    ("source: here", "source: here\nseeds: []", r"seeds=\[\] is refused: a sweep needs at least one seed"),
    ("source: here", "source: here\nseeds: [1, 1]", r"seeds=1, 1 is refused: a seed is listed twice"),
    ("source: here", "source: {here", r"the file cannot be read \(while parsing"),
    ("[0.1, 0.2]", "[]", r"aux\.coef=\[\] is refused: the axis has no values"),
    ("[0.1, 0.2]", "[0.1, [0.2]]", r"a value is a number, a word"),
    ("balancer: aux,", "seed: [1],", r"seeds are replicates"),
    ("aux.coef: [0.1, 0.2]", "aux.coef: [0.1, 0.2], zip: {a: [1, 2], b: [1]}", r"a has 2, b has 1 is refused"),
    ("aux.coef: [0.1, 0.2]", "aux.coef: [0.1, 0.2], zip: {balancer: [aux]}", r"balancer= is refused: one block"),
    ("aux.coef: [0.1, 0.2]", "aux.coef: [0.1, 0.2], zip: 3", r"zip=3 is refused: it must be a mapping"),
    ("0.2]", "0.2], exclude: {balancer: aux}", r"exclude=balancer=aux is refused: it removes every combination"),
    ("0.2]", "0.2], exclude: {aux.coeff: 0.1}", r"exclude=aux\.coeff is refused.*Did you mean aux\.coef\?"),
    ("0.2]", "0.2], exclude: {aux.coef: 0.3}", r"exclude: aux\.coef=0\.3 is refused: aux\.coef has the values 0\.1"),
    ("baseline: {aux.coef: 0.1}", "baseline: {aux.coef: 0.3}", r"baseline: aux\.coef=0\.3 is refused: the grid"),
    ("baseline: {aux.coef: 0.1}", "baseline: {aux.cof: 0.1}", r"baseline=aux\.cof is.*Did you mean aux\.coef\?"),
    ("kind: better", "kind: beter", r"expect\.kind=beter is refused.*Did you mean better\?"),
    ("metric: val_loss", "metric: val_los", r"expect\.metric=val_los is refused.*Did you mean val_loss\?"),
    ("metric: val_loss", "metric: params_total", r"it has no better direction"),
    ("by: 0.01", "bye: 0.01", r"expect\.bye=0\.01 is refused.*Did you mean by\?"),
    ("by: 0.01", "by: x", r"expect\.by=x is refused: it must be a number"),
    ("than: {aux.coef: 0.1}", "than: {aux.coef: 0.7}", r"expect\.better: aux\.coef=0\.7 is refused"),
    (", than: {aux.coef: 0.1}", "", r"expect\.than=null is refused: kind=better needs it"),
    ("source: here", "source: here\nall: no", r"all=no is refused: it must be true or false. Write all: false\."),
    ("source: here", "source: here\nall: [true]", r"all=\['true'\] is refused: it must be true or false"),
    ("claim: c, ", "", r"expect\.claim=null is refused: every expectation needs claim"),
    ("better, metric: val_loss, arm: {aux.coef: 0.2}, than: {aux.coef: 0.1}, by: 0.01",
     "falls, metric: val_loss, axis: aux.cof", r"expect\.axis=aux\.cof is refused.*Did you mean aux\.coef\?"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES, ids=[f"{old} -> {new}" for old, new, _ in MISTAKES])
def test_mistakes_in_a_sweep_file_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    (tmp_path / "mine.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_sweep("mine", tmp_path)
    assert caught.value.__notes__ == ["in sweeps/mine.yaml"]


BOMB = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question: " + "[" * 20_000, "the file cannot be read"),
        ("{" * 20_000, "the file cannot be read"),
        (b"question: \xff", "the file cannot be read .*utf-8"),
        ("question: \0", "the file cannot be read"),
        ("? [a, b]\n: c", "a key must be a text"),
        ("? {a: b}\n: c", "a key must be a text"),
        (GOOD + BOMB, "its aliases stand for more than 100,000 values"),
        ("a: &a [*a]", "the file cannot be read"),
        (GOOD + "#" * 2**20, "more than 1,048,576"),
        (GOOD.replace("source: here", f"source: here\nseeds: [{'9' * 5000}]"), "a seed is a whole number"),
        (GOOD.replace("source: here", f"source: here\nseeds: [{'9' * 400}]"), "a seed is a whole number"),
        ("- a", "it must be a mapping"),
        ("", "must"),
        ("a: 1\n---\nb: 2", "the file cannot be read"),
        ("a: !!python/object:os.system x", "sweep"),
    ],
)
def test_a_file_that_would_cost_time_or_raise_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=message):
        load_sweep("mine", tmp_path)


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero"), lambda p: p.symlink_to("nowhere")],
    ids=["fifo", "folder", "device", "dangling"],
)
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Reading a FIFO would wait for ever, and a device would never end."""
    make(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match="the file cannot be read"):
        load_sweep("mine", tmp_path)


def test_a_file_may_be_a_link_and_may_have_aliases(tmp_path: Path) -> None:
    """It is the user's own."""
    text = GOOD.replace("baseline: {aux.coef: 0.1}", "baseline: &b {aux.coef: 0.1}").replace(
        "than: {aux.coef: 0.1}", "than: *b"
    )
    (tmp_path / "elsewhere").write_text(text)
    (tmp_path / "mine.yaml").symlink_to("elsewhere")
    assert load_sweep("mine", tmp_path).baseline == {"aux.coef": "0.1"}


def test_an_unknown_axis_is_refused_with_the_nearest_spelling(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD.replace("aux.coef", "aux.coeff"))
    monkeypatch.setattr("moe_sweeps.sweep.grid.load_sweep", lambda name: load_sweep(name, tmp_path))
    with pytest.raises(ConfigError, match=r"aux\.coeff=0\.1 is refused.*Did you mean aux\.coef\?") as caught:
        make_plan(["sweep=mine", *TINY])
    assert "in sweeps/mine.yaml or typed beside it" in caught.value.__notes__


def test_a_file_may_link_one_axis_to_another(tmp_path: Path) -> None:
    text = GOOD.replace("[0.1, 0.2]", "[0.1, 0.2], router.z_loss: '${aux.coef}'")
    (tmp_path / "mine.yaml").write_text(text)
    block = load_sweep("mine", tmp_path).grid[0]
    assert block.values("router.z_loss") == ("${aux.coef}",)
    assert matches({"aux.coef": "0.1", "router.z_loss": "0.10"}, {"aux.coef": "0.1", "router.z_loss": "${aux.coef}"})
    assert not matches({"router.z_loss": "0.2"}, {"aux.coef": "0.1", "router.z_loss": "${aux.coef}"})
