"""A number that a statement and a row of the table have in common: said where the two read differently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from unit.results.suite import make_suite, short_hash

from moe_sweeps.records.claims import Statement
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.words import REPRODUCED, UNDECIDED
from moe_sweeps.reports.scorecard import claim_sheet, claims_markdown
from moe_sweeps.results.claims import judge
from moe_sweeps.results.families import read_differently
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

WORST, BASE = ({"balancer": "aux", "aux.coef": coef} for coef in ("0.6", "0.1"))


def judged(root: Path, **changes: object) -> tuple[Table, list[Verdict]]:
    """The table of aux_coef and the verdict on one statement about its worst arm and its baseline."""
    make_suite(root)
    manifest = next(m for m in load_manifests(root)[0] if m.name == "aux_coef")
    pair = {"arm": short_hash(WORST), "than": short_hash(BASE), "metric": "val_loss"}
    statement = Statement(claim="it is", **{"kind": "worse", **pair, **changes})  # type: ignore[arg-type]
    table = ablation_table(replace(manifest, expect=(statement,)), read_runs(root))
    assert table.baseline == short_hash(BASE)
    return table, judge(table)


def test_where_both_agree_nothing_is_said(tmp_path: Path) -> None:
    table, found = judged(tmp_path)
    assert found[0].verdict == REPRODUCED
    assert table.differences[short_hash(WORST)].verdict == "worse"
    assert read_differently(table, found) == []


@pytest.mark.parametrize("turned", [{}, {"kind": "better", "arm": short_hash(BASE), "than": short_hash(WORST)}])
def test_a_number_that_is_open_in_one_family_is_named_in_both_outputs(tmp_path: Path, turned: dict[str, str]) -> None:
    table, found = judged(tmp_path, **turned)
    undecided = [replace(found[0], verdict=UNDECIDED, p=0.2)]
    (sentence,) = read_differently(table, undecided)
    assert "in val loss reads differently by family: undecided as a statement (p 0.2 over 1), worse in" in sentence
    sheet = claim_sheet(table, undecided)
    assert sheet is not None
    assert sentence in sheet.notes
    assert "reads differently by family" in claims_markdown([(table, undecided)])


@pytest.mark.parametrize("other", [{"by": 0.01}, {"kind": "no_difference", "within": 0.01}])
def test_another_question_about_the_same_number_is_no_contradiction(tmp_path: Path, other: dict[str, object]) -> None:
    table, found = judged(tmp_path, **other)
    assert read_differently(table, [replace(found[0], verdict=UNDECIDED, p=0.2)]) == []
