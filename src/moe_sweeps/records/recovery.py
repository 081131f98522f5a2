"""Rebuilds what a lost file said from the other files of a run folder, after a power cut, a full disk or an edit.

status.json summarises the rest of the folder, so it can be rebuilt. What a run computed cannot.
This module knows files, not experiments: it imports neither torch nor the config schemas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.host.reading import read_json, read_yaml
from moe_sweeps.records.status import State, Status

UNKNOWN = "unknown"  # version of the code or data of a run whose provenance.json was lost
CHECKPOINT = "step-*.json"


def checkpoint_steps(checkpoints: Path) -> list[int]:
    """Steps that have a complete checkpoint by the names of the files, ascending."""
    found = (p.stem.removeprefix("step-") for p in checkpoints.glob(CHECKPOINT))
    return sorted(int(step) for step in found if step.isdecimal())


def rebuilt_status(folder: Path, problem: str) -> Status:
    """The status as far as summary, checkpoints, metrics and provenance show it. Nothing is written.

    A run with final numbers is over, one with a checkpoint resumes from it, any other restarts. Whether it was
    cancelled, paused or failed cannot be known, so it counts as preempted.
    """
    config, summary = _mapping(folder / "config.yaml"), final_numbers(folder)
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    total, batch, length = (_count(trainer.get(key)) for key in ("steps", "batch_size", "seq_len"))
    status = Status(total_steps=total, tokens_per_step=batch * length, rebuilt=problem, heartbeat=_changed(folder))
    status.attempt = attempts(folder)
    if summary is not None:
        diverged = "diverged_at_step" in summary
        status.state = State.diverged if diverged else State.done
        status.step = min(_count(summary.get("tokens")) // max(status.tokens_per_step, 1), total)
        status.collapsed = summary.get("collapsed") is True
        status.tokens_per_second = _number(summary.get("tokens_per_second"))
        status.attempt = max(status.attempt, 1)
        return status
    status.step = min(_intact_step(folder / "checkpoints"), total) if total else 0
    if status.step or status.attempt or (folder / "metrics.jsonl").exists():
        status.state, status.attempt = State.preempted, max(status.attempt, 1)
    return status


def final_numbers(folder: Path) -> dict[str, Any] | None:
    """summary.json, if it says how the run ended; None where it is missing, cut, or does not say so."""
    found = _mapping(folder / "summary.json")
    # Written out: what trains a run does not import the catalogue, so that a new number changes no version of the code.
    is_final = _number(found.get("val_loss")) is not None or "diverged_at_step" in found
    return found if is_final else None


def attempts(folder: Path) -> int:
    """How many attempts provenance.json lists."""
    found = _mapping(folder / "provenance.json").get("attempts")
    return len(found) if isinstance(found, list) else 0


def has_results(folder: Path) -> bool:
    """Whether the folder holds anything that training produced."""
    made = ("metrics.jsonl", "summary.json")
    return any((folder / name).exists() for name in made) or any((folder / "checkpoints").glob("step-*"))


def unknown_provenance(problem: str) -> dict[str, Any]:
    """Provenance in place of a lost one. Its versions of code and data are unknown, so tables mark the run."""
    attempt = {"source_hash": UNKNOWN, "data_fingerprint": UNKNOWN}
    return {"source_hash": UNKNOWN, "rebuilt": problem, "attempts": [attempt]}


def move_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that nothing of it is lost; returns its new path."""
    number = 1
    while (there := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return path.rename(there)


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds a mapping, or an empty one."""
    try:
        found = read_yaml(path) if path.suffix == ".yaml" else read_json(path)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _intact_step(checkpoints: Path) -> int:
    """Step of the newest checkpoint whose state has the size that its stamp says; 0 without one."""
    for step in reversed(checkpoint_steps(checkpoints)):
        stamp = _mapping(checkpoints / f"step-{step:08d}.json")
        try:
            size = (checkpoints / f"step-{step:08d}.pt").stat().st_size
        except OSError:
            continue
        if stamp.get("bytes") == size:
            return step
    return 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _changed(folder: Path) -> float:
    """When a file here was last written: the closest there is to the last heartbeat."""
    return max((p.stat().st_mtime for p in folder.iterdir() if p.is_file()), default=0.0)
