"""Every run that a decision may train: its sweep with the sweep's own seeds, then with further ones.

A unit is an arm at a seed: one run, or the replicates that continue from one trunk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.errors import ConfigError, RunFolderError
from moe_sweeps.experiment.identity import ID_LENGTH
from moe_sweeps.records.manifest import Replaced
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.block import SEEDS
from moe_sweeps.sweep.grid import expand
from moe_sweeps.sweep.plan import Plan, PlannedRun, make_plan
from moe_sweeps.sweep.search.space import asks_for_search

DATA_SEED = "data_seed"
LONGEST = 18  # digits of a seed: torch takes 64 bits


@dataclass(frozen=True, slots=True)
class StagePlan(Plan):
    """The part of a plan that one look is about. Its sweep keeps its id while runs are added to it."""

    own_id: str = ""

    @property
    def sweep_id(self) -> str:
        """The id of the sweep."""
        return self.own_id


@dataclass(slots=True)
class Pool:
    """`whole` is the plan with every seed of `seeds`, in the order in which they are used."""

    whole: Plan
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, arguments: Sequence[str], most: int) -> Pool:
        """The pool of what was typed, with at most `most` seeds an arm.

        Raises:
            ConfigError: it cannot be planned; it is a search; it has several data seeds, or more seeds than `most`.
        """
        if asks_for_search(arguments):
            raise ConfigError("search", "on", "a search chooses its own runs", "Leave search=... out.")
        grid = expand(arguments)
        _require_one_data_seed(grid.axes.get(DATA_SEED, []))
        own = list(dict.fromkeys(_seed(s.value) for c in grid.combinations for s in c if s.key == SEEDS)) or [0]
        if len(own) > most and _are_typed(arguments):
            rule = f"an arm gets at most {most} seeds"
            raise ConfigError(SEEDS, ",".join(map(str, own)), rule, f"Give --max-seeds {len(own)}, or fewer seeds.")
        first = max(own) + 1
        seeds = [*own, *range(first, first + max(0, most - len(own)))][:most]
        rest = [word for word in arguments if word.partition("=")[0] != SEEDS]
        return cls(make_plan([*rest, f"{SEEDS}={','.join(map(str, seeds))}"]), tuple(seeds))

    @property
    def name(self) -> str:
        """The name of the sweep."""
        return self.whole.name

    @property
    def root(self) -> Path:
        """The runs folder."""
        return self.whole.runs_root

    @property
    def arms(self) -> list[str]:
        """The ids of the arms, in the order of the plan."""
        return list(dict.fromkeys(planned.arm for planned in self.whole.runs.values()))

    @property
    def key(self) -> str:
        """The same arms under the same name are the same decision, whatever seeds and budget were typed."""
        return _hash(["decide", self.name, sorted(self.arms)])

    def stage_id(self, look: int) -> str:
        """The id of the sweep that a look is about."""
        return _hash(["decide", self.name, sorted(self.arms), look])

    def units(self) -> dict[tuple[str, int], list[PlannedRun]]:
        """(arm, seed) -> its runs."""
        found: dict[tuple[str, int], list[PlannedRun]] = {}
        for planned in self.whole.runs.values():
            found.setdefault((planned.arm, planned.run.seed), []).append(planned)
        return found

    def refresh(self) -> None:
        """Find the folders that runs were given since."""
        ids = {path.name.rpartition("-")[2] for path in self.root.glob("*-*")}
        self.whole = dataclasses.replace(
            self.whole, runs=_with_folders(self.whole.runs, self.root, ids),
            trunks=_with_folders(self.whole.trunks, self.root, ids),
        )  # fmt: skip

    def stage(self, look: int, run_ids: Iterable[str]) -> StagePlan:
        """The plan of these runs alone."""
        chosen = set(run_ids)
        runs = {run_id: planned for run_id, planned in self.whole.runs.items() if run_id in chosen}
        requests = [request for request in self.whole.requests if request.run_id in chosen]
        trunks = {planned.run.fork.run for planned in runs.values()}
        used = list(dict.fromkeys(str(planned.run.seed) for planned in runs.values()))
        return StagePlan(
            dataclasses.replace(self.whole.grid, replaced=_replaced(self.whole, used)), requests, runs,
            _axes(self.whole, used), {i: t for i, t in self.whole.trunks.items() if i in trunks}, self.stage_id(look),
        )  # fmt: skip


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST:
        raise ConfigError(SEEDS, text, "decide counts seeds up from those that are typed", "Write seed=0,1,2.")
    return int(text)


def _are_typed(arguments: Sequence[str]) -> bool:
    """Those of a sweep file are cut, as --max-seeds says."""
    return any(word.partition("=")[0] == SEEDS for word in arguments)


def _with_folders(runs: dict[str, PlannedRun], root: Path, ids: set[str]) -> dict[str, PlannedRun]:
    return {run_id: _with_folder(planned, root, ids) for run_id, planned in runs.items()}


def _with_folder(planned: PlannedRun, root: Path, ids: set[str]) -> PlannedRun:
    if planned.folder is not None or planned.run_id not in ids:
        return planned
    try:
        return dataclasses.replace(planned, folder=RunDir.find(root, planned.run_id))
    except RunFolderError:  # several folders; to freeze the run says so
        return planned


def _replaced(whole: Plan, used: Sequence[str]) -> tuple[Replaced, ...]:
    """What was typed in place of the file's settings, with the seeds that are used alone."""
    file = whole.grid.file
    old = tuple(map(str, file.seeds)) if file else ()
    others = tuple(found for found in whole.grid.replaced if found.key != SEEDS)
    return others if file is None or list(old) == list(used) else (*others, Replaced(SEEDS, old, tuple(used)))


def _axes(whole: Plan, used: Sequence[str]) -> dict[str, list[str]]:
    axes = {key: values for key, values in whole.axes.items() if key != SEEDS}
    return axes | ({SEEDS: list(used)} if len(used) > 1 else {})


def _require_one_data_seed(values: Sequence[str]) -> None:
    if len(values) > 1:
        rule = "decide adds seeds, and a data seed is another replicate"
        raise ConfigError(DATA_SEED, ",".join(values), rule, "Give one data_seed, or leave it out.")


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:ID_LENGTH]
