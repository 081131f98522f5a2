"""What stands of several looks of `decide` (results/standing.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.results.folders import make_manifest
from unit.results.suite import Settings, make_suite_run, short_hash, sweep_content

from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.records.words import REPRODUCED, UNDECIDED
from moe_sweeps.reports.suite import open_suite
from moe_sweeps.reports.write import write_tables
from moe_sweeps.results.claims import judge
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.standing import is_replaced, standing_verdicts
from moe_sweeps.results.tables import ablation_table

ARMS: list[Settings] = [{"aux.coef": c} for c in ("0.1", "0.2")]
PAIR = {"arm": short_hash(ARMS[1]), "than": short_hash(ARMS[0])}
BETTER: dict[str, Any] = {"claim": "0.2 is better", "kind": "better", "metric": "val_loss", "better": "lower", **PAIR}
FIRST, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
# By seed: how much better 0.2 is. p is .008 with three of them and .011 with five, which look two holds against .001.
GAINS = (0.050, 0.065, 0.055, 0.0, 0.09)


def looks(root: Path, expect: list[dict[str, Any]], *, later: list[dict[str, Any]] | None = None) -> None:
    """Two looks of `decide` at two arms: the first at three seeds, the second at five."""
    for place, settings in enumerate(ARMS):
        for seed, gain in enumerate(GAINS):
            make_suite_run(root, settings, seed, loss=4 + 0.1 * seed - place * gain, maxvio=0.3)
    for i, (sweep, seeds) in enumerate([(FIRST, 3), (SECOND, 5)]):
        asked = [{"source": None, "cannot": None} | claim for claim in (later if later and i else expect)]
        content = sweep_content("x", ARMS, seeds, expect=asked)
        make_manifest(root, content | {"sweep_id": sweep, "created": f"2026-11-29T1{i}:00:00+00:00"})


def manifest(root: Path, sweep: str) -> Manifest:
    return next(m for m in load_manifests(root)[0] if m.sweep_id == sweep)


def words(root: Path, sweep: str) -> tuple[list[str], list[str]]:
    """The verdicts of a look by itself, and those that stand."""
    runs = read_runs(root)
    noise = Noise.of(runs, load_manifests(root)[0])
    table = ablation_table(manifest(root, sweep), runs, noise=noise)
    standing = standing_verdicts(table, runs, noise)
    return [v.verdict for v in judge(table)], [v.verdict for v in standing]


def test_what_a_look_decided_stays_decided_when_a_later_one_leaves_it_open(tmp_path: Path) -> None:
    looks(tmp_path, [BETTER])
    assert words(tmp_path, FIRST) == ([REPRODUCED], [REPRODUCED])
    assert words(tmp_path, SECOND) == ([UNDECIDED], [REPRODUCED])


def test_the_same_question_in_other_words_and_another_place_is_the_same(tmp_path: Path) -> None:
    worse = BETTER | {"claim": "and it is worse by a lot", "kind": "worse", "by": 0.5}
    looks(tmp_path, [BETTER], later=[worse, BETTER | {"claim": "double is better", "source": "us"}])
    assert words(tmp_path, SECOND)[1][1] == REPRODUCED


def test_another_question_is_not(tmp_path: Path) -> None:
    looks(tmp_path, [BETTER], later=[BETTER | {"by": 0.04}])
    assert words(tmp_path, SECOND) == ([UNDECIDED], [UNDECIDED])


def test_what_cannot_be_judged_today_does_not_stand(tmp_path: Path) -> None:
    looks(tmp_path, [BETTER], later=[BETTER | {"cannot": "no arm of the plan has it"}])
    assert words(tmp_path, SECOND)[1] == [UNDECIDED]


def test_each_question_is_counted_once(tmp_path: Path) -> None:
    """claims.md had 24 statements of 18: a sweep with three looks counted three times."""
    looks(tmp_path, [BETTER])
    write_tables(tmp_path, tmp_path / "reports")
    text = (tmp_path / "reports" / "claims.md").read_text()
    assert "1 statement: 1 reproduced" in text
    assert SECOND in text
    assert f"decided by look 1 (x ({FIRST})), which stands" in text.replace("\\", "")
    assert f"## x ({FIRST})" not in text
    page = (tmp_path / "reports" / "index.html").read_text()
    assert page.count("1 statements: 1 reproduced") == 1
    for look in (FIRST, SECOND):  # what was seen then stays to be read
        assert f'id="x-{look}"' in page
        assert (tmp_path / "reports" / f"x-{look}" / "table.md").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"created": "2026-11-29T12:00:00+00:00"},  # it is the later one then
    ],
)
def test_other_sweeps_are_replaced_by_none(tmp_path: Path, change: dict[str, str]) -> None:
    looks(tmp_path, [BETTER])
    first, second = manifest(tmp_path, FIRST), manifest(tmp_path, SECOND)
    assert is_replaced(first, [second, first])
    assert not is_replaced(second, [second, first])
    assert not is_replaced(replace(first, **change), [second, first])  # type: ignore[arg-type]


def test_a_look_at_an_arm_of_its_own_is_not_replaced(tmp_path: Path) -> None:
    looks(tmp_path, [BETTER])
    first, second = manifest(tmp_path, FIRST), manifest(tmp_path, SECOND)
    fewer = {i: run for i, run in second.runs.items() if run.arm == PAIR["arm"]}
    assert not is_replaced(first, [replace(second, runs=fewer)])
    assert is_replaced(replace(first, runs=fewer), [second])


def test_a_look_that_has_begun_with_some_arms_does_not_count_yet(tmp_path: Path) -> None:
    """Both were counted: the one before it, and this one, whose statements lack their arms."""
    looks(tmp_path, [BETTER])
    first, second = manifest(tmp_path, FIRST), manifest(tmp_path, SECOND)
    begun = replace(second, runs={i: run for i, run in second.runs.items() if run.arm == PAIR["arm"]})
    assert is_replaced(begun, [begun, first])
    assert not is_replaced(first, [begun, first])


def test_notebooks_count_the_look_before_one_that_has_begun(tmp_path: Path) -> None:
    looks(tmp_path, [BETTER])
    second = json.loads((tmp_path / "sweeps" / SECOND / "manifest.json").read_text())
    second["runs"] = {i: run for i, run in second["runs"].items() if run["arm"] == PAIR["arm"]}
    (tmp_path / "sweeps" / SECOND / "manifest.json").write_text(json.dumps(second))
    assert open_suite(tmp_path)._newest() == [FIRST]


def test_a_sweep_that_lost_an_arm_and_its_claim_counts_beside_the_old_one(tmp_path: Path) -> None:
    looks(tmp_path, [BETTER])
    first, second = manifest(tmp_path, FIRST), manifest(tmp_path, SECOND)
    edited = {i: run for i, run in second.runs.items() if run.arm == PAIR["arm"]}
    assert not is_replaced(replace(second, runs=edited, expect=()), [first, second])
