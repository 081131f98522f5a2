"""`moe-sweeps judge`: the verdict, its exit code and its data, on generated runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers import TINY, compose_run
from unit.results.suite import make_suite_run, short_hash

from moe_sweeps.cli.judge import EXIT_CODES, side
from moe_sweeps.cli.manage import main
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.records.rundir import State, Status
from moe_sweeps.results.judging import judge_sides
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import is_finished, read_runs

A, B = {"aux.coef": "0.1"}, {"aux.coef": "0.2"}
WOBBLE = (0.0, 0.004, -0.003, 0.002)


def runs(root: Path, a: float, b: float, seeds: int = 4, maxvio: float = 0.2) -> None:
    for seed in range(seeds):
        make_suite_run(root, A, seed, loss=a + WOBBLE[seed], maxvio=0.1 * (1 + WOBBLE[seed]))
        make_suite_run(root, B, seed, loss=b - WOBBLE[seed - 1], maxvio=maxvio * (1 - WOBBLE[seed - 1]), weights="x")


@pytest.mark.parametrize(
    ("a", "b", "options", "verdict"),
    [
        (4.0, 4.1, [], "better"),
        (4.1, 4.0, [], "worse"),
        (4.0, 4.0, ["--within", "0.05"], "equivalent"),
        (4.0, 4.004, [], "undecided"),
        (4.0, 4.1, ["--look", "11"], "undecided"),
    ],
)
def test_verdict_and_exit_code(
    folders: Path, capsys: pytest.CaptureFixture[str], a: float, b: float, options: list[str], verdict: str
) -> None:
    runs(folders, a, b)
    assert main(["judge", short_hash(A, 0), "aux.coef=0.2", *options]) == EXIT_CODES[verdict]
    assert verdict in capsys.readouterr().out.splitlines()[0]


def test_the_data_are_those_of_the_verdict(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs(folders, 4.0, 4.004)
    assert main(["judge", "aux.coef=0.1", "aux.coef=0.2", "--json"]) == EXIT_CODES["undecided"]
    found = json.loads(capsys.readouterr().out)
    assert found["difference"] == pytest.approx(-0.004 + sum(WOBBLE) / 2, abs=1e-9)
    assert found["low"] < found["difference"] < found["high"]
    assert found["n"] == {"a": 4, "b": 4}
    assert sorted(found["runs"]["a"]) == sorted(short_hash(A, seed) for seed in range(4))
    assert found["probability_better"] == pytest.approx(1 - found["p"] / 2)  # two arms: Welch, no factors
    assert found["next"]["a"] > 0
    assert found["next"]["core_hours"] >= 0


def test_a_side_that_lost_a_seed_gets_no_verdict(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs(folders, 4.0, 4.1)
    make_suite_run(folders, A, 7, loss=9.0, maxvio=1.0, state="diverged")
    for words in (["aux.coef=0.1", "aux.coef=0.2"], ["aux.coef=0.2", "aux.coef=0.1", "--within", "5"]):
        assert main(["judge", *words]) == EXIT_CODES["undecided"]
        out = capsys.readouterr().out
        assert "1 diverged or stopped, which flatters the rest; so no verdict" in out
        assert "next:" not in out  # more seeds do not bring it back


def test_seeds_that_a_side_of_another_size_lost_count(folders: Path) -> None:
    """They were looked for among the runs of one size, and there was no one size."""
    runs(folders, 4.0, 4.1)
    make_suite_run(folders, A, 7, loss=9.0, maxvio=1.0, state="diverged")
    arm = short_hash(A)
    rows = [
        {**row, "size": "another" if row["arm"] == arm else row["size"]} for row in read_runs(folders).rows.values()
    ]
    a, b = ([row for row in rows if (row["arm"] == arm) == of_a and is_finished(row)] for of_a in (True, False))
    found = judge_sides(a, b, PRIMARY, Noise(tuple(rows), ()))
    assert (found.verdict, found.comparison.lost) == ("undecided", 1)


@pytest.mark.parametrize("maxvio", [0.0, None])
def test_a_margin_where_b_has_no_place_on_the_scale_is_one_message(
    folders: Path, capsys: pytest.CaptureFixture[str], maxvio: float | None
) -> None:
    runs(folders, 4.0, 4.1, maxvio=0.0)
    for path in folders.glob("*/summary.json"):
        content = json.loads(path.read_text())
        if content["val_maxvio_global"] == 0:
            path.write_text(json.dumps(content | {"val_maxvio_global": maxvio}))
    assert main(["judge", "aux.coef=0.1", "aux.coef=0.2", "--metric", "val_maxvio_global", "--within", "0.1"]) == 2
    assert "has no place on its scale" in " ".join(capsys.readouterr().err.split())


def test_a_margin_of_a_ratio_is_as_wide_below_as_above_in_its_unit(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(folders, 4.0, 4.0, maxvio=0.1)
    main(["judge", "aux.coef=0.1", "aux.coef=0.2", "--metric", "val_maxvio_global", "--within", "0.05", "--json"])
    found = json.loads(capsys.readouterr().out)
    level = math.exp(sum(math.log(0.1 * (1 - wobble)) for wobble in WOBBLE) / 4)
    assert math.exp(found["margin"]) == pytest.approx((level + 0.05) / level)
    assert math.exp(found["margin_low"]) == pytest.approx((level - 0.05) / level)


def test_maxvio_is_judged_as_a_ratio(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs(folders, 4.0, 4.0)
    assert main(["judge", "aux.coef=0.1", "aux.coef=0.2", "--metric", "val_maxvio_global"]) == EXIT_CODES["better"]
    assert "A ×0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["aux.coef=7", "aux.coef=0.2"], "aux.coef=7 means no finished run"),
        (["aux.coef=0.2", "aux.coef=0.2"], "runs are on both sides"),
        (["aux.coef=0.1", "aux.coef=0.2", "--metric", "val_los"], "did you mean val_loss?"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    folders: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    runs(folders, 4.0, 4.1)
    assert main(["judge", *words]) == 2
    assert message in capsys.readouterr().err


def test_settings_that_mean_several_arms_are_refused_with_what_they_differ_in(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pooled, the differences between arms would pass for those of seeds."""
    runs(folders, 4.0, 4.1)
    make_suite_run(folders, {"aux.coef": "0.1", "optimizer": "muon"}, 0, loss=3.0, maxvio=0.1)
    assert main(["judge", "aux.coef=0.1", "aux.coef=0.2"]) == 2
    error = capsys.readouterr().err
    assert "aux.coef=0.1 means 2 arms, which differ in optimizer (" in error
    assert "muon)" in error
    assert "Add settings until one arm is left" in error
    assert main(["judge", short_hash(A, 0), "aux.coef=0.2"]) == EXIT_CODES["better"]


def test_settings_mean_runs_that_have_and_read_them(folders: Path) -> None:
    lines = {
        "aux": ["balancer=aux"],
        "lossfree": ["balancer=lossfree"],  # aux.coef=0.1 stands in its config, and it does not read it
        "norm": ["balancer=none", "model.qk_norm=true"],
        "files": ["balancer=quantile", "launch=slurm", "launch.setup=['a b','c']"],
    }
    ids = {}
    for name, line in lines.items():
        folder = freeze(compose_run(*TINY, *line), [], command="test")
        folder.write_summary({"val_loss": 3.0})
        folder.write_status(Status(State.done))
        ids[folder.run_id] = name
    runs = read_runs(folders)

    def meant(word: str) -> list[str]:
        return [ids[row["run_id"]] for row in side(word, runs)]

    assert meant("aux.coef=0.10") == ["aux"]
    assert meant("model.qk_norm=True") == meant("balancer=none router.weight_decay=null") == ["norm"]
    assert meant("balancer=quantile,launch.setup=[a b,c]") == ["files"]
    with pytest.raises(MoeSweepsError, match=r"router\.weight_deca=None means no finished run"):
        meant("balancer=aux,router.weight_deca=None")
