"""`moe-sweeps plan` and `why` as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, at_most, compose_run

from moe_sweeps.cli.manage import main
from moe_sweeps.cli.train import main as train
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.code_record import CodeRecord
from moe_sweeps.records.rundir import RunDir, State, Status
from moe_sweeps.sweep.estimate import tokens_of
from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import make_plan


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def finished(*line: str, seconds: float = 10.0, val_loss: float = 4.0) -> str:
    run = compose_run(*TINY, *line)
    folder = freeze(run, [], command="test")
    folder.write_summary({"wall_seconds": seconds, "tokens": tokens_of(run), "val_loss": val_loss})
    folder.write_status(Status(State.done))
    return folder.run_id


def test_a_plan_of_a_sweep_file(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished("balancer=lossfree")
    other = make_plan([*TINY, "aux.coef=0.1", "seed=0"])
    finished("aux.coef=0.1")
    write_manifest(other, "test")
    assert main(["plan", "--no-probe", "sweep=aux_coef", "seed=0", *TINY]) == 0
    out = shown(capsys)
    assert "At which aux.coef does validation loss begin to rise" in out
    assert "source: report, fig. 8 (loss) and fig. 9 (MaxVio)" in out
    assert "Plan: aux.coef (5) + 1 = 6 combinations, 6 distinct runs" in out
    assert "typed: seed=0 in place of 0, 1, 2" in out
    assert "typed: scale=smoke_v1 beside the file" in out
    assert f"already done: 2 (1 by sweep-{other.sweep_id}), to run: 4" in out
    assert "4 runs" in out
    assert "FLOP a run" in out
    assert "(from 2 finished runs of this size)" in out
    assert "of checkpoints" in out
    assert "cannot be judged" not in out


def test_a_zip_and_an_exclude_are_shown(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--no-probe", "sweep=lr_split", "seed=0", *TINY]) == 0
    out = shown(capsys)
    zipped = "lr_split.dense+lr_split.router+lr_split.embedding+lr_split.norm (3)"
    assert f"Plan: lr_split.expert (4) x {zipped} = 12 combinations, 12 distinct runs" in out


def test_a_budget_refuses(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished("seed=9", seconds=100.0)
    line = [*TINY, "seed=0,1,2,3", "launch.workers=1"]
    assert main(["plan", *line, "--budget", "10m"]) == 0
    assert main(["plan", *line, "--budget", "3m"]) == 2
    assert "would fit: seed=0, 1 of 4 seeds: about 1.7 min" in capsys.readouterr().err
    assert train(["-m", *line, "--budget", "3m"]) == 2
    assert "--budget 3m is refused: the plan takes about 6.7 min with 1 worker" in capsys.readouterr().err
    assert len(list(folders.glob("*-*"))) == 1  # nothing was started


def test_detect_says_what_was_measured(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*TINY, "seed=0,1"]
    assert main(["plan", "--no-probe", *line, "--detect", "0.1"]) == 0
    out = shown(capsys)
    assert "not known: no arm of this size and length has two finished seeds" in out
    for seed, loss in enumerate((4.0, 4.2, 4.4)):
        finished(f"seed={seed}", val_loss=loss)
    write_manifest(make_plan([*TINY, "name=noise_floor", "seed=0,1,2"]), "test")
    assert main(["plan", "--no-probe", *line, "--detect", "0.2"]) == 0
    out = shown(capsys)
    # sd 0.2, effect 1: Welch's test at 5% would need 17 seeds an arm (Cohen 1988, table 2.4.1)
    needed = int(out.split(" seeds an arm find it")[0].split()[-1])
    assert 16 <= needed <= 21
    assert "which is 0.2 (2 degrees of freedom in 1 arm)" in out
    assert "this plan has 3 seeds an arm, and finds it with a chance of" in out
    assert main(["plan", "--no-probe", *line, "--detect", "0"]) == 2


def test_the_manipulation_check(folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--no-probe", *TINY, "balancer=aux,lossfree", "aux.coef=0.1,0.2", "--check", "--steps", "3"]
    assert main(["plan", *line]) == 0
    out = shown(capsys)
    assert "1 of 1 other spellings of a run gave bit-identical traces" in out
    assert "every arm differs where it claims to" in out
    assert main(["plan", "--no-probe", *TINY, "router.clip_norm=0,1e6", "--check", "--steps", "2"]) == 1
    assert "no effect: router.clip_norm made no difference" in shown(capsys)


def test_why_of_two_runs(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = finished("aux.coef=0.1"), finished("aux.coef=0.2")
    assert main(["why", a, b[:6]]) == 1
    out = shown(capsys)
    assert f"are two runs ({a}, {b})" in out
    assert "aux.coef 0.1 0.2 yes decides the result" in out
    assert main(["why", a, "aux.coef=0.1", "engine.device=cpu", *TINY]) == 0
    out = shown(capsys)
    assert "are the same run" in out
    assert "engine.device auto cpu no infrastructure" in out
    assert main(["why", a]) == 2
    assert "give two runs, a run and overrides" in capsys.readouterr().err


def test_why_of_a_line(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", *TINY, "balancer=lossfree"]) == 1
    assert "this is a new run" in shown(capsys)
    run_id = finished("balancer=lossfree")
    assert main(["why", *TINY, "balancer=lossfree", "aux.coef=0.7"]) == 0
    out = shown(capsys)
    assert f"this is run smoke_v1-lossfree-{run_id} (done)" in out
    assert "aux.coef 0.7 0.1 no not read by balancer=lossfree" in out
    assert main(["why", *TINY, "balancer=lossfree", "balancer.rate=0.01"]) == 1
    out = shown(capsys)
    assert f"The nearest run is smoke_v1-lossfree-{run_id}" in out
    assert "balancer.rate 0.01 0.001 yes decides the result" in out
    assert main(["why", *TINY, "balancer.rat=0.01"]) == 2
    assert "Did you mean balancer.rate?" in capsys.readouterr().err


def test_why_names_files_in_full_on_a_narrow_terminal(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunDir.find(folders, finished("lr_split=batch_fraction"))
    assert folder
    then = CodeRecord.of({**folder.provenance()["sources"], "optim/lr_split/load_based.py": "0ld"})
    folder.update_provenance(**then.entry())
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["why", *TINY, "lr_split=batch_fraction"]) == 0
    out = capsys.readouterr().out
    assert "\nthe training code differs in: optim/lr_split/load_based.py\n" in out
    assert "…" not in out


def test_a_thousand_combinations_are_planned_in_five_seconds(folders: Path) -> None:
    folders.mkdir()
    for i in range(300):
        (folders / f"other-{i:012x}").mkdir()
    axes = ["balancer=aux,lossfree,none,aux_lossfree,quantile", "router=topk_softmax,softmax_topk", "experts=e8,e16"]
    line = [*TINY, *axes, "aux.coef=range(0.01,0.11,0.02)", "seed=range(0,10)"]
    with at_most(5):
        plan = make_plan(line)
    assert len(plan.requests) == 5 * 2 * 2 * 5 * 10
    assert len(plan.runs) == 2 * 2 * 10 * (5 + 1 + 1 + 5 + 1)
