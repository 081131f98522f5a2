"""All run folders as one tidy table: the public way to ask a question of the results.

    runs, problems = load_runs(Path("runs"))
    runs.query("state == 'done'").groupby("arm")["val_loss"].agg(["mean", "std", "count"])
    curves, _ = load_curves(runs["folder"])

Columns of the runs, one row each:
    run_id, arm, folder              arm: hash of the experiment without its seeds; what replicates share
    state, attempt, step, ...        from status.json; failure: "Type: message"
    source_hash, data_fingerprint, pairing.*, arithmetic.*, git.*, command     from provenance.json
    size                             equal for runs of the same model, text, batch and length (records/noise.py)
    sources                          the files behind source_hash with their hashes, as text (code_record.py)
    balancer, aux.coef, seed, ...    the frozen config by its Hydra names
    remarks                          tags and notes that people put on runs, where there are any
    val_loss, val_accuracy, ...      final numbers of runs that are done
    state "edited"                   config.yaml is not what the run id stands for: no numbers, failure says why
    collapsed, collapsed_at_step     whether and when the router collapsed; stopped_early: the run ended there
    last_good.val_loss, ...          the same of runs that diverged, apart, so that no mean takes them in by accident
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from moe_sweeps.records.problem import Problem
from moe_sweeps.results.runs import ALWAYS, FIXED, QUALITY, Row, read_runs


class Loaded(NamedTuple):
    """A frame, and what could not be read into it."""

    frame: pd.DataFrame
    problems: list[Problem]


def load_runs(root: Path) -> Loaded:
    """Every run folder under `root` as a row; a folder that cannot be read completely is a problem instead."""
    runs = read_runs(root)
    return Loaded(frame_of(runs.rows.values()), runs.problems)


def frame_of(rows: Iterable[Row]) -> pd.DataFrame:
    """The rows as a frame: columns that every row has, then the config, then final numbers."""
    found = list(rows)
    names = dict.fromkeys(FIXED)
    for row in found:
        names |= dict.fromkeys(name for name, value in row.items() if value is not None or name not in ALWAYS)
    names |= dict.fromkeys(ALWAYS)
    frame = pd.DataFrame(found, columns=pd.Index(names))
    return frame.astype(dict.fromkeys(QUALITY, float)).copy()  # in one block: a column is added without a warning
