"""A folder of runs opened for questions: what the notebooks in analysis/ begin with.

suite = open_suite()
suite.runs                               # the frame, a row a run
suite.table("aux_coef")                  # shown by a notebook as the table of that sweep
suite.figure("aux_coef", "curves")       # shown as a picture
suite.claims("aux_coef")                 # the sweep's statements and what became of them
suite.statements()                       # the statements of all sweeps in one picture
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from moe_sweeps.errors import MoeSweepsError, nearest
from moe_sweeps.paths import REPOSITORY, resolve
from moe_sweeps.records.find import find_sweeps
from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.records.problem import Problem
from moe_sweeps.reports.charts import CHARTS, OVER_TRAINING, unreadable_curves
from moe_sweeps.reports.charts.statements import statements
from moe_sweeps.reports.drawing.files import draw_files
from moe_sweeps.reports.evidence import draw
from moe_sweeps.reports.layout import sheets
from moe_sweeps.reports.markdown import sheet_markdown
from moe_sweeps.reports.notes import caption, facts, legend, warning
from moe_sweeps.reports.recommend import recommendations
from moe_sweeps.reports.rows import arm_sheet
from moe_sweeps.reports.scorecard import FIGURE_TITLE, claim_sheet
from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.frame import frame_of
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.standing import is_replaced, standing_verdicts
from moe_sweeps.results.tables import Table, ablation_table

COMMITTED = REPOSITORY / "results" / "proxy" / "runs"


@dataclass(frozen=True, slots=True)
class Page:
    """Markdown that a notebook renders."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure that a notebook shows; `str` is its reading."""

    png: bytes
    svg: bytes
    reading: str

    def _repr_png_(self) -> bytes:
        return self.png

    def __str__(self) -> str:
        return self.reading

    __repr__ = __str__  # what a notebook keeps as text, where pictures differ with fonts


def open_suite(root: Path | str | None = None) -> Suite:
    """The runs and sweeps of a runs folder: `root`, or $MOE_SWEEPS_RUNS, or those that are committed.

    An installed package has no committed ones, and takes runs/.

    Raises:
        MoeSweepsError: there is nothing in it.
    """
    found = resolve(str(root or os.environ.get("MOE_SWEEPS_RUNS") or (COMMITTED if COMMITTED.is_dir() else "runs")))
    suite = Suite(found)
    if suite.runs.empty and not suite.manifests:
        raise MoeSweepsError(f"there are no runs in {found}. Give open_suite() another folder, or set MOE_SWEEPS_RUNS.")
    return suite


class Suite:
    """The sweeps of one runs folder. What could not be read is in `problems`, and in no number."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read = read_runs(root)
        self.manifests, damaged = load_manifests(root)
        self.problems: list[Problem] = [*self._read.problems, *damaged]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run: config by Hydra names, state, provenance, final numbers."""
        return frame_of(self._read.rows.values())

    def curves(self, runs: pd.DataFrame | None = None) -> pd.DataFrame:
        """metrics.jsonl of `runs` (default: of all that are done), a row a record; damaged files are `problems`."""
        chosen = self.runs.query("state == 'done'") if runs is None else runs
        found = load_curves(chosen["folder"])
        self._note(found.problems)
        return found.frame

    @cached_property
    def noise(self) -> Noise | None:
        """What seeds alone do, from the noise_floor sweep."""
        return Noise.of(self._read, self.manifests)

    def ablation(self, name: str) -> Table:
        """The ablation table of the latest sweep called `name`, as an object."""
        table = ablation_table(self._manifest(name), self._read, noise=self.noise)
        self._note(table.problems)
        return table

    def _note(self, problems: Iterable[Problem]) -> None:
        self.problems += [problem for problem in problems if problem not in self.problems]

    def table(self, name: str) -> Page:
        """The same with its notes, for reading: arms, grids, differences and published values."""
        table = self.ablation(name)
        parts = [sheet_markdown(sheet) for sheet in (arm_sheet(table), *sheets(table))]
        notes = [text for text in (warning(table), caption(table)) if text]
        return Page("\n\n".join([parts[0], *notes, *legend(table), *parts[1:], facts(table)]))

    def figure(self, name: str, kind: str) -> Picture | Page:
        """One of the table's pictures, or the reason why there is none: its runs may still be to come.

        Raises:
            MoeSweepsError: there is no such kind of picture.
        """
        if kind not in CHARTS:
            raise MoeSweepsError(f"there is no picture called {kind}. {_hint(kind, CHARTS)}")
        table = self.ablation(name)
        drawn, not_drawn, faults = draw(table, [kind])
        self._note(Problem(self.root / f"{name}.png", f"{kind}: {why}") for kind, why in faults.items())
        if kind in OVER_TRAINING:
            self._note(unreadable_curves(table))
        if kind in not_drawn:
            return Page(f"*{CHARTS[kind].title}: {not_drawn[kind]}.*")
        return Picture(drawn[kind]["png"], drawn[kind]["svg"], CHARTS[kind].reading)

    def claims(self, name: str) -> Page:
        """What became of the statements in the sweep's file."""
        table = self.ablation(name)
        sheet = claim_sheet(table, self._verdicts(table))
        return Page(sheet_markdown(sheet) if sheet else f"The sweep {name} claims nothing.")

    def statements(self) -> Picture | Page:
        """All statements of the newest sweep of each name in one figure: effects, intervals, where each turns."""
        judged = [(table, self._verdicts(table)) for table in map(self.ablation, self._newest())]
        drawn = draw_files({"claims": partial(statements, judged)})
        if drawn.left_out:
            return Page(f"*{FIGURE_TITLE}: {drawn.left_out['claims']}.*")
        return Picture(drawn.files["claims"]["png"], drawn.files["claims"]["svg"], f"{FIGURE_TITLE}.")

    def _newest(self) -> list[str]:
        """The id of the sweep of each name that counts: the newest, but for a look that has only begun."""
        counted = [m for m in reversed(self.manifests) if not is_replaced(m, self.manifests)]
        return [m.sweep_id for m in {m.name: m for m in counted}.values()]

    def _verdicts(self, table: Table) -> list[Verdict]:
        return standing_verdicts(table, self._read, self.noise)

    def recommended(self) -> Page:
        """What to set, from every sweep that asks so, the newest of each name."""
        sheet = recommendations([self.ablation(sweep_id) for sweep_id in self._newest()])
        return Page(sheet_markdown(sheet) if sheet else "No sweep here asks what to set.")

    def _manifest(self, name: str) -> Manifest:
        found = next(iter(find_sweeps(name, self.manifests)), None)
        if found is None:
            hint = _hint(name, [m.name for m in self.manifests])
            raise MoeSweepsError(f"no sweep in {self.root} is called {name}. {hint}")
        return found

    def __repr__(self) -> str:
        states = ", ".join(f"{n} {state}" for state, n in Counter(self.runs["state"]).most_common()) or "none"
        names = ", ".join(sorted({m.name for m in self.manifests})) or "none"
        unread = f"\ncould not be read: {len(self.problems)}" if self.problems else ""
        return f"runs: {states}\nsweeps: {names}{unread}"


def _hint(word: str, valid: Iterable[str]) -> str:
    names = sorted(set(valid))
    close = nearest(word, names)
    return f"Did you mean {close}?" if close else f"There are: {', '.join(names) or 'none'}."
