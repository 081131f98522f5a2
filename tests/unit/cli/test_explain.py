"""What `moe-sweeps explain` says about a run, without training it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import compose_run

from moe_sweeps.cli.manage import main
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.model.transformer import build_model


def rows(shown: str) -> dict[str, list[str]]:
    """First word of a line -> the others."""
    return {words[0]: words[1:] for line in shown.splitlines() if (words := line.split())}


def test_the_groups_of_a_frozen_run(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["scale=smoke", "lr_split=static", "lr_split.expert=0.5", "router.weight_decay=0", "schedule.norm=constant"]
    run = compose_run(*line)
    folder = freeze(run, [], command="test")
    assert main(["explain", folder.run_id[:5]]) == 0
    shown = capsys.readouterr().out
    found, model = rows(shown), build_model(run, run.data.vocab_size)
    assert folder.path.name in shown
    size = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    assert found["expert"] == ["4", f"{size:,}", "0.5", "0.006", "onecycle_cosine", "0.1"]
    assert found["router"][2:] == ["1", "0.012", "onecycle_cosine", "0"]
    assert found["norm"][3:] == ["0.012", "constant", "0"]
    assert found["all"] == [str(len(list(model.parameters()))), f"{sum(p.numel() for p in model.parameters()):,}"]
    assert not list(folder.checkpoints.iterdir())


def test_a_line_of_overrides_and_a_load_based_split(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["lr_split=ideal_normalized", "lr_split.sqrt=true", "lr_split.ema=0.9", "lr_split.max_ratio=1.5"]
    assert main(["explain", "optimizer.base_lr=0.01", *line, "lr_split.control=shuffled"]) == 0
    shown = capsys.readouterr().out
    assert rows(shown)["expert"][2:6] == ["1", "r", "0.01", "r"]
    ratio = "sqrt(cE/(kT)); averaged over steps (EMA 0.9); clipped to [0, 1.5]; permuted among the experts of a layer"
    assert ratio in shown
    assert "weight decay of the experts follows r" in shown


def test_a_split_that_means_a_plainer_one_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "lr_split=batch_fraction", "lr_split.control=uniform"]) == 0
    shown = capsys.readouterr().out
    assert rows(shown)["expert"][2:4] == ["0.25", "0.003"]
    assert "lr_split=batch_fraction with these settings is static in this run" in shown


def test_refusals_name_what_was_meant(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = freeze(compose_run("scale=smoke"), [], command="test").run_id
    assert main(["explain", f"{run_id[:-1]}z"]) == 2
    assert f"Did you mean {run_id}?" in capsys.readouterr().err
    assert main(["explain", "lr_split=statik"]) == 2
    assert "Did you mean lr_split=static?" in capsys.readouterr().err
    assert main(["explain", run_id, "lr_split=static"]) == 2
    assert "not both" in capsys.readouterr().err
