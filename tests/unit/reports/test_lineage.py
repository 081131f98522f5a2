"""From a cell to its runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.results.folders import make_manifest
from unit.results.suite import AUX, GRID, make_suite, make_suite_run, short_hash, sweep_content

from moe_sweeps.cli.manage import main
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.reports.lineage import find_cell, is_cell, lineage


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    make_suite(folder)
    return folder


@pytest.mark.parametrize(
    ("word", "expected"),
    [("aux_coef:1,val_loss", True), ("smoke-aux-0123", False), ("balancer=aux", False), ("a:b", False),
     ("name=x:1,2", False), ("aux_coef:balancer=aux aux.coef=0.1,val loss", True)],
)  # fmt: skip
def test_a_cell_is_told_from_a_run(word: str, expected: bool) -> None:
    assert is_cell(word) == expected


@pytest.mark.parametrize(
    ("word", "settings", "column"),
    [
        ("aux_coef:3,val_loss", AUX[2], "val_loss"),
        ("aux_coef:lossfree,MaxVio global", AUX[5], "val_maxvio_global"),
        ("aux_coef:aux 0.4,accuracy %", AUX[3], "val_accuracy"),
        ("aux_coef:balancer=aux aux.coef=0.6,perplexity", AUX[4], "val_perplexity"),
        ("lr_split:0.5,2", GRID[3], "val_loss"),
        ("lr_split:12,val_accuracy", GRID[11], "val_accuracy"),
    ],
)
def test_rows_and_columns_are_found(root: Path, word: str, settings: dict[str, str], column: str) -> None:
    cell = find_cell(word, root)
    assert (cell.arm.arm, cell.metric.column) == (short_hash(settings), column)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("aux_cof:1,val_loss", "no table is called 'aux_cof'. Did you mean aux_coef"),
        ("aux_coef:7,val_loss", "no row is called '7'. There are: balancer=aux aux.coef=0.01"),
        ("aux_coef:aux,val_loss", "aux means 5 rows"),
        ("aux_coef:1,val_los", "no column is called 'val_los'. Did you mean val_loss"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(root: Path, word: str, message: str) -> None:
    with pytest.raises(MoeSweepsError) as error:
        find_cell(word, root)
    assert message in str(error.value)


def test_a_cell_lists_runs_hashes_code_data_attempts_and_commands(root: Path) -> None:
    text = "\n".join(lineage(find_cell("lr_split:0.5,2", root)))
    assert "from 2 of 3 planned runs" in text
    for seed in range(3):
        assert f"run {short_hash(GRID[3], seed)}, seed {seed}: " in text
        assert f"weights  w{seed}" in text
        assert f"batches  b{seed}" in text
        assert f"again    python train.py lr_split.dense=0.5 lr_split.expert=2 seed={seed}" in text
    assert text.count("code     c0de (commit abc123)") == 3
    assert text.count("data     da7a") == 3
    assert text.count("attempts 1") == 3
    assert "failed (step 150 of 400, ValueError: no luck), not in the mean" in text
    assert "MIXED" not in text


def test_mixed_versions_are_said(tmp_path: Path) -> None:
    make_manifest(tmp_path, sweep_content("x", AUX[:1], 2))
    for seed, code in enumerate(("c0de", "other")):
        make_suite_run(tmp_path, AUX[0], seed, loss=4.0, maxvio=1.0, code=code)
    assert list(lineage(find_cell("x:1,val_loss", tmp_path)))[-1] == "  MIXED: 2 versions of the code, 1 of the data"


def test_the_command_explains_a_cell(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(root))
    assert main(["explain", "aux_coef:3,val_loss"]) == 0
    assert f"run {short_hash(AUX[2], 0)}, seed 0: done" in capsys.readouterr().out
    assert main(["explain", "aux_coef:99,val_loss"]) == 2
    assert "no row is called" in capsys.readouterr().err


def test_a_line_that_means_another_run_today_says_so(root: Path) -> None:
    cell = find_cell("lr_split:0.5,2", root)
    text = "\n".join(lineage(cell, lambda folder, run_id: f"{folder.name} was {run_id}"))
    for seed in range(2):
        run_id = short_hash(GRID[3], seed)
        assert f"today    proxy-aux-{run_id} was {run_id}" in text or f"-{run_id} was {run_id}" in text
    assert "today" not in "\n".join(lineage(cell))
