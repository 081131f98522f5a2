"""Kinds of claims: one place to add, known everywhere, and none without its judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.results.folders import make_manifest
from unit.results.suite import make_suite_run, short_hash, sweep_content

from moe_sweeps.records.claims import KINDS, Kind, Statement
from moe_sweeps.records.words import NOT_JUDGED, UNDECIDED
from moe_sweeps.reports.scorecard import claims_markdown
from moe_sweeps.results import claims
from moe_sweeps.results.claims import JUDGES, judge
from moe_sweeps.results.findings import Effect, Finding, Verdict
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table
from moe_sweeps.sweep.expectation import read_expectation

ARMS = [{"aux.coef": "0.1"}, {"aux.coef": "0.2"}]
PAIR = {"arm": short_hash(ARMS[1]), "than": short_hash(ARMS[0])}
HEAD = {"claim": "c", "metric": "val_loss", "better": "lower"}


def judged(root: Path, **statement: Any) -> tuple[Table, Verdict]:
    for settings in ARMS:
        for seed in range(2):
            make_suite_run(root, settings, seed, loss=4.0 + seed / 10, maxvio=0.1)
    manifest = make_manifest(root, sweep_content("x", ARMS, 2, expect=[HEAD | statement]))
    table = ablation_table(manifest, read_runs(root))
    return table, judge(table)[0]


def test_every_kind_has_a_judge_and_every_judge_a_kind() -> None:
    assert JUDGES.keys() == KINDS.keys()


@pytest.mark.parametrize(
    "code",
    [
        "from moe_sweeps.records.claims import KINDS, Kind; KINDS['same'] = Kind('m', ('arm',));",
        "from moe_sweeps.records.claims import KINDS; KINDS.pop('better');",
    ],
)
def test_one_without_the_other_cannot_be_imported(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code} import moe_sweeps.results.claims"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no judge for claims of kind same" in done.stderr or "better is no kind of claim" in done.stderr


def test_a_kind_has_one_judge() -> None:
    with pytest.raises(ValueError, match="claims of kind better have two judges"):
        claims.judges("better")(JUDGES["worse"])


def test_a_new_kind_is_known_from_the_sweep_file_to_the_scorecard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "equal", Kind("arm and `than` are equal", ("arm", "than"), ("by",)))

    def equal(case: Any) -> Finding:
        return Finding(np.zeros(2), np.ones(2), case.difference(), "they are", "they are not", "it is open")

    monkeypatch.setitem(JUDGES, "equal", equal)
    claims.require_judges()
    settings = {"arm": {"aux.coef": "0.2"}, "than": {"aux.coef": "0.1"}}
    assert read_expectation({"claim": "c", "kind": "equal", "metric": "val_loss", "by": "0.5", **settings}).by == 0.5
    table, found = judged(tmp_path, kind="equal", **PAIR)
    assert (found.verdict, found.why) == ("reproduced", "they are")
    assert found.effect is not None
    assert found.effect.value == pytest.approx(0.0)
    assert "| c | **reproduced**: they are (p 0) |" in claims_markdown([(table, [found])])


def test_a_bug_in_a_judge_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: Any) -> tuple[str, str, Effect]:
        raise KeyError("bug")

    monkeypatch.setitem(JUDGES, "better", broken)
    with pytest.raises(KeyError, match="bug"):
        judged(tmp_path, kind="better", **PAIR)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ({"kind": "of_tomorrow"}, "this version knows no kind of_tomorrow of claims"),
        ({"kind": "not_worse", **PAIR}, "the manifest has no within for it, which kind=not_worse needs"),
        ({"kind": "better", "arm": PAIR["arm"]}, "the manifest has no than for it, which kind=better needs"),
        ({"kind": "rises", "points": [["0.1", "a"]]}, "the manifest has no axis for it, which kind=rises needs"),
        (
            {"kind": "best_at", "axis": "a", "points": [["1", "a"], ["2", "b"]], "at": ["3"]},
            "the manifest has no at for it, which kind=best_at needs",
        ),
    ],
)
def test_what_this_version_cannot_judge_is_not_undecided(tmp_path: Path, statement: dict[str, Any], why: str) -> None:
    table, found = judged(tmp_path, **statement)
    assert (found.verdict, found.why) == (NOT_JUDGED, why)
    counts = "1 statement: 0 reproduced, 0 contradicted, 0 undecided, 1 not judged."
    assert counts in claims_markdown([(table, [found])])


def test_a_missing_arm_is_undecided(tmp_path: Path) -> None:
    _, found = judged(tmp_path, kind="better", arm="0" * 12, than=PAIR["than"])
    assert (found.verdict, found.why) == (UNDECIDED, f"no value for {'0' * 12}")


def test_a_statement_is_what_it_was_after_it_was_stored() -> None:
    pair = Statement("c", "better", "val_accuracy", "higher", "here", arm="a", than="b", by=0.5)
    axis = Statement("c", "best_at", "val_loss", axis="x", points=(("1", "a"), ("2", "b")), at=("2",))
    none = Statement("c", "no_difference", "val_z_loss", None, cannot="no arm", within=0.1)
    assert [Statement.from_dict(s.to_dict()) for s in (pair, axis, none)] == [pair, axis, none]
    for wrong in ({}, {"claim": 1, "kind": "better", "metric": "x"}, 7):
        with pytest.raises((KeyError, TypeError)):
            Statement.from_dict(wrong)  # type: ignore[arg-type]
