"""Write the tables of all sweeps, and the frame they rest on, under the reports folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.errors import MoeSweepsError, nearest
from moe_sweeps.host.files import write_atomic
from moe_sweeps.paths import TRAIN
from moe_sweeps.records.find import find_sweeps
from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports import render_costs
from moe_sweeps.reports.charts import CHARTS
from moe_sweeps.reports.csv_file import csv_text, frame_csv, sheet_csv
from moe_sweeps.reports.evidence import Evidence, draw_statements, gather, newest
from moe_sweeps.reports.latex import latex, sheet_latex
from moe_sweeps.reports.markdown import markdown, sheet_markdown
from moe_sweeps.reports.page import html_page
from moe_sweeps.reports.recommend import recommendations
from moe_sweeps.reports.scorecard import claims_markdown, scorecard_sheet
from moe_sweeps.reports.sheets import Sheet
from moe_sweeps.results.frame import frame_of
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.outside import outside_manifest
from moe_sweeps.results.runs import Runs, read_runs
from moe_sweeps.results.tables import Table

EXAMPLE = f"{TRAIN} -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6 scale=smoke"


class NothingToRead(MoeSweepsError):
    """There are no runs to make a table of."""


@dataclass(frozen=True, slots=True)
class Written:
    """The evidence that was written, the summary of it, the files, and what could not be read."""

    evidence: list[Evidence]
    summary: Sheet | None
    paths: list[Path]
    problems: list[Problem]

    @property
    def tables(self) -> list[Table]:
        """The ablation tables behind what was written."""
        return [found.table for found in self.evidence]

    @property
    def page(self) -> Path | None:
        """The HTML page with all of it; the first, where several sweeps have one each."""
        return next((path for path in self.paths if path.name == "index.html"), None)

    @property
    def clean(self) -> bool:
        """Whether everything could be read, and no table has gaps or mixed versions."""
        return not self.problems and all(table.clean for table in self.tables)


def write_tables(
    runs_root: Path, reports_root: Path, *, only: str | None = None, latest: bool = False, own: Manifest | None = None
) -> Written:
    """Write what every sweep found (or those called `only`, or the latest).

    A folder a sweep: table.md, table.csv, table.tex, figures as PNG and SVG, and costs.md and costs.csv where runs have
    recorded what they cost. For all together: index.html, claims.md, .tex, .png and .svg, recommended.md, .csv and
    .tex, runs.csv; if only a part was asked for, the page and its like stand in the sweep's folder, and those of all
    sweeps stay as they are.
    Runs that belong to no sweep get a table of their own unless one sweep was asked for; then problems of folders that
    are not part of it are left out, too. `own`: a sweep whose manifest need not lie in the runs folder, which may be
    closed to this user.

    Raises:
        NothingToRead: there is no run and no sweep, or none of that name.
    """
    runs = read_runs(runs_root)
    manifests, damaged = load_manifests(runs_root)
    if own is not None and own.sweep_id not in {m.sweep_id for m in manifests}:
        manifests.insert(0, own)
    if not runs.rows and not manifests and not runs.problems and not damaged:
        raise NothingToRead(f"there are no runs in {runs_root}. Train some first: {EXAMPLE}")
    chosen = _choose(manifests, only, latest, runs_root)
    restricted = latest or only is not None
    if not restricted and (outside := outside_manifest(runs, manifests)) is not None:
        chosen.append(outside)
    noise = Noise.of(runs, manifests)
    evidence = [gather(manifest, runs, noise) for manifest in chosen]
    members = {run_id for manifest in chosen for run_id in manifest.runs} if restricted else None
    problems = damaged + _problems(runs, evidence, members)
    paths = _write_reports(reports_root, evidence, problems, apart=restricted)
    paths += _write_all(reports_root, {"runs.csv": frame_csv(frame_of(runs.rows.values()), reports_root)})
    return Written(evidence, recommendations([found.table for found in newest(evidence)]), paths, problems)


def _problems(runs: Runs, evidence: list[Evidence], members: set[str] | None) -> list[Problem]:
    """Run folders (of `members`; None: all), layouts and curves that could not be read."""
    folders = [p for p in runs.problems if members is None or RunDir(p.path).run_id in members]
    return folders + list(dict.fromkeys(problem for found in evidence for problem in found.problems))


def _write_reports(root: Path, evidence: list[Evidence], problems: list[Problem], *, apart: bool) -> list[Path]:
    """The folder of each sweep, and the page and its like: one for all, or one in the folder of each (`apart`)."""
    root.mkdir(parents=True, exist_ok=True)
    paths = [path for found in evidence for path in _write_sweep(found, root / found.table.manifest.slug)]
    for part in [[found] for found in evidence] if apart else [evidence]:
        folder = root / part[0].table.manifest.slug if apart else root
        paths += _write_all(folder, _together(part, problems, folder))
    return paths


def _together(evidence: list[Evidence], problems: list[Problem], folder: Path) -> dict[str, str | bytes]:
    """The files about several sweeps together, to be written to `folder`, by name."""
    counted = newest(evidence)
    summary = recommendations([found.table for found in counted])
    drawn = draw_statements(counted)
    problems = [*problems, *(Problem(Path(f"{name}.png"), f"figure: {why}") for name, why in drawn.faults.items())]
    figure = drawn.files.get("claims", {})
    _replace_figures(folder, ("claims",), drawn.files)
    files: dict[str, str | bytes] = {"index.html": html_page(evidence, summary, problems, folder, figure)}
    files |= {f"claims.{suffix}": data for suffix, data in figure.items()}
    if any(found.verdicts for found in counted):
        judged = [(found.table, found.verdicts) for found in counted]
        files["claims.md"] = claims_markdown(judged, figure=bool(figure))
        if (claims := scorecard_sheet(judged)) is not None:
            files["claims.tex"] = sheet_latex(claims)
    if summary is not None:
        files |= {"recommended.md": sheet_markdown(summary), "recommended.csv": sheet_csv(summary)}
        files["recommended.tex"] = sheet_latex(summary)
    return files


def _choose(manifests: list[Manifest], only: str | None, latest: bool, runs_root: Path) -> list[Manifest]:
    """The sweeps that were asked for, in the order of `manifests`: the newest first."""
    chosen = list(manifests) if only is None else find_sweeps(only, manifests)
    if only is not None and not chosen:
        names = {name for m in manifests for name in (m.name, m.sweep_id)}
        guess = nearest(only, names)
        every = ", ".join(sorted({m.name for m in manifests})) or "none"
        hint = f"Did you mean {guess}?" if guess else f"There are: {every}."
        raise NothingToRead(f"no sweep in {runs_root} is called {only}. {hint}")
    if latest and not chosen:
        raise NothingToRead(f"no sweep has been started in {runs_root}. Start one: {EXAMPLE}")
    return chosen[:1] if latest else chosen


def _write_sweep(found: Evidence, folder: Path) -> list[Path]:
    files: dict[str, str | bytes] = {
        "table.md": markdown(found.table, list(found.figures)),
        "table.csv": csv_text(found.table),
        "table.tex": latex(found.table, found.costs),
    }
    if found.costs is not None:
        files |= {"costs.md": render_costs.markdown(found.costs), "costs.csv": render_costs.csv_text(found.costs)}
    for sheet in found.sheets:
        if sheet.slug == "published":
            files["published.csv"] = sheet_csv(sheet)
    files |= {f"{name}.{suffix}": data for name, both in found.figures.items() for suffix, data in both.items()}
    _replace_figures(folder, CHARTS, found.figures)
    return _write_all(folder, files)


def _replace_figures(folder: Path, possible: Iterable[str], drawn: Mapping[str, object]) -> None:
    """Delete figures of an earlier report that are not drawn any more."""
    for name in set(possible) - drawn.keys():
        for suffix in ("png", "svg"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)


def _write_all(folder: Path, files: dict[str, str | bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]
