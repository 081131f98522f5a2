"""Forked runs in a table: arms within trunks, replicates within arms.

Replicates of an arm share a trunk, so they are no independent seeds: what a treatment does to that one trunk is in all
of them alike. The unit of a comparison is their mean, one for each arm and trunk. The trunk is the block: it is shared
by design, so it is taken out without asking whether that is shown to help, as it is asked of seeds (blocks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from moe_sweeps.records.manifest import Manifest

Row = Mapping[str, Any]
FORKED = "fork.step"


def is_forked(row: Row) -> bool:
    """Whether a run continues from a trunk."""
    return row.get(FORKED) is not None and row.get("fork.role") != "trunk"


def units(rows: Iterable[Row]) -> dict[Hashable, list[Row]]:
    """Seeds -> the runs of one arm with these seeds: one run, or the replicates that continue from one trunk.

    A replicate that is given twice counts once, as it was given last.
    """
    found: dict[Hashable, dict[Any, Row]] = {}
    for row in rows:
        found.setdefault((row.get("seed"), row.get("data_seed")), {})[row.get("fork.replicate")] = row
    return {seeds: list(replicates.values()) for seeds, replicates in found.items()}


def unit_values(rows: Iterable[Row], number: Callable[[Row], float | None]) -> dict[Hashable, float]:
    """Seeds -> the mean of a number over the replicates that have it; without those that have none."""
    known = {seeds: [v for row in found if (v := number(row)) is not None] for seeds, found in units(rows).items()}
    return {seeds: sum(values) / len(values) for seeds, values in known.items() if values}


def start_of(rows: Sequence[Row], start: Callable[[Row], Hashable | None]) -> Hashable | None:
    """What a unit began with: of forks the trunk and the batches; of others `start`, the weights and the batches."""
    if not is_forked(rows[-1]):
        return start(rows[-1])
    begun = {(row.get("fork.run"), row.get(FORKED), row.get("pairing.batches")) for row in rows}
    one = begun.pop() if len(begun) == 1 else (None,)
    return None if None in one else one


def question_of(manifest: Manifest) -> str:
    """What the differences of a sweep are about, beyond its title: ", from step 200 on"; empty for unforked runs."""
    return f", {manifest.fork.question}" if manifest.fork else ""
