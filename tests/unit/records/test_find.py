"""Which run or sweep a word means, the same for every command."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run
from unit.results.folders import make_manifest, manifest_content

from moe_sweeps.cli.manage import main
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records import find
from moe_sweeps.records.find import find_run, find_sweeps, is_setting
from moe_sweeps.records.rundir import RunDir, State, Status


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, run_id in (("smoke-aux", "aaa111111111"), ("smoke-aux", "aaa222222222"), ("talk", "bbb333333333")):
        RunDir.create(tmp_path, name, run_id, config={}, overrides=[], identity={}, provenance={}, total_steps=1)
    return tmp_path


@pytest.mark.parametrize("word", ["bbb333333333", "b", "talk-bbb333333333", "tal"])
def test_a_beginning_is_enough(root: Path, word: str) -> None:
    assert find_run(word, root).run_id == "bbb333333333"


def test_a_folder_is_a_run_wherever_it_is(root: Path, tmp_path: Path) -> None:
    assert find_run(str(root / "talk-bbb333333333"), tmp_path / "elsewhere").run_id == "bbb333333333"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("aaa", "means 2 runs: smoke-aux-aaa111111111, smoke-aux-aaa222222222"),
        ("bbb333333334", "Did you mean bbb333333333?"),
        ("zzz", "There are: smoke-aux-aaa111111111"),
        ("", "There are"),
    ],
)
def test_no_run_or_several_are_refused_with_a_way_on(root: Path, word: str, message: str) -> None:
    with pytest.raises(MoeSweepsError) as error:
        find_run(word, root)
    assert message in str(error.value)


def test_another_folder_is_refused_as_such(root: Path) -> None:
    (root / "notes").mkdir()
    with pytest.raises(MoeSweepsError, match="not a run folder"):
        find_run(str(root / "notes"), root)
    with pytest.raises(MoeSweepsError, match="there are no runs"):
        find_run("a", root / "notes")


def test_a_word_with_an_equals_sign_is_a_setting_unless_it_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1-aaa111111111").mkdir()
    assert is_setting("aux.coef=0.1")
    assert not is_setting("lr=1-aaa111111111")
    assert not is_setting("aaa111111111")


def test_sweeps_are_found_by_id_slug_name_table_and_beginning(tmp_path: Path) -> None:
    file = {"name": "demo", "question": "?", "source": "", "table": "of_demos"}
    ours = make_manifest(tmp_path, sweep_id="a1b2c3d4", file=file)
    other = make_manifest(tmp_path, manifest_content(seeds=1), sweep_id="a1b2ffff", name="other")
    for word in ("a1b2c3d4", "demo-a1b2c3d4", "demo", "of_demos", "a1b2c"):
        assert find_sweeps(word, [ours, other]) == [ours], word
    assert find_sweeps("a1b2", [ours, other]) == [ours, other]
    assert [find_sweeps(word, [ours, other]) for word in ("a1", "", "zzz")] == [[], [], []]


COMMANDS = {
    "status": ["status", "the-best"],
    "watch": ["watch", "the-best"],
    "retry": ["retry", "the-best"],
    "cancel": ["cancel", "the-best"],
    "archive": ["archive", "{out}", "the-best"],
    "track": ["track", "sync", "the-best"],
    "report": ["report", "the-best"],
    "explain": ["explain", "the-best"],
    "why": ["why", "the-best", "the-best"],
    "verify-resume": ["verify-resume", "the-best", "--steps", "0"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_new_way_to_name_a_run_is_known_to_every_command(
    command: str, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = freeze(compose_run(*TINY), [], command="test")
    run.write_summary({"val_loss": 3.0})
    run.write_status(Status(State.done))
    (run.path / "metrics.jsonl").touch()
    found: list[RunDir] = []

    def is_the_best(word: str, folder: RunDir) -> bool:
        if word == "the-best":
            found.append(folder)
        return word == "the-best"

    monkeypatch.setattr(find, "RUN_NAMES", [*find.RUN_NAMES, is_the_best])
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(folders))
    monkeypatch.setenv("MOE_SWEEPS_REPORTS", str(tmp_path / "reports"))
    main([word.format(out=tmp_path / "out") for word in COMMANDS[command]])
    assert run in found
