"""Commands about runs in another folder than the default one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from moe_sweeps.cli.code_view import code_lines
from moe_sweeps.cli.roots import command_at, make_at
from moe_sweeps.paths import resolve
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.other_code import OtherCode


def test_a_command_says_where_its_runs_are_unless_it_looks_there_anyway(folders: Path, tmp_path: Path) -> None:
    assert command_at(folders, "retry", "x") == "moe-sweeps retry x"
    elsewhere = tmp_path / "it's here"  # typed as paths.runs
    words = ["env", f"MOE_SWEEPS_RUNS={elsewhere}"]
    assert shlex.split(command_at(elsewhere, "note", "x", "a b")) == [*words, "moe-sweeps", "note", "x", "a b"]
    assert shlex.split(make_at(elsewhere, "tables")) == [*words, "make", "tables"]


def test_a_relative_folder_is_the_same_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOE_SWEEPS_RUNS", raising=False)
    assert command_at(resolve("runs"), "status") == "moe-sweeps status"


@pytest.mark.parametrize("sweep_id", ["aaaaaaaaaaaa", None])
def test_results_of_other_code_are_trained_again_where_they_are(
    folders: Path, tmp_path: Path, sweep_id: str | None
) -> None:
    elsewhere = tmp_path / "other"
    found = OtherCode(trained=[RunDir(elsewhere / "fake-000000000001")])
    line = next(line for line in code_lines(found, sweep_id) if "train them again" in line)
    what = ["--other-code", sweep_id] if sweep_id else ["000000000001"]
    command = ["env", f"MOE_SWEEPS_RUNS={elsewhere}", "moe-sweeps", "retry", "--done", *what]
    assert shlex.split(line.partition("again: ")[2]) == command
