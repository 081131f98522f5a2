"""The second command."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest
from helpers import TINY, compose_run
from unit.results.routing import make_recorded_run

from moe_sweeps.__main__ import program
from moe_sweeps.cli.manage import _number, main
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.rundir import Failure, State, Status


def test_the_console_script_is_this_command() -> None:
    (script,) = entry_points(group="console_scripts", name="moe-sweeps")
    assert script.load() is program


def test_plan_writes_nothing(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *TINY, "balancer=aux,lossfree", "aux.coef=0.1,0.2"]) == 0
    shown = capsys.readouterr().out
    assert "4 combinations, 3 distinct runs" in shown
    assert shown.count("planned") == 3
    assert not folders.exists()


def test_a_refusal_is_a_message(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "aux.coeff=1,2"]) == 2
    assert "Did you mean aux.coef?" in capsys.readouterr().err


def test_status_lists_runs_and_failures(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 2
    assert "there are no runs" in capsys.readouterr().err
    first = freeze(compose_run(*TINY), [], command="test")
    assert main(["status"]) == 0
    assert f"{first.path.name}" in capsys.readouterr().out
    first.write_status(Status(State.failed, failure=Failure("ValueError", "no luck", "s")))
    assert main(["status"]) == 1
    assert "ValueError: no luck" in capsys.readouterr().out


def test_data_prepare_says_what_there_is(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "prepare"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("wikipedia") == 2
    assert real_data.fingerprint[:12] in shown


def test_tables_takes_the_options_of_make_tables(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--latest"]) == 2
    assert "Train some first" in capsys.readouterr().err


def test_report_draws_the_run_and_says_what_is_left_out(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_recorded_run(folders, dense=True)
    assert main(["report", run.run_id[:4]]) == 0
    shown = capsys.readouterr().out
    page = folders.parent / "reports" / run.path.name / "index.md"
    assert f"wrote 1 picture: {page}" in shown
    assert "not drawn: load: the model is dense" in shown
    assert page.exists()


def test_report_refuses_a_run_that_does_not_exist(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "nothing"]) == 2
    assert "there are no runs" in capsys.readouterr().err
    make_recorded_run(folders, dense=True)
    assert main(["report", "0123456789ac"]) == 2
    assert "Did you mean 0123456789ab?" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "count"), [("2.3M", 2_300_000), ("1.1G", 1_100_000_000), ("500000", 500_000)])
def test_a_count_is_what_its_decimals_say(text: str, count: int) -> None:
    assert _number(text) == count


@pytest.mark.parametrize("text", ["infM", "nanM", "xM", "-5", "0", "1e3", "9" * 30])
def test_what_is_no_count_is_a_message(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "prepare", f"--max-tokens={text}"])
    assert stopped.value.code == 2
    assert "--max-tokens" in capsys.readouterr().err
