"""What other runs tell of the noise of a table: alike arms lend their spread, and further seeds of its own arms count.

Runs are alike if they have one size (records/noise.py), saw the same data, and were trained by code that does not
contradict that of the table. One arm's spread is not another's, so what is lent is moderated (moderated.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_sweeps.records.code_record import UNKNOWN, CodeRecord, disagree, parsed_text
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.numbers import Metric
from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import LEVEL
from moe_sweeps.results.moderated import Array
from moe_sweeps.results.nested import is_forked
from moe_sweeps.results.runs import Row, Runs, is_finished

LOST = ("diverged",)  # states whose seeds are missing because of what happened in them


@dataclass(frozen=True, slots=True)
class Floor:
    """The spread over seeds that alike arms have in common, on the metric's scale.

    `sd` is pooled over `runs` runs of arms with several seeds, on `freedom` degrees of freedom. `difference` is what
    two single runs that differ in their seed alone exceed in one case of twenty, if they scatter like those.
    """

    sd: float
    freedom: int
    runs: int
    difference: float


@dataclass(frozen=True)
class Noise:
    """All rows that were read, and every sweep that was typed."""

    rows: tuple[Row, ...]
    manifests: tuple[Manifest, ...]

    @classmethod
    def of(cls, runs: Runs, manifests: Sequence[Manifest]) -> Noise:
        """What is known of noise."""
        return cls(tuple(runs.rows.values()), tuple(manifests))

    def like(self, sizes: Sequence[str], data: Sequence[str], code: Sequence[CodeRecord]) -> Alike:
        """The rows that are alike to a table of these sizes and versions; none for a table that mixes several."""
        if len(sizes) != 1 or len(data) != 1 or disagree(code):
            return Alike(())
        same = (row for row in self.rows if row["size"] == sizes[0] and versions_of(row, "data_fingerprint") == [*data])
        return Alike(tuple(row for row in same if not disagree([*code, *code_of(row)])))

    def looks(self, manifest: Manifest) -> int:
        """How many times seeds of these comparisons were planned until `manifest`: each is a look at the results.

        A sweep of the same name is a look of its own if it saw fewer runs of some arm than there are to be seen now. A
        table of a plan sees the runs that earlier sweeps asked for, too; a look of `decide` names all that it sees.
        """
        own = _seeds(manifest)
        before = sorted(self._before(manifest), key=lambda other: other.moment)
        seen, now = self._seen(before), self._seen([*before, manifest])[-1]
        earlier: set[object] = set()
        for other, then in zip(before, seen, strict=True):
            common = {arm: then[arm] & now[arm] for arm in own.keys() & _seeds(other).keys()}
            if len(common) < min(2, len(own)):
                continue
            if any(runs < now[arm] for arm, runs in common.items()):
                earlier.add(frozenset(common.items()))
            elif is_look_of_decide(other) and is_look_of_decide(manifest):
                same = _seeds(other) == own  # of which a run may have failed then, and ended since
                if same or any(then[arm] > now[arm] for arm in common):
                    earlier.add(other.sweep_id)
        return 1 + len(earlier)

    @staticmethod
    def _seen(manifests: Sequence[Manifest]) -> list[dict[str, frozenset[Any]]]:
        """What the table of each sees, by arm; they are given in the order in which they were made."""
        there: dict[str, frozenset[Any]] = {}  # what was asked for so far
        found = []
        for one in manifests:
            own = _seeds(one)
            there = {arm: there.get(arm, frozenset()) | own.get(arm, frozenset()) for arm in (*there, *own)}
            found.append(there if one.is_of_plan else {**own})
        return found

    def later_runs(self, manifest: Manifest) -> set[str]:
        """Runs that the table of `manifest` does not see: they belong to later looks at a sweep of its name.

        What any sweep asked for before is no such run, unless `manifest` is a look of `decide`, which names all its
        runs.
        """
        later = {i for other in self.manifests if _is_later(other, manifest) for i in other.runs} - manifest.runs.keys()
        if is_look_of_decide(manifest):
            return later
        return later - {i for other in self.manifests if other.moment <= manifest.moment for i in other.runs}

    def of_versions(self, data: Sequence[str], code: Sequence[CodeRecord]) -> Alike:
        """The rows of any size that saw these data and were trained by code that does not contradict `code`."""
        rows = (row for row in self.rows if {*versions_of(row, "data_fingerprint")} <= {*data})
        return Alike(tuple(row for row in rows if not disagree([*code, *code_of(row)])))

    def _before(self, manifest: Manifest) -> Iterator[Manifest]:
        """The sweeps of the same name that were made earlier."""
        for other in self.manifests:
            if _is_later(manifest, other):
                yield other


@dataclass(frozen=True)
class Alike:
    """Rows that are alike."""

    rows: tuple[Row, ...]

    def of_arm(self, arm: str, without: Iterable[str] = ()) -> list[Row]:
        """The finished runs of an arm, but for the run ids `without`."""
        known = set(without)
        return [row for row in self.finished() if row["arm"] == arm and row["run_id"] not in known]

    def lost(self, arm: str, without: Iterable[str] = ()) -> int:
        """How many runs of an arm diverged, or were stopped when their router had collapsed."""
        known = set(without)
        mine = (row for row in self.rows if row["arm"] == arm and row["run_id"] not in known)
        return sum(row["state"] in LOST or bool(row.get("stopped_early")) for row in mine)

    def lent(self, metric: Metric, without: Iterable[str] = ()) -> tuple[Array, Array] | None:
        """Sums of squares and degrees of freedom of the arms with several seeds, but for the arms `without`.

        None of forks.
        """
        if any(map(is_forked, self.rows)):  # they scatter with their trunks, which a table of forks takes out
            return None
        known = set(without)
        groups = [v for arm, v in self._by_arm(metric).items() if arm not in known and len(v) > 1]
        found = [(float(np.var(v)) * len(v), float(len(v) - 1)) for v in groups]
        if not any(squares > 0 for squares, _ in found):
            return None
        squares, freedom = zip(*found, strict=True)
        return np.asarray(squares), np.asarray(freedom)

    def floor(self, metric: Metric) -> Floor | None:
        """What seeds alone do to a number of such runs; None where no arm has two."""
        lent = self.lent(metric)
        if lent is None:
            return None
        squares, freedom = lent
        fit = Fit.of(np.array([[0.0], [0.0]]), others=lent)
        reach = float(fit.half_width(np.array([[1.0, -1.0]]), LEVEL, LEVEL)[0])
        runs = sum(len(v) for v in self._by_arm(metric).values() if len(v) > 1)
        return Floor(float(np.sqrt(squares.sum() / freedom.sum())), int(freedom.sum()), runs, reach)

    def finished(self) -> list[Row]:
        """Those that were trained to their end."""
        return [row for row in self.rows if is_finished(row)]

    def _by_arm(self, metric: Metric) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in self.finished():
            value = row.get(metric.column)
            if isinstance(value, int | float) and np.isfinite(scaled := metric.on_scale(value)):
                found.setdefault(row["arm"], []).append(scaled)
        return found


def is_look_of_decide(manifest: Manifest) -> bool:
    """Whether it is a look of `decide`, whose id does not follow from its runs; a search has one of its own, too."""
    return not (manifest.is_of_plan or manifest.search)


def _is_later(manifest: Manifest, than: Manifest) -> bool:
    """Whether it is another sweep of the same name, and was made later."""
    is_other = manifest.name == than.name and manifest.sweep_id != than.sweep_id
    return is_other and manifest.moment > than.moment


def code_of(row: Row) -> list[CodeRecord]:
    """Every version of the code that trained a run."""
    return [*parsed_text(row.get("sources") or "")] or [*map(CodeRecord, versions_of(row, "source_hash"))]


def versions_of(row: Row, column: str) -> list[str]:
    """The versions of one run; one that changed on its way has several, joined by plus signs."""
    return str(row[column] or UNKNOWN).split("+")


def _seeds(manifest: Manifest) -> Mapping[str, frozenset[Any]]:
    found: dict[str, set[Any]] = {}
    for run_id, planned in manifest.runs.items():
        found.setdefault(planned.arm, set()).add(run_id)
    return {arm: frozenset(ids) for arm, ids in found.items()}
