"""Every kind of statement, where it is reproduced, contradicted and undecided, on numbers that say which by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats  # type: ignore[import-untyped]
from unit.results.folders import make_manifest
from unit.results.suite import Settings, make_suite, make_suite_run, short_hash, sweep_content

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.words import CONTRADICTED, REPRODUCED, UNDECIDED
from moe_sweeps.reports.scorecard import claims_markdown
from moe_sweeps.results.claims import judge
from moe_sweeps.results.findings import Effect, Verdict
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table

ARMS: list[Settings] = [{"aux.coef": c} for c in ("0.1", "0.2", "0.4")]
ID = [short_hash(settings) for settings in ARMS]
# Seeds move all arms alike, and differences by about 0.001: a gain of 0.05 is clear, one of 0.0005 is not.
WOBBLE = (0.0, 0.001, -0.001, 0.0005)


def verdict(root: Path, statement: dict[str, Any], means: tuple[float, ...], *, seeds: int = 4, noise: bool = False,
            lost: int | None = None, spread: float = 0.0, **changes: Any) -> Verdict:  # fmt: skip
    for place, (settings, mean) in enumerate(zip(ARMS, means, strict=False)):
        for seed in range(seeds):
            loss = mean + 0.1 * seed + WOBBLE[seed] * (1 + place)
            own = changes if place == 1 else {}
            own = own | ({"state": "diverged"} if place == 1 and seed == lost else {})
            make_suite_run(root, settings, seed, loss=loss, maxvio=loss / 10, **own)
    expect = [{"claim": "x", "metric": "val_loss", "better": "lower", "source": None, "cannot": None} | statement]
    make_manifest(root, sweep_content("x", ARMS[: len(means)], seeds, expect=expect))
    if noise:
        make_manifest(root, sweep_content("noise_floor", [{"name": "n"}], 4))
        for seed in range(4):
            make_suite_run(root, {"name": "n"}, seed, loss=4 + WOBBLE[seed], maxvio=0.3)
    for seed in range(3 if spread else 0):  # an arm of no noise_floor sweep
        make_suite_run(root, {"name": "loud"}, seed, loss=4 + spread * seed, maxvio=0.3)
    runs, (manifests, _) = read_runs(root), load_manifests(root)
    floor = Noise.of(runs, manifests)
    return judge(ablation_table(next(m for m in manifests if m.name == "x"), runs, noise=floor))[0]


PAIR = {"arm": ID[1], "than": ID[0]}
POINTS = {"axis": "aux.coef", "points": [["0.1", ID[0]], ["0.2", ID[1]], ["0.4", ID[2]]]}


@pytest.mark.parametrize(
    ("statement", "means", "expected"),
    [
        ({"kind": "better", **PAIR}, (4.0, 3.95), REPRODUCED),
        ({"kind": "better", **PAIR}, (4.0, 4.05), CONTRADICTED),
        ({"kind": "better", **PAIR}, (4.0, 4.0), UNDECIDED),
        ({"kind": "better", "by": 0.02, **PAIR}, (4.0, 3.95), REPRODUCED),
        ({"kind": "better", "by": 0.08, **PAIR}, (4.0, 3.95), CONTRADICTED),
        ({"kind": "better", "by": 0.05, **PAIR}, (4.0, 3.95), UNDECIDED),
        ({"kind": "better", "metric": "val_accuracy", "better": "higher", **PAIR}, (4.0, 3.95), REPRODUCED),
        ({"kind": "worse", **PAIR}, (4.0, 4.05), REPRODUCED),
        ({"kind": "worse", **PAIR}, (4.0, 3.95), CONTRADICTED),
        ({"kind": "no_difference", "within": 0.01, **PAIR}, (4.0, 4.0), REPRODUCED),
        ({"kind": "no_difference", "within": 0.01, **PAIR}, (4.0, 4.05), CONTRADICTED),
        ({"kind": "no_difference", "within": 0.001, **PAIR}, (4.0, 4.0), UNDECIDED),
        ({"kind": "not_worse", "within": 0.01, **PAIR}, (4.0, 4.0), REPRODUCED),
        ({"kind": "not_worse", "within": 0.01, **PAIR}, (4.0, 3.5), REPRODUCED),
        ({"kind": "not_worse", "within": 0.01, **PAIR}, (4.0, 4.05), CONTRADICTED),
        ({"kind": "not_worse", "within": 0.001, **PAIR}, (4.0, 4.0), UNDECIDED),
        ({"kind": "not_worse", "within": 0.5, "metric": "val_accuracy", "better": "higher", **PAIR}, (4.0, 3.95),
         REPRODUCED),
        ({"kind": "ratio_at_least", "bound": 1.1, **PAIR}, (2.0, 2.6), REPRODUCED),
        ({"kind": "ratio_at_least", "bound": 1.1, **PAIR}, (2.0, 2.0), CONTRADICTED),
        ({"kind": "ratio_at_most", "bound": 1.1, **PAIR}, (2.0, 2.0), REPRODUCED),
        ({"kind": "ratio_at_most", "bound": 1.1, **PAIR}, (2.0, 2.6), CONTRADICTED),
        ({"kind": "rises", **POINTS}, (4.0, 4.05, 4.1), REPRODUCED),
        ({"kind": "rises", **POINTS}, (4.1, 4.05, 4.0), CONTRADICTED),
        ({"kind": "rises", **POINTS}, (4.0, 4.2, 4.1), CONTRADICTED),
        ({"kind": "rises", "by": 0.2, **POINTS}, (4.0, 4.05, 4.1), CONTRADICTED),
        ({"kind": "falls", **POINTS}, (4.1, 4.05, 4.0), REPRODUCED),
        ({"kind": "falls", **POINTS}, (4.0, 4.0, 4.0), UNDECIDED),
        ({"kind": "best_at", "at": ["0.1"], **POINTS}, (4.0, 4.1, 4.2), REPRODUCED),
        ({"kind": "best_at", "at": ["0.1"], **POINTS}, (4.2, 4.1, 4.0), CONTRADICTED),
        ({"kind": "best_at", "at": ["0.1"], **POINTS}, (4.0, 4.0, 4.2), UNDECIDED),
        ({"kind": "turning_point", "at": ["0.2"], **POINTS}, (4.1, 4.0, 4.1), REPRODUCED),
        ({"kind": "turning_point", "at": ["0.2", "0.4"], **POINTS}, (4.1, 4.0, 4.1), REPRODUCED),
        ({"kind": "turning_point", "at": ["0.2", "0.4"], **POINTS}, (4.2, 4.1, 4.0), UNDECIDED),
        ({"kind": "turning_point", "at": ["0.2"], **POINTS}, (4.2, 4.1, 4.0), CONTRADICTED),
        ({"kind": "spread_at_most", "arm": ID[0], "bound": 1.0}, (4.0,), REPRODUCED),
        ({"kind": "spread_at_most", "arm": ID[0], "bound": 0.01}, (4.0,), CONTRADICTED),
        ({"kind": "spread_at_most", "arm": ID[0], "bound": 0.13}, (4.0,), UNDECIDED),
    ],
)  # fmt: skip
def test_verdicts(tmp_path: Path, statement: dict[str, Any], means: tuple[float, ...], expected: str) -> None:
    found = verdict(tmp_path, statement, means)
    assert found.verdict == expected, found.why
    assert found.effect is not None
    if expected == REPRODUCED:
        assert on_its_side(found.effect)
    elif expected == CONTRADICTED and "points" not in statement:  # of points, what contradicts may be another pair
        assert not on_its_side(found.effect)


def on_its_side(effect: Effect) -> bool:
    """Whether the number lies where the statement would hold, by the borders that a figure draws."""
    if effect.side == 0:
        low, high = effect.borders
        return low < effect.value < high
    (border,) = effect.borders
    return (effect.value - border) * effect.side > 0


@pytest.mark.parametrize(
    ("statement", "borders", "side"),
    [
        ({"kind": "better", "by": 0.02, **PAIR}, (-0.02,), -1),
        ({"kind": "better", "metric": "val_accuracy", "better": "higher", "by": 0.02, **PAIR}, (0.02,), 1),
        ({"kind": "worse", "by": 0.02, **PAIR}, (0.02,), 1),
        ({"kind": "not_worse", "within": 0.01, **PAIR}, (0.01,), -1),
        ({"kind": "no_difference", "within": 0.01, **PAIR}, (-0.01, 0.01), 0),
        ({"kind": "ratio_at_least", "bound": 1.1, **PAIR}, (1.1,), 1),
        ({"kind": "ratio_at_most", "bound": 1.1, **PAIR}, (1.1,), -1),
        ({"kind": "better", "metric": "val_maxvio_global", **PAIR}, (1.0,), -1),
        ({"kind": "spread_at_most", "arm": ID[0], "bound": 1.0}, (1.0,), -1),
        ({"kind": "rises", "by": 0.02, **POINTS}, (0.02,), 1),
        ({"kind": "falls", "by": 0.02, **POINTS}, (-0.02,), -1),
        ({"kind": "best_at", "at": ["0.1"], **POINTS}, (0.0,), -1),
    ],
)
def test_borders_are_those_of_the_statement(tmp_path: Path, statement: dict[str, Any], borders: tuple[float, ...],
                                            side: int) -> None:  # fmt: skip
    effect = verdict(tmp_path, statement, (4.0, 3.95, 4.1)).effect
    assert effect is not None
    assert list(effect.borders) == pytest.approx(borders)
    assert effect.side == side


def test_effect_interval_and_n_are_those_of_the_paired_test(tmp_path: Path) -> None:
    effect = verdict(tmp_path, {"kind": "better", **PAIR}, (4.0, 3.95)).effect
    assert effect is not None
    differences = [-0.05 + w for w in WOBBLE]  # the second arm wobbles twice as much as the first
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(1 - FIRST)
    assert (effect.n, effect.basis) == ((4, 4), "paired by seed")
    assert [effect.low, effect.high] == pytest.approx([float(low), float(high)])


def test_spread_has_the_chi_squared_interval(tmp_path: Path) -> None:
    effect = verdict(tmp_path, {"kind": "spread_at_most", "arm": ID[0], "bound": 1.0}, (4.0,)).effect
    assert effect is not None
    sd = effect.value
    expected = [sd * (3 / q) ** 0.5 for q in stats.chi2.ppf([1 - FIRST / 2, FIRST / 2], 3)]
    assert [effect.low, effect.high] == pytest.approx(expected)


def test_intervals_of_one_sweep_hold_together(tmp_path: Path) -> None:
    make_suite(tmp_path)
    runs, (manifests, _) = read_runs(tmp_path), load_manifests(tmp_path)
    table = ablation_table(next(m for m in manifests if m.name == "aux_coef"), runs)
    found = judge(table)
    assert [v.verdict for v in found] == [REPRODUCED, UNDECIDED, CONTRADICTED, CONTRADICTED]
    effect, compared = found[3].effect, table.differences[short_hash({"balancer": "aux", "aux.coef": "0.6"})]
    assert effect is not None
    assert effect.value == pytest.approx(compared.difference)
    alone = judge(replace(table, manifest=replace(table.manifest, expect=table.manifest.expect[3:4])))[0].effect
    assert alone is not None
    assert alone.low is not None
    assert effect.low is not None
    assert effect.low < alone.low  # four statements share the level
    assert len(found[3].runs) == 6
    text = claims_markdown([(table, found)])
    assert "4 statements: 1 reproduced, 2 contradicted, 1 undecided." in text
    assert "| 0.2 is best. | **reproduced**: 0.2 is better than every other point (p " in text


def test_one_seed_is_judged_by_alike_runs_or_not_at_all(tmp_path: Path) -> None:
    statement = {"kind": "better", **PAIR}
    alone = verdict(tmp_path / "a", statement, (4.0, 3.95), seeds=1)
    assert (alone.verdict, alone.why[:18]) == (UNDECIDED, "nothing to test by")
    clear = verdict(tmp_path / "b", statement, (4.0, 3.95), seeds=1, noise=True)
    assert clear.verdict == REPRODUCED
    assert clear.effect is not None
    assert clear.effect.basis == "one seed; spread of 1 alike arms"
    assert verdict(tmp_path / "c", statement, (4.0, 3.999), seeds=1, noise=True).verdict == UNDECIDED


def test_a_loud_arm_among_those_that_lend_makes_single_seeds_undecided(tmp_path: Path) -> None:
    statement = {"kind": "better", **PAIR}
    quiet = verdict(tmp_path / "a", statement, (4.0, 3.95), seeds=1, noise=True, spread=1e-3)
    assert quiet.verdict == REPRODUCED
    loud = verdict(tmp_path / "b", statement, (4.0, 3.95), seeds=1, noise=True, spread=0.1)
    assert loud.verdict == UNDECIDED
    assert loud.effect is not None
    assert loud.effect.basis == "one seed; spread of 2 alike arms"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "failed"}, "no value for aux.coef=0.2"),
        ({"code": "other"}, "its runs mix versions of code or data"),
    ],
)
def test_what_cannot_be_compared_is_undecided(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    found = verdict(tmp_path, {"kind": "better", **PAIR}, (4.0, 3.9), **changes)
    assert (found.verdict, found.why) == (UNDECIDED, why)


def test_survivors_of_a_diverged_arm_prove_nothing(tmp_path: Path) -> None:
    found = verdict(tmp_path, {"kind": "better", **PAIR}, (4.0, 3.9), lost=3)
    assert found.verdict == UNDECIDED
    assert found.why == "1 of 4 seeds of aux.coef=0.2 diverged or stopped: the rest flatters it"


def test_a_spread_without_its_lost_seeds_proves_nothing(tmp_path: Path) -> None:
    """The seed that scattered most is the one that diverged."""
    statement = {"kind": "spread_at_most", "arm": ID[1], "bound": 1.0}
    assert verdict(tmp_path / "all", statement, (4.0, 4.0)).verdict == REPRODUCED
    found = verdict(tmp_path / "lost", statement, (4.0, 4.0), lost=1)
    assert found.verdict == UNDECIDED
    assert "diverged or stopped" in found.why


def test_a_curve_may_turn_back_by_a_tenth_and_no_more(tmp_path: Path) -> None:
    """What turns back by less is neither contradicted nor in the way of the statement."""
    four = POINTS | {"points": [["0.1", ID[0]], ["0.2", ID[1]], ["0.4", ID[2]]]}
    assert verdict(tmp_path / "7", {"kind": "rises", **four}, (4.0, 5.07, 5.0)).verdict == REPRODUCED
    found = verdict(tmp_path / "13", {"kind": "rises", **four}, (4.0, 5.13, 5.0))
    assert found.verdict == CONTRADICTED
    assert found.why == "it goes the other way between 0.2 and 0.4"


def test_a_bound_is_told_beside_the_effect(tmp_path: Path) -> None:
    """That the interval holds both answers reads as a contradiction where it holds no zero."""
    found = verdict(tmp_path, {"kind": "better", "by": 0.05, **PAIR}, (4.0, 3.95))
    assert found.why.startswith("claimed below -0.0500, seen -0.0")


def test_what_the_plan_could_not_bind_is_said(tmp_path: Path) -> None:
    found = verdict(tmp_path, {"kind": "better", "cannot": "no arm has aux.coef=7"}, (4.0, 3.9))
    assert (found.verdict, found.why, found.effect) == (UNDECIDED, "no arm has aux.coef=7", None)
