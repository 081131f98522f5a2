"""Run folders as rows: what a config means, and which columns every row has."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from unit.results.folders import make_run, summary

from moe_sweeps.records.genuine import flatten
from moe_sweeps.results.frame import frame_of
from moe_sweeps.results.runs import ALWAYS, flat_config, is_finished, read_runs

CONFIGS = {
    "as written": yaml.safe_dump(
        {"aux": {"kind": "default", "coef": 0.1}, "search": {}, "seed": 3, "tags": ["a", "b"]}
    ),
    "long texts": yaml.safe_dump({"note": "first line\nsecond: line\n" + "word " * 60, "seed": 0, "name": None}),
    "comments": "# frozen\naux: # the loss\n  coef: 0.1\nseed: 7 # of all\n",
    "in one line": "{aux: {coef: 0.1},\nseed: 2}",
    "a document": "---\nseed: 2\naux: {coef: 0.1}\n",
    "quoted keys": "'seed': 2\naux: {coef: 0.1}\n",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_read_by_its_blocks_is_what_yaml_makes_of_the_whole(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path)
    (run.path / "config.yaml").write_text(text)
    assert flat_config(run) == flatten(yaml.safe_load(text))
    assert list(flat_config(run)) == list(flatten(yaml.safe_load(text)))


def test_every_row_has_the_same_first_columns(tmp_path: Path) -> None:
    make_run(tmp_path, state="running")
    run = make_run(tmp_path, seed=1, numbers=summary(3.25))
    with (run.path / "config.yaml").open("a") as file:
        file.write("odd: .nan\n")
    rows = list(read_runs(tmp_path).rows.values())
    assert all(set(ALWAYS) <= row.keys() for row in rows)
    values = {row["seed"]: (row["val_loss"], row.get("odd", "none")) for row in rows}
    assert values == {0: (None, "none"), 1: (3.25, None)}
    assert list(frame_of(rows).sort_values("seed")["val_loss"].isna()) == [True, False]


def test_a_run_that_stopped_early_is_not_finished(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, numbers=summary(3.0, stopped_early=True))
    make_run(tmp_path, seed=2, state="preempted")
    finished = {row["seed"]: is_finished(row) for row in read_runs(tmp_path).rows.values()}
    assert finished == {0: True, 1: False, 2: False}
