"""The noise floor: what seeds alone do to a number, from the runs of the sweep `noise_floor`.

That is the spread of one configuration, and others can spread far more (docs/LOG.md: a barely balanced arm 27 times as
much). So a claim that rests on single seeds is judged by the spread over all arms with several seeds where that is
wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from moe_sweeps.results.compare import LEVEL, pooled_sd
from moe_sweeps.results.manifest import Manifest
from moe_sweeps.results.stats import t_quantile

SWEEP = "noise_floor"


@dataclass(frozen=True, slots=True)
class Floor:
    """Standard deviation over seeds of one configuration, its degrees of freedom, and how many runs it rests on."""

    sd: float
    freedom: int
    runs: int

    @property
    def difference(self) -> float:
        """What the difference of two runs that differ in their seed alone exceeds in one case of twenty:
        t(1 - LEVEL / 2, freedom) * sqrt(2) * sd."""
        return t_quantile(1 - LEVEL / 2, self.freedom) * math.sqrt(2) * self.sd


@dataclass(frozen=True, slots=True)
class Noise:
    """Finished runs of the noise_floor sweep, and all finished runs."""

    runs: pd.DataFrame
    all_runs: pd.DataFrame

    @classmethod
    def of(cls, frame: pd.DataFrame, manifests: Sequence[Manifest]) -> Noise:
        """The noise runs among the rows that load_runs gave, and the others."""
        members = {run_id for m in manifests if SWEEP in (m.name, m.file.get("name")) for run_id in m.runs}
        done = frame.loc[frame["state"] == "done"]
        return cls(done.loc[done["run_id"].isin(members)], done)

    def floor(self, column: str, scales: Sequence[str], tokens: Sequence[int]) -> Floor | None:
        """The floor for runs of this scale and length; None if a table mixes several, or nothing was measured."""
        return _pooled(self.runs, column, scales, tokens)

    def wider(self, column: str, scales: Sequence[str], tokens: Sequence[int]) -> Floor | None:
        """The same from every arm of any sweep that has several seeds, where that gives a larger difference."""
        floor, every = self.floor(column, scales, tokens), _pooled(self.all_runs, column, scales, tokens)
        return every if floor and every and every.difference > floor.difference else None


def _pooled(runs: pd.DataFrame, column: str, scales: Sequence[str], tokens: Sequence[int]) -> Floor | None:
    if len(scales) != 1 or len(tokens) != 1:
        return None
    like = runs.loc[(runs["scale"] == scales[0]) & (runs["tokens"] == tokens[0])]
    groups = [list(values.dropna()) for _, values in like.groupby("arm")[column]]
    found = pooled_sd(groups)
    return found and Floor(*found, runs=sum(len(g) for g in groups if len(g) > 1))
