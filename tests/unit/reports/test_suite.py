"""open_suite: what the notebooks begin with, on a generated suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from unit.results.suite import make_suite

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.reports import Suite, open_suite
from moe_sweeps.reports.suite import Picture
from moe_sweeps.results import load_runs


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    root = tmp_path_factory.mktemp("suite")
    make_suite(root, seeds=2)
    return open_suite(root)


def test_it_says_what_it_holds(suite: Suite) -> None:
    shown = repr(suite)
    assert f"{(suite.runs['state'] == 'done').sum()} done" in shown
    assert "aux_coef" in shown
    assert len(suite.runs) == len(load_runs(suite.root).frame)


def test_a_table_has_its_numbers_and_sheets(suite: Suite) -> None:
    text = str(suite.table("lr_split"))
    arm = suite.ablation("lr_split").arms[0]
    assert f"{arm.cells['val_loss'].mean:.4f}" in text
    for heading in ("val loss over lr_split.dense and lr_split.expert", "Difference to", "Beside the published values"):
        assert heading in text.replace("\\", "")
    assert "NOT FINAL" in text  # the suite has failed, running and missing runs


def test_figures_are_png_and_svg_with_their_reading(suite: Suite) -> None:
    picture = suite.figure("lr_split", "heat")
    assert isinstance(picture, Picture)
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert b"<svg" in picture.svg
    assert "Lighter" in str(picture)


def test_a_picture_that_cannot_be_drawn_is_a_sentence(suite: Suite) -> None:
    assert str(suite.figure("aux_coef", "heat")) == "*Grid: the table is no grid.*"


def test_curves_are_those_of_the_runs_that_are_done(suite: Suite) -> None:
    done = set(suite.runs.query("state == 'done'")["run_id"])
    assert set(suite.curves()["run_id"]) == done
    one = suite.runs.head(1)
    assert set(suite.curves(one)["run_id"]) == set(one["run_id"])


def test_a_damaged_curve_is_a_problem_and_in_no_number(tmp_path: Path) -> None:
    make_suite(tmp_path, seeds=2)
    damaged = open_suite(tmp_path)
    run_id, folder = damaged.runs.query("state == 'done' and balancer == 'aux'").iloc[0][["run_id", "folder"]]
    (Path(folder) / "metrics.jsonl").write_text("not JSON\n")
    assert run_id not in set(damaged.curves()["run_id"])
    damaged.figure("aux_coef", "curves")
    assert [str(problem.path) for problem in damaged.problems] == [folder]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.table("aux_coeff"), "Did you mean aux_coef"),
        (lambda s: s.figure("aux_coef", "curve"), "Did you mean curves"),
    ],
)
def test_what_is_not_there_is_said(suite: Suite, ask: Callable[[Suite], object], message: str) -> None:
    with pytest.raises(MoeSweepsError, match=message):
        ask(suite)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MoeSweepsError, match="there are no runs"):
        open_suite(tmp_path)
