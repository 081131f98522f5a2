"""`moe-sweeps status`: sweeps, runs with their settings, filters, pages, notes."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.cli import fake_runs
from unit.cli.fake_runs import fake_run
from unit.cli.test_runs import sweep as sweep

from moe_sweeps.cli.manage import main
from moe_sweeps.records.rundir import RunDir, State

Capture = pytest.CaptureFixture[str]


def test_status_shows_sweeps_and_runs(sweep: list[RunDir], capsys: Capture) -> None:
    assert main(["status"]) == 1  # one failed
    shown = capsys.readouterr().out
    assert "aaaaaaaaaaaa  fakes  2026-11-25 00:00" in shown
    assert "1 done, 1 failed, 1 planned, 1 preempted" in shown
    assert "2 done, 1 failed, 1 planned, 1 preempted" in shown
    assert "fake-000000000f00" in shown


@pytest.mark.parametrize("word", ["fakes", "aaaa", "aaaaaaaaaaaa"])
def test_status_of_a_sweep_calls_runs_by_their_arms(sweep: list[RunDir], capsys: Capture, word: str) -> None:
    main(["status", word])
    shown = capsys.readouterr().out
    assert "arm=3" in shown
    assert "000000000f00" not in shown


def test_status_of_a_run(sweep: list[RunDir], capsys: Capture) -> None:
    assert main(["status", "000000000f00"]) == 0
    assert "1 done" in capsys.readouterr().out
    assert main(["status", "nonsense"]) == 2
    assert "no run in" in capsys.readouterr().err


def test_planned_runs_without_a_folder_are_said(folders: Path, sweep: list[RunDir], capsys: Capture) -> None:
    sweep[2].path.rename(folders / "gone")
    main(["status", "fakes"])
    assert "1 planned runs have no folder" in capsys.readouterr().out


def test_of_many_runs_those_that_matter_come_first_and_none_is_hidden_silently(folders: Path, capsys: Capture) -> None:
    for n in range(60):
        fake_run(folders, n, State.failed if n == 5 else State.done)
    main(["status"])
    shown = capsys.readouterr().out
    assert "59 done, 1 failed" in shown
    assert shown.count("fake-00000000") == 41  # a page, and the reason of the one that failed
    assert shown.splitlines()[2].startswith("fake-000000000005  failed")
    assert "runs 1 to 40 of 60; not on this page: 20 done" in shown
    assert "moe-sweeps status --page 2" in shown
    main(["status", "--page", "2"])
    rest = capsys.readouterr().out
    assert rest.count("fake-00000000") == 21
    assert "runs 41 to 60 of 60; not on this page: 39 done, 1 failed" in rest
    main(["status", "--all"])
    assert capsys.readouterr().out.count("fake-00000000") == 61
    assert main(["status", "--page", "3"]) == 2
    assert "--page=3 is refused: there are 2" in capsys.readouterr().err


# --- settings and filters ---------------------------------------------------------------------------------------------


def with_settings(root: Path, number: int, monkeypatch: pytest.MonkeyPatch, **config: object) -> RunDir:
    """A run whose config and canonical form have these settings; those that end in _ are not read by it."""
    frozen = fake_runs.CONFIG | {key.rstrip("_"): value for key, value in config.items()}
    monkeypatch.setattr(fake_runs, "CONFIG", frozen)
    found = fake_run(root, number, State.done)
    canonical = {key: value for key, value in config.items() if not key.endswith("_")}
    found.write_identity(found.identity() | {"canonical": canonical})
    monkeypatch.undo()
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(root))
    return found


@pytest.fixture
def varied(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    aux = {"balancer": {"kind": "aux"}, "trainer": {"clip": None, "flag": True}}
    with_settings(folders, 1, monkeypatch, aux={"coef": 0.1}, **aux)
    with_settings(folders, 2, monkeypatch, aux={"coef": 0.2}, **aux)
    with_settings(folders, 3, monkeypatch, aux_={"coef": 0.1}, balancer={"kind": "lossfree"})
    monkeypatch.setenv("COLUMNS", "200")
    return folders


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["aux.coef=0.1"], [1]),  # the third run has it in its config, and does not read it
        (["aux.coef=0.10"], [1]),
        (["aux.coef=1e-1"], [1]),
        (["aux.coef=.1,0.20"], [1, 2]),
        (["aux.coef=0.1", "balancer=aux"], [1]),
        (["balancer=aux", "aux.coef=0.2"], [2]),
        (["balancer=lossfree"], [3]),
        (["balancer=aux,lossfree"], [1, 2, 3]),
        (["trainer.clip=null"], [1, 2]),
        (["trainer.flag=True"], [1, 2]),
        (["trainer.flag=1"], []),
        (["seed=0.0"], [1, 2, 3]),
        (["seed=1"], []),
        (["state=done"], [1, 2, 3]),
        (["state=failed"], []),
        (["state=lost,paused,pruned,damaged,done"], [1, 2, 3]),
    ],
)
def test_where_compares_settings_as_values(
    varied: Path, capsys: Capture, conditions: list[str], found: list[int]
) -> None:
    words = [word for text in conditions for word in ("--where", text)]
    assert main(["status", *words]) == 0
    shown = capsys.readouterr().out
    assert [n for n in (1, 2, 3) if f"fake-{n:012x}" in shown] == found


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("aux.coeff=1", "Did you mean aux.coef?"),
        ("nothing=1", "no run here has such a setting"),
        ("aux.coef", "a condition is a key and its values"),
        ("=1", "a condition is a key and its values"),
        ("aux.coef=", "a condition is a key and its values"),
        ("state=fail", "--where=state=fail is refused: the states are planned, queued, running, "),
        ("state=fail", "Did you mean failed?"),
        ("state=done,gone", "--where=state=gone is refused"),
    ],
)
def test_a_condition_that_can_hold_for_nothing_is_refused(
    varied: Path, capsys: Capture, condition: str, said: str
) -> None:
    assert main(["status", "--where", condition]) == 2
    assert said in capsys.readouterr().err


def test_a_config_that_cannot_be_read_is_said(varied: Path, capsys: Capture) -> None:
    (varied / "fake-000000000002" / "config.yaml").write_text("{")
    assert main(["status", "--where", "balancer=aux"]) == 0
    shown = capsys.readouterr().out
    assert "fake-000000000001" in shown
    assert "1 more could not be asked" in shown


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_id_settings_and_state_are_whole_at_every_width(
    sweep: list[RunDir], capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    long = " ".join(f"lr_split.{role}={n}" for n, role in enumerate(("expert", "router", "dense", "embedding", "norm")))
    run = fake_run(sweep[0].path.parent, 0xF01, State.done, collapsed=True, code_changed=True, step=100, loss=3.25)
    (run.path / "overrides.yaml").write_text("\n".join(f"- {one}" for one in long.split()))
    main(["status"])
    shown = capsys.readouterr().out
    words = [
        "fake-000000000f01",
        "collapsed)",
        "submission)",
        "100/100",
        "3.2500",
        *long.split(),
        "aaaaaaaaaaaa",
        "arm=...",
    ]
    assert [word for word in words if word not in shown] == []
    assert max(map(len, shown.splitlines())) <= max(width, len("moe-sweeps ...") + 90)
