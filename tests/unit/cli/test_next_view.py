"""The last lines of a sweep, and that every command that is printed comes out of a shell as it was meant."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from unit.cli.fake_runs import fake_run, fake_sweep

from moe_sweeps.cli.manage import main
from moe_sweeps.cli.next_view import next_commands, print_next
from moe_sweeps.cli.search_view import reproduce
from moe_sweeps.experiment import provenance
from moe_sweeps.host.files import write_atomic
from moe_sweeps.launch.follow import RunRow, read_row
from moe_sweeps.paths import TRAIN
from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.reports.lineage import reproduce as again
from moe_sweeps.sweep.search.drive import Search
from moe_sweeps.sweep.search.plan import make_search_plan

LEARNING_RATE = "optimizer.base_lr=tag(log,interval(1e-3,3e-2))"


def words_of(line: str, shell: str = "sh") -> list[str]:
    """What a shell makes of a line."""
    echo = f"{shlex.quote(sys.executable)} -c 'import json,sys; print(json.dumps(sys.argv[1:]))' {line}"
    return list(json.loads(subprocess.run([shell, "-c", echo], capture_output=True, check=True).stdout))


@pytest.fixture
def ended(folders: Path) -> tuple[Manifest, list[RunRow]]:
    states = (State.done, State.done, State.failed, State.cancelled)
    runs = [fake_run(folders, n + 1, state) for n, state in enumerate(states)]
    for run, loss in ((runs[0], 4.1), (runs[1], 4.0)):
        run.write_summary({"val_loss": loss})
    fake_sweep(folders, runs)
    return load_manifests(folders)[0][0], [read_row(f"arm={n}", run) for n, run in enumerate(runs)]


def test_what_to_type_next_follows_from_how_it_ended(ended: tuple[Manifest, list[RunRow]]) -> None:
    sweep, rows = ended
    best, second = f"{2:012x}", f"{1:012x}"
    assert list(next_commands(sweep, rows)) == [
        "moe-sweeps retry aaaaaaaaaaaa",
        "moe-sweeps retry --cancelled aaaaaaaaaaaa",
        f"moe-sweeps compare {best} {second}",
        f"moe-sweeps report {best}",
        "moe-sweeps status aaaaaaaaaaaa",
        "moe-sweeps note aaaaaaaaaaaa 'what I learned'",
    ]
    assert [c for c in next_commands(sweep, rows[2:3]) if "compare" in c or "report" in c] == []


def test_what_to_type_next_says_where_the_runs_are(
    ended: tuple[Manifest, list[RunRow]], monkeypatch: pytest.MonkeyPatch, folders: Path, tmp_path: Path
) -> None:
    """They were trained with a typed paths.runs."""
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(tmp_path / "elsewhere"))
    assert {tuple(words_of(command)[:3]) for command in next_commands(*ended)} == {
        ("env", f"MOE_SWEEPS_RUNS={folders}", "moe-sweeps")
    }


def test_seeds_of_one_arm_are_not_set_against_each_other(folders: Path, ended: tuple[Manifest, list[RunRow]]) -> None:
    sweep, rows = ended
    for row, label in zip(rows, ("arm=0 seed=0", "arm=0 seed=1"), strict=False):
        object.__setattr__(row, "label", label)
    assert not any("compare" in command for command in next_commands(sweep, rows[:2]))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_each_command_stands_whole_on_a_line_and_is_known(
    ended: tuple[Manifest, list[RunRow]], width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, rows = ended
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_next(console, sweep, Path("/somewhere/index.html"), rows)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "page: /somewhere/index.html"
    for command in next_commands(sweep, rows):
        assert any(line.strip().startswith(command) for line in lines)
        name, verb, *words = words_of(command)
        assert name == "moe-sweeps"
        if verb in ("status", "note", "compare"):
            assert main([verb, *words]) in (0, 1), command
            capsys.readouterr()


def test_the_line_of_the_best_trial_pastes(folders: Path) -> None:
    plan = make_search_plan(["search=random", "scale=smoke", LEARNING_RATE, "seed=0,1"])
    search = Search(plan, "test")
    trial = plan.trial(0, {"optimizer.base_lr": 0.01}, [])
    settings = ["scale=smoke", "optimizer.base_lr=0.01", "seed=0,1"]
    assert words_of(reproduce(search, trial)) == [*TRAIN.split(), "-m", *settings]


def test_the_command_that_a_run_was_started_with_pastes(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["train.py", "-m", "search=tpe", LEARNING_RATE, "name=a b", "tracking.project=it's"]
    monkeypatch.setattr(sys, "argv", typed)
    assert words_of(provenance.command_line()) == ["python", *typed]


@pytest.mark.parametrize("key", ["launch.setup=[export HF_TOKEN=hf_abcdefgh12345678]", "hf_token=ab12'cd34\"ef56"])
def test_quotes_do_not_bring_a_key_back(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", key])
    shown = provenance.command_line()
    assert "abcdefgh12345678" not in shown
    assert "cd34" not in shown or "ab12" not in shown


@pytest.mark.parametrize("typed", [[LEARNING_RATE, "seed=1"], ["a=$(touch /tmp/pwned)", "b=`id`", "c='"], ["--help"]])
def test_the_line_that_trains_a_run_again_pastes(folders: Path, typed: list[str]) -> None:
    run: RunDir = fake_run(folders, 1, State.done)
    write_atomic(run.path / "overrides.yaml", json.dumps(typed))
    assert words_of(again({"folder": str(run.path)})) == [*TRAIN.split(), *typed]


def test_overrides_that_are_no_list_are_not_spelt(folders: Path) -> None:
    run = fake_run(folders, 1, State.done)
    write_atomic(run.path / "overrides.yaml", '"a text"')
    assert again({"folder": str(run.path), "command": "as it was"}) == "as it was"
