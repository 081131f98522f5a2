"""track sync and what is said of trackers; tests/e2e has them with real trackers."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import compose_run
from unit.cli.fake_runs import fake_run

from moe_sweeps.cli import track
from moe_sweeps.cli.manage import main
from moe_sweeps.cli.track import settings_for
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.records.mirror import Mirror, Record
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.sweep.plan import make_plan

Capture = pytest.CaptureFixture[str]
NOTHING: dict[str, Any] = {"to": None, "offline": False, "project": None, "entity": None, "again": False}
OWN = {"kind": "wandb", "mode": "offline", "project": "mine", "entity": "us", "finish_seconds": 9.0}


@pytest.fixture
def run(folders: Path) -> RunDir:
    folder = fake_run(folders, 1, State.done, attempt=1, tracking="wandb: nobody answers")
    (folder.path / "metrics.jsonl").write_text('{"step": 4, "split": "train", "loss": 1.0}\n')
    (folder.path / "tracking").mkdir()
    folder.write_summary({"val_loss": 1.0})
    return folder


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [
        (None, {}, {"kind": "wandb", "mode": "online", "project": "moe_sweeps", "entity": None}),
        ({"kind": "none"}, {"offline": True, "project": "p"}, {"kind": "wandb", "mode": "offline", "project": "p"}),
        (OWN, {}, {"kind": "wandb", "mode": "online", "project": "mine", "entity": "us"}),
        (OWN, {"entity": "them"}, {"mode": "online", "project": "mine", "entity": "them"}),
        (OWN, {"to": "tensorboard"}, {"kind": "tensorboard"}),
        ({"kind": "tensorboard", "finish_seconds": 9.0}, {}, {"kind": "tensorboard"}),
        ({"kind": "tensorboard", "finish_seconds": 9.0}, {"to": "wandb"}, {"kind": "wandb", "project": "moe_sweeps"}),
    ],
)
def test_the_runs_own_settings_count_unless_others_are_asked_for(
    run: RunDir, own: dict[str, Any] | None, asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    run.write_config(run.config() | ({} if own is None else {"tracking": own}))
    found = settings_for(run, argparse.Namespace(**(NOTHING | asked)))
    assert found | expected == found
    assert found["finish_seconds"] == track.SECONDS


def test_sync_to_tensorboard_is_idempotent_and_mends_the_status(run: RunDir, capsys: Capture) -> None:
    assert main(["status"]) == 0
    assert "tracking: 1 run, wandb: nobody answers" in capsys.readouterr().out
    heartbeat = run.status().heartbeat

    assert main(["track", "sync", "--to", "tensorboard"]) == 0
    assert "tensorboard: has all steps up to 4\n" in capsys.readouterr().out
    assert Record.read(run, "tensorboard").complete
    assert (run.status().tracking, run.status().heartbeat) == (None, heartbeat)
    files = sorted((run.path / "tracking").rglob("*tfevents*"))

    assert main(["track", "sync", "--to", "tensorboard"]) == 0
    assert "tensorboard: has all 4 steps" in capsys.readouterr().out
    assert sorted((run.path / "tracking").rglob("*tfevents*")) == files
    assert main(["status"]) == 0
    assert "tracking" not in capsys.readouterr().out


def test_a_tracker_that_fails_is_said_and_the_exit_code_is_1(
    run: RunDir, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.path / "tracking" / "tensorboard").write_text("a file where a folder is to be")
    assert main(["track", "sync", "--to", "tensorboard"]) == 1
    assert "tensorboard: " in capsys.readouterr().out
    assert not Record.read(run, "tensorboard").complete
    assert run.status().tracking == "wandb: nobody answers"


def test_one_cause_is_said_once_with_what_helps(
    run: RunDir, folders: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2, 7):
        other = fake_run(folders, number, State.done, attempt=1)
        (other.path / "metrics.jsonl").write_text('{"step": 4, "split": "train", "loss": 1.0}\n')
    monkeypatch.setattr(track, "require_tracker", lambda _: None)
    monkeypatch.setattr(Mirror, "_start", lambda *_: None)
    monkeypatch.setattr(Mirror, "end", lambda mirror, state: f"wandb: no key for {mirror.folder.path}")
    assert main(["track", "sync", "--to", "wandb"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    names = "fake-000000000001, fake-000000000002, fake-000000000003 and 3 more runs"
    assert shown[0] == f"{names}: wandb: no key for the run folder"
    assert "moe-sweeps track sync --to wandb --offline writes files" in shown[1]
    main(["track", "sync", "--to", "wandb", "--offline"])
    assert "--offline" not in capsys.readouterr().out


def test_runs_that_have_all_are_said_once(run: RunDir, folders: Path, capsys: Capture) -> None:
    other = fake_run(folders, 2, State.done, attempt=1)
    (other.path / "metrics.jsonl").write_text('{"step": 4, "split": "train", "loss": 1.0}\n')
    (other.path / "tracking").mkdir(exist_ok=True)
    other.write_summary({"val_loss": 1.0})
    main(["track", "sync", "--to", "tensorboard"])
    capsys.readouterr()
    assert main(["track", "sync", "--to", "tensorboard"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("tensorboard: has all 4 steps") == 1
    assert shown.count("--again") == 1


def test_nothing_to_sync(folders: Path, capsys: Capture) -> None:
    fake_run(folders, 1)
    assert main(["track", "sync"]) == 2
    assert "none of these runs has results yet" in capsys.readouterr().err


def test_a_package_that_is_missing_is_refused_at_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the package tensorboard is not installed here") as refused:
        make_plan(["scale=smoke", "seed=0,1", "tracking=tensorboard"])
    assert refused.value.fix == f"Install it: {shlex.quote(sys.executable)} -m pip install -e '.[tensorboard]'"
    make_plan(["scale=smoke", "seed=0,1"])  # who does not ask for it does not need it


@pytest.mark.parametrize("tracking", ["tracking=wandb", "tracking=tensorboard"])
def test_a_tracker_is_no_part_of_a_run(tracking: str) -> None:
    with_it, plain = compose_run(tracking), compose_run()
    assert run_id(with_it) == run_id(plain)
    assert to_dict(dataclasses.replace(with_it, tracking=plain.tracking)) == to_dict(plain)
    fields = set(to_dict(with_it)["tracking"])
    assert not [name for name in fields if "key" in name or "token" in name]
