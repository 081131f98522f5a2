"""One run's records over its steps, read from metrics.jsonl and routing.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moe_sweeps.errors import MoeSweepsError, RunFolderError
from moe_sweeps.records.rundir import MetricsLog, RunDir

ROUTING = "routing.jsonl"
METRICS = "metrics.jsonl"

Floats = NDArray[np.float64]
Record = dict[str, Any]


class NotRecorded(MoeSweepsError):
    """The run folder does not hold what a picture would show; the message says why."""


class Series(NamedTuple):
    """One recorded quantity: `values[i]`, whatever its shape, belongs to `steps[i]`."""

    steps: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Collapse:
    """That a run's router collapsed, by the rule of docs/definitions.md."""

    step: int | None  # at which the rule held first; None while the run has no summary
    threshold: float  # share of the largest possible MaxVio
    patience: int  # steps in a row above it
    largest: float  # E/k - 1

    @property
    def limit(self) -> float:
        """The MaxVio above which it stayed."""
        return self.threshold * self.largest

    @property
    def when(self) -> str:
        """ " at step N" for a sentence; empty where the step is not known."""
        return "" if self.step is None else f" at step {self.step:,}"

    @property
    def sentence(self) -> str:
        """What happened and by which rule, for a reader who does not know the rule."""
        rule = f"MaxVio of a step's batch, mean over layers, was above {self.limit:.2f} ({self.threshold:.0%} of the "
        rule += f"largest possible, E/k - 1 = {self.largest:g}) in {self.patience:,} steps in a row"
        return f"The router of this run collapsed{self.when}: {rule}"


@dataclass(frozen=True, slots=True)
class History:
    """The records of one run by file and split, in the order of their steps."""

    name: str  # of the run folder
    config: dict[str, Any]
    tokens_per_step: int
    records: dict[tuple[str, str], list[Record]]  # by file name and split
    collapse: Collapse | None = None  # None: the router is well, as far as is known

    @classmethod
    def read(cls, run: RunDir) -> History:
        """Read a run folder; files that do not exist are read as empty.

        Raises:
            RunFolderError: what is there is damaged.
        """
        try:
            return cls._read(run)
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise RunFolderError(f"{run.path} has unexpected content ({text})") from error

    @classmethod
    def _read(cls, run: RunDir) -> History:
        config = run.config()
        trainer = config.get("trainer") or {}
        tokens = int(trainer.get("batch_size") or 0) * int(trainer.get("seq_len") or 0)
        records: dict[tuple[str, str], list[Record]] = {}
        for file in (METRICS, ROUTING):
            for split, found in _by_split(run.path / file).items():
                records[file, split] = found
        return cls(run.path.name, config, run.status().tokens_per_step or tokens, records, _collapse(run, config))

    @property
    def is_dense(self) -> bool:
        """Whether the model has no router."""
        return (self.config.get("experts") or {}).get("kind") == "dense"

    @property
    def top_k(self) -> int | None:
        """Experts per token, None without a router."""
        return (self.config.get("experts") or {}).get("top_k")

    @property
    def num_experts(self) -> int | None:
        """Experts per layer, None without a router."""
        return (self.config.get("experts") or {}).get("num_experts")

    def has(self, split: str, key: str, file: str = ROUTING) -> bool:
        """Whether a column of the routing log was recorded."""
        return any(record.get(key) is not None for record in self.records.get((file, split), []))

    def series(self, split: str, key: str, file: str = ROUTING) -> Series:
        """The records of `split` that hold `key`; a null inside a list becomes NaN.

        Raises:
            NotRecorded: there is none.
            RunFolderError: they are not numbers of one shape.
        """
        found = [record for record in self.records.get((file, split), []) if record.get(key) is not None]
        if not found:
            raise NotRecorded(self.why_missing(split, key, file))
        try:
            values = np.array([record[key] for record in found], dtype=float)
        except (TypeError, ValueError) as error:
            raise RunFolderError(f"{self.name}/{file}: {key} of split {split} changes its shape ({error})") from error
        return Series(np.array([record["step"] for record in found], dtype=float), values)

    def by_role(self, key: str) -> dict[str, Series]:
        """A `{role: number}` field as one series a role."""
        found = [record for record in self.records.get((ROUTING, "train"), []) if record.get(key)]
        if not found:
            raise NotRecorded(self.why_missing("train", key, router=False))
        roles = dict.fromkeys(role for record in found for role in record[key])
        steps = np.array([record["step"] for record in found], dtype=float)
        return {role: Series(steps, np.array([r[key].get(role, np.nan) for r in found], dtype=float)) for role in roles}

    def last(self, split: str, key: str) -> Record:
        """The last record of `split` that holds `key`."""
        for record in reversed(self.records.get((ROUTING, split), [])):
            if record.get(key):
                return record
        raise NotRecorded(self.why_missing(split, key))

    def why_missing(self, split: str, key: str, file: str = ROUTING, *, router: bool = True) -> str:
        """Why there is nothing to draw, as index.md says it."""
        if router and file == ROUTING and self.is_dense:
            return "the model is dense: it has no router and no experts"
        if not any(name == file for name, _ in self.records):
            older = "an archive leaves it out; or the run is older than that file, or has not logged yet"
            return f"the run has no {file} ({older if file == ROUTING else 'it has not logged yet'})"
        return f"{file} has no `{key}` in records of split {split}"


def _collapse(run: RunDir, config: dict[str, Any]) -> Collapse | None:
    """From the summary, or from the status of a run that has none yet. Old configs are read with the first rule."""
    summary, trainer, experts = run.summary() or {}, config.get("trainer") or {}, config.get("experts") or {}
    if not (summary.get("collapsed") or run.status().collapsed) or "num_experts" not in experts:
        return None
    rule = trainer.get("collapse_threshold", 0.9), trainer.get("collapse_patience", 100)
    return Collapse(summary.get("collapsed_at_step"), *rule, experts["num_experts"] / experts["top_k"] - 1)


def _by_split(path: Path) -> dict[str, list[Record]]:
    """Records by split and in the order of steps; of a step that was written twice, the later record."""
    kept: dict[str, dict[float, Record]] = {}
    for record in MetricsLog(path).records():
        if not isinstance(record, dict) or "step" not in record or "split" not in record:
            raise RunFolderError(f"{path} has a line without step or split: {str(record)[:80]}")
        kept.setdefault(record["split"], {})[record["step"]] = record
    return {split: [by_step[step] for step in sorted(by_step)] for split, by_step in kept.items()}
