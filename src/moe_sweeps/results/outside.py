"""Runs that belong to no sweep, as if one sweep had asked for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from moe_sweeps.results.frame import flatten
from moe_sweeps.results.labels import MAX_AXES, SEED_KEYS, spell, unambiguous, varying_keys
from moe_sweeps.results.manifest import Manifest, PlannedRun
from moe_sweeps.rundir import RunDir

OUTSIDE = "runs outside any sweep"


def outside_manifest(frame: pd.DataFrame, manifests: list[Manifest]) -> Manifest | None:
    """The runs of `frame` that none of `manifests` lists; None if there are none. N of an arm is what there is."""
    known = {run_id for manifest in manifests for run_id in manifest.runs}
    strays: list[dict[str, Any]] = frame.loc[~frame["run_id"].isin(known)].to_dict("records")  # type: ignore[assignment]
    if not strays:
        return None
    labels = _labels({row["arm"]: Path(row["folder"]) for row in reversed(strays)})
    runs = {
        row["run_id"]: PlannedRun(Path(row["folder"]).name, row["arm"], labels[row["arm"]], int(row["seed"]))
        for row in strays
    }
    return Manifest(sweep_id="", name=OUTSIDE, runs=runs)


def _labels(folders: dict[str, Path]) -> dict[str, str]:
    """arm -> label: the settings that were hashed and differ, or the name of the run where too many do."""
    canonical = {arm: flatten(RunDir(folder).identity().get("canonical", {})) for arm, folder in folders.items()}
    settings = {arm: {k: str(v) for k, v in c.items() if k not in SEED_KEYS} for arm, c in canonical.items()}
    varying = varying_keys(list(settings.values()))
    if 0 < len(varying) <= MAX_AXES:
        return {arm: spell({k: s[k] for k in varying if k in s}) for arm, s in settings.items()}
    return unambiguous({arm: folder.name.rsplit("-", 1)[0] for arm, folder in folders.items()})
