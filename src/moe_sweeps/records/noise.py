"""Which runs tell of each other's noise, and the spread of such runs over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moe_sweeps.records.genuine import hash_of
from moe_sweeps.records.manifest import Manifest

SWEEP = "noise_floor"  # the sweep that trains one configuration with many seeds
_OF_TRAINER = ("steps", "batch_size", "seq_len")


def size_of(canonical: Mapping[str, Any]) -> str:
    """12 hexadecimal digits for the size of a run, from the canonical form that identity.json holds.

    Seeds move runs of equal size about equally. The size is the model without its experts, the text, the batch and the
    length. Experts, router, balancer and optimizer are what the arms of one table differ in, so they are no part of it.
    Forked runs share their beginning, so they scatter less: their fork is part of their size.
    """
    trainer = canonical.get("trainer") or {}
    parts = {"model": canonical.get("model"), "data": canonical.get("data")}
    fork = canonical.get("fork") or {}
    parts |= {"fork": {k: v for k, v in fork.items() if k != "replicate"}} if fork else {}
    return hash_of(parts | {name: trainer.get(name) for name in _OF_TRAINER})


def noise_runs(manifests: Iterable[Manifest]) -> set[str]:
    """Ids of the runs that were trained to measure noise."""
    return {run_id for m in manifests if SWEEP in (m.name, m.file.name) for run_id in m.runs}


def pooled_sd(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Standard deviation within groups and its degrees of freedom; None if no group has two values."""
    several = [g for g in groups if len(g) > 1]
    freedom = sum(len(g) - 1 for g in several)
    if not freedom:
        return None
    return math.sqrt(sum(statistics.variance(g) * (len(g) - 1) for g in several) / freedom), freedom
