"""What words name: the same for every command that takes a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run
from unit.cli.fake_runs import fake_run, fake_sweep

from moe_sweeps.cli.manage import main
from moe_sweeps.cli.naming import Line, each_named, meant_today, named, the_run
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.records.rundir import RunDir, State, Status

Capture = pytest.CaptureFixture[str]
COMMANDS = {
    "status": ["status"],
    "watch": ["watch"],
    "retry": ["retry", "--diverged"],
    "archive": ["archive", "{out}"],
    "track": ["track", "sync", "--to", "tensorboard"],
    "report": ["report"],
    "explain": ["explain"],
    "cancel": ["cancel"],
}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["a=1", "b=2"], [Line(("a=1", "b=2"))]),
        (["abc", "a=1", "b=2", "def"], ["abc", Line(("a=1", "b=2")), "def"]),
        (["a=1 b=2", "c=3"], [Line(("a=1", "b=2")), Line(("c=3",))]),
        (["a=1", "b=2 c=3"], [Line(("a=1",)), Line(("b=2", "c=3"))]),
        (["lr='tag(log, interval(1,2))' b=2"], [Line(("lr=tag(log, interval(1,2))", "b=2"))]),
        (["name=two words"], [Line(("name=two words",))]),
        (["name=it's"], [Line(("name=it's",))]),
        (["name='two words'"], [Line(("name=two words",))]),
        (["name=a\\ b seed=1"], [Line(("name=a b", "seed=1"))]),
        (
            ["fork.trunk=['balancer=quantile', 'aux.coef=0.3']"],
            [Line(("fork.trunk=['balancer=quantile', 'aux.coef=0.3']",))],
        ),
        (
            ["launch.setup=['export A=1', 'export B=2'] b=2"],
            [Line(("launch.setup=['export A=1', 'export B=2']", "b=2"))],
        ),
        (["lr=tag(log, interval(1, 2)) b=2"], [Line(("lr=tag(log, interval(1, 2))", "b=2"))]),
        (["a=[1, b=2"], [Line(("a=[1, b=2",))]),
        ([], []),
    ],
)
def test_settings_side_by_side_are_one_line(words: list[str], found: list[str | Line]) -> None:
    assert named(words) == found


def test_side_by_side_each_word_is_a_run() -> None:
    assert each_named(["a=1", "b=2", "abc"]) == [Line(("a=1",)), Line(("b=2",)), "abc"]


@pytest.fixture
def run(folders: Path) -> RunDir:
    found = freeze(compose_run(*TINY), [], command="test")
    found.write_summary({"val_loss": 3.0})
    found.write_status(Status(State.done))
    (found.path / "metrics.jsonl").write_text('{"step": 4, "split": "train", "loss": 1.0}\n')
    return found


@pytest.mark.parametrize("how", ["id", "beginning", "folder", "line", "quoted line"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_every_way_to_name_a_run(
    command: str, how: str, run: RunDir, tmp_path: Path, capsys: Capture
) -> None:
    ways = {
        "id": [run.run_id],
        "beginning": [run.run_id[:5]],
        "folder": [str(run.path)],
        "line": list(TINY),
        "quoted line": [" ".join(TINY)],
    }
    assert main([*(word.format(out=tmp_path / "out") for word in COMMANDS[command]), *ways[how]]) == 0
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_an_ambiguous_beginning_alike(
    command: str, folders: Path, tmp_path: Path, capsys: Capture
) -> None:
    for number in (0xAB1, 0xAB2):
        fake_run(folders, number << 36, State.failed)
    assert main([*(word.format(out=tmp_path / "out") for word in COMMANDS[command]), "ab"]) == 2
    assert "ab means 2 runs: fake-ab1000000000, fake-ab2000000000. Type more" in capsys.readouterr().err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("report", "explain")])
def test_a_beginning_of_a_sweep_and_of_a_run_is_refused(
    command: str, folders: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = fake_run(folders, 0xAAAA << 32, State.failed)
    fake_sweep(folders, [run])
    words = [word.format(out=tmp_path / "out") for word in COMMANDS[command]]
    assert main([*words, "aaaa"]) == 2
    assert "aaaa means the sweep fakes-aaaaaaaaaaaa and 1 run: fake-aaaa00000000" in capsys.readouterr().err
    assert run.status().state is State.failed


def test_a_line_without_a_folder_says_how_to_train_it(folders: Path, run: RunDir, capsys: Capture) -> None:
    assert main(["status", *TINY, "seed=7"]) == 2
    error = capsys.readouterr().err
    assert "has no folder in" in error
    assert "seed=7" in error.partition("Train: ")[2]


def test_a_line_of_several_values_means_several_runs(folders: Path, run: RunDir, capsys: Capture) -> None:
    second = freeze(compose_run(*TINY, "seed=1"), [], command="test")
    assert main(["status", *TINY, "seed=0,1,2"]) == 0
    shown = capsys.readouterr().out
    assert run.path.name in shown
    assert second.path.name in shown
    assert "1 planned run" in shown
    with pytest.raises(MoeSweepsError, match=r"means 3 runs\. Give each key one value"):
        the_run([*TINY, "seed=0,1,2"], folders)


def test_one_run_is_wanted(folders: Path, run: RunDir) -> None:
    with pytest.raises(MoeSweepsError, match="these name 2"):
        the_run([run.run_id, *TINY], folders)


def test_a_sweep_is_named_by_its_folder(folders: Path, capsys: Capture) -> None:
    fake_sweep(folders, [fake_run(folders, 1, State.done)])
    assert main(["status", str(folders / "sweeps" / "aaaaaaaaaaaa")]) == 0
    assert "arm=0" in capsys.readouterr().out


def test_a_folder_whose_identity_is_lost_is_still_that_run(folders: Path, capsys: Capture) -> None:
    run = fake_run(folders, 1, State.done)
    (run.path / "identity.json").unlink()
    assert main(["status", str(run.path)]) == 0


def test_a_link_is_not_followed(folders: Path, tmp_path: Path, capsys: Capture) -> None:
    elsewhere = fake_run(tmp_path / "elsewhere", 1, State.done)
    folders.mkdir()
    (folders / "fake-000000000002").symlink_to(elsewhere.path)
    main(["status", str(folders / "fake-000000000002")])
    assert "links are not followed" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["x" * 5000, "a\0b", "~nobody-of-this-name/x", "a=" + "b" * 5000, "..", "/", "."])
def test_words_that_are_no_names_are_refused_in_words(folders: Path, capsys: Capture, word: str) -> None:
    fake_run(folders, 1, State.done)
    assert main(["status", word]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_what_a_line_means_today(folders: Path) -> None:
    """scale=smoke was another design once: the line that is stored beside an old run means another run."""
    folder = freeze(compose_run(*TINY, "aux.coef=0.2"), [*TINY, "aux.coef=0.2"], command="test")
    assert meant_today(folder.path, folder.run_id) is None
    other = run_id(compose_run(*TINY, "aux.coef=0.3"))
    (folder.path / "overrides.yaml").write_text("\n".join(f"- {word}" for word in [*TINY, "aux.coef=0.3"]))
    assert f"means another run today, {other}" in (meant_today(folder.path, folder.run_id) or "")
    for text, word in (("- aux.coeff=0.1", "is refused today"), ("3", "cannot be read"), ("[", "cannot be read")):
        (folder.path / "overrides.yaml").write_text(text)
        assert word in (meant_today(folder.path, folder.run_id) or "")
    (folder.path / "overrides.yaml").unlink()
    assert "cannot be read" in (meant_today(folder.path, folder.run_id) or "")


def test_an_archive_lies_where_one_is(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`archive ../kept` wrote beside the repository."""
    run = freeze(compose_run(*TINY), [], command="test")
    run.write_summary({"val_loss": 4.0})
    run.write_status(Status(State.done))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["archive", "../kept"]) == 0
    assert (tmp_path / "kept" / run.path.name / "summary.json").exists()
