"""One HTML page with everything, the answers first: cards, scorecard, noise and power, runs to choose, each table.

The page is one file that fetches nothing. A cell links to the runs behind it, and each run to its folder. Its templates
lie in templates/; whatever they set is text, and escaped. Its Content-Security-Policy allows no network, and no script
or style but those that are written here.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from moe_sweeps.host.plain import html_link
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.words import MEANINGS
from moe_sweeps.reports.cards import by_answer, card
from moe_sweeps.reports.charts import CHARTS
from moe_sweeps.reports.evidence import Evidence, newest
from moe_sweeps.reports.explore.pack import explorer
from moe_sweeps.reports.lineage import reproduce
from moe_sweeps.reports.notes import caption, facts, legend, warning
from moe_sweeps.reports.power import power_sheet
from moe_sweeps.reports.scorecard import FIGURE_TITLE, scorecard_sheet
from moe_sweeps.reports.sheets import NOTHING, Sheet
from moe_sweeps.reports.templating import as_it_is, environment
from moe_sweeps.results.outcomes import ENDED, ArmRun
from moe_sweeps.results.tables import Arm, Table

TITLE = "Ablations of Mixture-of-Experts training"
NO_FIGURE: Mapping[str, bytes] = {}
RUN_COLUMNS = ("run", "seed", "state", "code", "data", "attempts", "train it again")
_EXPLORER = tuple(
    f"explore/{name}.js"
    for name in ("data", "parts", "stage", "filter", "curves", "tradeoff", "grid", "parallel", "app")
)
# What would end the address or the attribute with single quotes that it stands in.
_IN_ADDRESS = str.maketrans({"%": "%25", "#": "%23", "&": "%26", "'": "%27", "\n": " ", "\r": " ", "\t": " "})


def html_page(evidence: Sequence[Evidence], summary: Sheet | None, problems: Sequence[Problem], reports: Path,
              statements: Mapping[str, bytes] = NO_FIGURE) -> str:  # fmt: skip
    """The page as it is written to `reports`/index.html; links to run folders are relative to there.

    `statements`: the figure of all statements by suffix.
    """
    targets, parts = _targets(evidence), {"css": _css(), "js": as_it_is("page.js"), "explore_js": _explore_js()}
    counted = newest(evidence)
    cards = by_answer([c for f in counted if (c := card(f.table, f.verdicts, f.next_runs)) is not None])
    first = next((i for c in cards[:1] for i, f in enumerate(evidence) if _slug(f.table) == c.slug), 0)
    return environment().get_template("page.html").render(
        title=TITLE, policy=_policy(**parts), **parts, nothing=NOTHING, words=MEANINGS,
        data=explorer([found.table for found in evidence], targets, reports, first),
        run_columns=RUN_COLUMNS, cards=cards,
        scorecard=scorecard_sheet([(found.table, found.verdicts) for found in counted]),
        statements=picture(statements["svg"].decode()) if statements else None, statements_title=FIGURE_TITLE,
        noise=power_sheet([found.table for found in evidence]), summary=summary, targets=targets,
        sections=[_section(found, reports) for found in evidence], failures=_failures(evidence),
        problems=[str(problem) for problem in problems],
    )  # fmt: skip


def _css() -> Markup:
    return as_it_is("page.css") + as_it_is("explore/explore.css")


def _explore_js() -> Markup:
    """The explorer's files as one script with a scope of its own."""
    return Markup("(() => {{\n'use strict';\n{}}})();").format(Markup("").join(map(as_it_is, _EXPLORER)))


def _policy(css: str, js: str, explore_js: str) -> str:
    """What the browser may do with the page: show its own pictures, and run these two scripts. Nothing is fetched."""
    style, *scripts = (f"'sha256-{_sha256(text)}'" for text in (css, js, explore_js))
    return (
        f"default-src 'none'; img-src data:; style-src {style}; script-src {' '.join(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _section(found: Evidence, reports: Path) -> dict[str, Any]:
    table, manifest = found.table, found.table.manifest
    merged = [f"{key}: {', '.join(values)}" for key, values in manifest.axes.items()]
    return {
        "slug": _slug(table), "title": table.title, "warning": warning(table), "targets": _targets([found]),
        "lead": [text for text in (table.definition.title, manifest.file.question) if text],
        "sheets": found.sheets, "notes": [caption(table), *legend(table), facts(table)],
        "figures": [_figure(found, name) for name in found.figures],
        "not_drawn": [f"{CHARTS[name].title}: {why}" for name, why in found.not_drawn.items()],
        "counts": f"{len(manifest.requested)} combinations asked for, {len(manifest.runs)} distinct runs, "
        f"{len(table.arms)} arms",
        "plan": [*merged, *table.collapsed], "command": manifest.command,
        "arms": [{"anchor": _anchor(table, arm), "label": arm.label, "runs": [_run(run, reports) for run in arm.runs]}
                 for arm in table.arms],
    }  # fmt: skip


def _figure(found: Evidence, name: str) -> dict[str, str]:
    chart = CHARTS[name]
    data = picture(found.figures[name]["svg"].decode())
    return {"alt": f"{chart.title}: {found.table.title}", "data": data, "text": f"{chart.title}. {chart.reading}"}


def picture(svg: str) -> Markup:
    """An SVG as the address of an `img`, between single quotes: a quarter shorter than in base64."""
    return Markup(f"data:image/svg+xml;charset=utf-8,{svg.strip().translate(_IN_ADDRESS)}")


def _run(run: ArmRun, reports: Path) -> dict[str, Any]:
    row = run.row or {}
    link = os.path.relpath(str(row["folder"]), reports).replace(os.sep, "/") if row else ""
    return {
        "folder": run.folder, "seed": str(run.seed), "link": Markup(html_link(link)),
        "state": f"{run.outcome}{', collapsed' if run.collapsed else ''}{f': {run.detail}' if run.detail else ''}",
        "marked": run.outcome != "done" or run.collapsed,
        "known": [str(row.get(k) or NOTHING)[:12] for k in ("source_hash", "data_fingerprint", "attempt")],
        "again": reproduce(row) if row else "",
    }  # fmt: skip


def _failures(evidence: Sequence[Evidence]) -> dict[str, list[tuple[str, str]]]:
    """Runs without a result, grouped by what happened: anchors and texts."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for found in evidence:
        for arm in found.table.arms:
            for run in arm.runs:
                if run.outcome not in ENDED - {"diverged"}:
                    why = str((run.row or {}).get("failure_signature") or run.detail or "no detail")
                    key = f"{run.outcome}: {why}" if run.outcome == "failed" else run.outcome
                    text = f"{found.table.title}, {arm.label}, seed {run.seed}"
                    groups.setdefault(key, []).append((_anchor(found.table, arm), text))
    return groups


def _targets(evidence: Sequence[Evidence]) -> dict[str, str]:
    """Run id -> anchor of the runs that a cell links to."""
    return {run.run_id: _anchor(e.table, arm) for e in evidence for arm in e.table.arms for run in arm.runs}


def _anchor(table: Table, arm: Arm) -> str:
    """Different for different arms, and never the slug of a table, which has no "." after its last "-"."""
    return f"{_slug(table)}-.{hashlib.sha256(repr(arm.arm).encode()).hexdigest()[:12]}"


def _slug(table: Table) -> str:
    return table.manifest.slug
