"""What benchmarks/same_bits.py compares, and that it notices a difference in the last digit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import same_bits
import torch

from moe_sweeps.paths import CONF, REPOSITORY


def finished(folder: Path, loss: float, weight: float) -> Path:
    """A run folder as far as it is compared."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "overrides.yaml").write_text("- optimizer=muon\n- seed=0\n")
    (folder / "summary.json").write_text(json.dumps({"val_loss": loss, "train_seconds": 1.5}))
    lines = [
        {"step": 1, "split": "train", "loss": loss, "tokens_per_second": 7.0},
        {"step": 1, "split": "val", "loss": 2},
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for step, value in ((6, 0.0), (12, weight)):
        torch.save({"model": {"w": torch.tensor([value])}}, folder / "checkpoints" / f"step-{step:08d}.pt")
    return folder


def test_every_number_but_times_is_compared(tmp_path: Path) -> None:
    found = same_bits.numbers_of(finished(tmp_path / "run", 3.5, 1.0))
    weights = found.pop("weights")
    assert found == {"summary val_loss": 3.5, "train step 1 loss": 3.5, "val step 1 loss": 2}
    assert same_bits.weights_of(finished(tmp_path / "same", 9.0, 1.0)) == weights
    assert same_bits.weights_of(finished(tmp_path / "other", 9.0, 1.0 + 2**-23)) != weights


def test_the_last_digit_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = same_bits.setting_of(finished(tmp_path / "smoke-aux-1", 3.5, 1.0))
    assert name.split() == ["optimizer=muon", "smoke-aux-1"]
    then = {name: same_bits.numbers_of(tmp_path / "smoke-aux-1")}
    assert same_bits.compare(then, {name: dict(then[name])}) == 0
    assert "0 of 1 runs differ" in capsys.readouterr().out
    assert same_bits.compare(then, {name: then[name] | {"train step 1 loss": 3.5000000000000004}}) == 1
    said = capsys.readouterr().out
    assert "1 of 4 numbers differ" in said
    assert "train step 1 loss: 3.5 then, 3.5000000000000004 now" in said
    assert same_bits.compare(then, {}) == 1
    assert same_bits.compare({}, {}) == 1  # nothing that was compared is no success


def test_every_option_has_a_run() -> None:
    grid = same_bits.union(CONF, CONF)
    found = {(group, block[group]) for block in grid for group in same_bits.GROUPS if group in block}
    assert found == {(g, p.stem) for g in same_bits.GROUPS for p in (CONF / g).glob("*.yaml")}
    assert len(grid) == len(found)


def test_both_trees_are_copied(tmp_path: Path) -> None:
    same_bits.copy_working_tree(tmp_path / "now")
    assert (tmp_path / "now" / "train.py").read_bytes() == (REPOSITORY / "train.py").read_bytes()
    assert not (tmp_path / "now" / ".git").exists()
    if not (REPOSITORY / ".git").exists():
        return
    same_bits.copy_commit("HEAD", tmp_path / "then")
    assert (tmp_path / "then" / "conf" / "config.yaml").is_file()
    with pytest.raises(subprocess.CalledProcessError):
        same_bits.copy_commit("no-such-commit", tmp_path / "none")
