"""Runs that belong to no sweep, as the manifest of one sweep."""

from __future__ import annotations

from pathlib import Path

from moe_sweeps.records.genuine import REPLICATE_KEYS, flatten
from moe_sweeps.records.manifest import Manifest, RunRecord, spell_settings
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.results.labels import MAX_AXES, unambiguous, varying_keys
from moe_sweeps.results.runs import Runs

OUTSIDE = "runs outside any sweep"


def outside_manifest(runs: Runs, manifests: list[Manifest]) -> Manifest | None:
    """A manifest of the runs that none of `manifests` lists; None if there are none.

    Its arms have as many seeds as were trained: nothing is missing.
    """
    known = {run_id for manifest in manifests for run_id in manifest.runs}
    strays = {run_id: row for run_id, row in runs.rows.items() if run_id not in known}
    if not strays:
        return None
    folders = {row["arm"]: Path(row["folder"]) for row in reversed(strays.values())}
    settings = _settings(folders)
    labels = {arm: spell_settings(s) for arm, s in settings.items()} if any(settings.values()) else _names(folders)
    records = {
        run_id: RunRecord(
            Path(row["folder"]).name,
            row["arm"],
            labels[row["arm"]],
            int(row["seed"]),
            settings[row["arm"]],
        )
        for run_id, row in strays.items()
    }
    return Manifest(sweep_id="", name=OUTSIDE, runs=records)


def _settings(folders: dict[str, Path]) -> dict[str, dict[str, str]]:
    """arm -> the settings that were hashed and differ between arms; empty where too many do."""
    canonical = {arm: flatten(RunDir(folder).identity().get("canonical", {})) for arm, folder in folders.items()}
    settings = {arm: {k: str(v) for k, v in c.items() if k not in REPLICATE_KEYS} for arm, c in canonical.items()}
    varying = varying_keys(list(settings.values()))
    shown = varying if len(varying) <= MAX_AXES else []
    return {arm: {k: s[k] for k in shown if k in s} for arm, s in settings.items()}


def _names(folders: dict[str, Path]) -> dict[str, str]:
    """arm -> what its runs are called."""
    return unambiguous({arm: folder.name.rsplit("-", 1)[0] for arm, folder in folders.items()})
