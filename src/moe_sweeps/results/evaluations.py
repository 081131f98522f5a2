"""Which evaluations of a run are alike: the final one takes more and other windows than those on the way.

The final evaluation is a point of its own in every figure: no line joins it to the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from moe_sweeps.results.history import METRICS, History, Series


def usual_size(tokens: Iterable[float]) -> float | None:
    """The number of tokens that most evaluations took; None where no number is known.

    Of several that occur equally often it is the smallest: a run with one evaluation on the way has a larger one at its
    end.
    """
    counts = Counter(float(size) for size in tokens if math.isfinite(size))
    return min(counts, key=lambda size: (-counts[size], size), default=None)


class Evaluations(NamedTuple):
    """One number of a run's evaluations: those on the way, and the final one where it is of another size."""

    line: Series
    final: Series


def parted(history: History, key: str) -> Evaluations:
    """`key` of the evaluations in metrics.jsonl; `final` is empty where the last one is of the usual size, too.

    Raises:
        NotRecorded: no evaluation holds it.
        RunFolderError: they are not numbers of one shape.
    """
    steps, values = history.series("val", key, METRICS)
    records = [record for record in history.records[METRICS, "val"] if record.get(key) is not None]
    tokens = np.array([_size(record.get("tokens")) for record in records])
    usual = usual_size(tokens)
    if usual is None or not math.isfinite(tokens[-1]) or tokens[-1] == usual:
        return Evaluations(Series(steps, values), Series(steps[:0], values[:0]))
    return Evaluations(Series(steps[tokens == usual], values[tokens == usual]), Series(steps[-1:], values[-1:]))


def _size(tokens: object) -> float:
    return float(tokens) if isinstance(tokens, int | float) else math.nan
