"""One HTML page with everything: recommendations, claims, tables, figures, plan, failures, and the runs of each cell.

The page is one file that fetches nothing. A cell links to the runs behind it, and each run to its folder.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from moe_sweeps.results.charts import CHARTS
from moe_sweeps.results.evidence import Evidence
from moe_sweeps.results.lineage import reproduce
from moe_sweeps.results.notes import caption, facts, legend, warning
from moe_sweeps.results.outcomes import ENDED, ArmRun
from moe_sweeps.results.page_parts import CSS, JS
from moe_sweeps.results.problem import Problem
from moe_sweeps.results.sheets import NOTHING, Cell, Sheet
from moe_sweeps.results.tables import Arm, Table

TITLE = "Ablations of Mixture-of-Experts training"
RUN_COLUMNS = ("run", "seed", "state", "code", "data", "attempts", "train it again")


def html_page(evidence: Sequence[Evidence], summary: Sheet | None, problems: Sequence[Problem], reports: Path) -> str:
    """The page as it is written to `reports`/index.html; links to run folders are relative to there."""
    body = [f"<h1>{TITLE}</h1>", _contents(evidence, summary)]
    if summary is not None:
        body.append(f'<h2 id="recommended">{escape(summary.title)}</h2>{sheet_html(summary, _targets(evidence))}')
    body += [_section(found, reports) for found in evidence]
    body.append(_failures(evidence, problems))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    parts = f"<title>{TITLE}</title>{head}<style>{CSS}</style>"
    return (
        f'<!doctype html><html lang="en"><head>{parts}</head><body>{"".join(body)}<script>{JS}</script></body></html>\n'
    )


def sheet_html(sheet: Sheet, targets: dict[str, str]) -> str:
    """A sheet as a table whose columns sort. `targets`: run id -> anchor of the runs that a cell links to."""
    heads = "".join(f'<th scope="col"{_n(n)}><button>{escape(t)}</button></th>' for t, n in _columns(sheet))
    rows = "".join(
        f"<tr>{''.join(_cell(c, n, targets) for c, n in zip(cells, sheet.numeric, strict=True))}</tr>"
        for cells in sheet.rows
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in sheet.notes)
    return f'<div class="wrap"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{notes}'


def _columns(sheet: Sheet) -> Iterator[tuple[str, bool]]:
    return zip(sheet.columns, sheet.numeric, strict=True)


def _n(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _cell(cell: Cell, numeric: bool, targets: dict[str, str]) -> str:
    classes = " ".join(filter(None, ("n" if numeric else "", cell.kind)))
    value = "" if cell.value is None else f' data-v="{escape(str(cell.value))}"'
    anchor = next((targets[run] for run in cell.runs if run in targets), None)
    text = escape(cell.text)
    shown = f'<a href="#{anchor}">{text}</a>' if anchor and cell.text not in ("", NOTHING) else text
    return f"<td{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}{value}>{shown}</td>"


def _contents(evidence: Sequence[Evidence], summary: Sheet | None) -> str:
    links = ['<li><a href="#recommended">Recommended settings</a></li>'] if summary else []
    for found in evidence:
        table = found.table
        mark = ' <span class="warning">not final</span>' if warning(table) else ""
        links.append(f'<li><a href="#{_slug(table)}">{escape(table.title)}</a>{mark}</li>')
    return f'<nav><ul>{"".join(links)}<li><a href="#failures">Failures</a></li></ul></nav>'


def _section(found: Evidence, reports: Path) -> str:
    table, targets = found.table, _targets([found])
    title = f'<h2 id="{_slug(table)}">{escape(table.title)}</h2>'
    parts = [title, _paragraph(table.definition.title), _paragraph(table.manifest.question)]
    if (text := warning(table)) is not None:
        parts.append(f'<p class="warning"><strong>{escape(text)}</strong></p>')
    for sheet in found.sheets:
        heading = f"<h3>{escape(sheet.title)}</h3>" if sheet.slug != "arms" else ""
        parts.append(heading + sheet_html(sheet, targets))
        if sheet.slug == "arms":
            parts += [f'<p class="note">{escape(line)}</p>' for line in (caption(table), *legend(table), facts(table))]
    parts += [_figure(found, name) for name in found.figures]
    parts += [f'<p class="note">Not drawn: {CHARTS[k].title}: {escape(why)}.</p>' for k, why in found.not_drawn.items()]
    return "".join([*parts, _plan(table), _runs(table, reports)])


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def _figure(found: Evidence, name: str) -> str:
    chart, data = CHARTS[name], base64.b64encode(found.figures[name]["svg"]).decode()
    alt = escape(f"{chart.title}: {found.table.title}")
    image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(chart.title)}. {escape(chart.reading)}</figcaption></figure>"


def _plan(table: Table) -> str:
    """What was asked for, and what became of it."""
    manifest = table.manifest
    axes = "".join(f"<li>{escape(k)}: {escape(', '.join(v))}</li>" for k, v in manifest.axes.items())
    merged = "".join(f"<li>{escape(line)}</li>" for line in table.collapsed)
    counts = (
        f"{len(manifest.requested)} combinations asked for, {len(manifest.runs)} distinct runs, {len(table.arms)} arms"
    )
    command = f"<pre>{escape(manifest.command)}</pre>" if manifest.command else ""
    return f"<h3>Plan</h3><p>{counts}.</p><ul>{axes}{merged}</ul>{command}"


def _runs(table: Table, reports: Path) -> str:
    heads = "".join(f"<th>{name}</th>" for name in RUN_COLUMNS)
    bodies = "".join(_arm_runs(table, arm, reports) for arm in table.arms)
    return f'<h3>Runs</h3><div class="wrap"><table><thead><tr>{heads}</tr></thead>{bodies}</table></div>'


def _arm_runs(table: Table, arm: Arm, reports: Path) -> str:
    title = f'<tr><th colspan="{len(RUN_COLUMNS)}">{escape(arm.label)}</th></tr>'
    return f'<tbody id="{_anchor(table, arm)}">{title}{"".join(_run(run, reports) for run in arm.runs)}</tbody>'


def _run(run: ArmRun, reports: Path) -> str:
    row = run.row or {}
    name = escape(run.folder)
    if row:
        link = escape(os.path.relpath(str(row["folder"]), reports).replace(os.sep, "/"))
        name = f'<a href="{link}/">{name}</a>'
    state = escape(f"{run.outcome}{', collapsed' if run.collapsed else ''}{f': {run.detail}' if run.detail else ''}")
    kind = "" if run.outcome == "done" and not run.collapsed else ' class="mark"'
    known = [str(row.get(k) or "–")[:12] for k in ("source_hash", "data_fingerprint", "attempt")]
    again = f"<code>{escape(reproduce(row))}</code>" if row else "–"
    cells = "".join(f"<td>{escape(text)}</td>" for text in known)
    return f"<tr><td>{name}</td><td>{run.seed}</td><td{kind}>{state}</td>{cells}<td>{again}</td></tr>"


def _failures(evidence: Sequence[Evidence], problems: Sequence[Problem]) -> str:
    """Runs without a result by what happened to them, and what could not be read."""
    groups: dict[str, list[str]] = {}
    for found in evidence:
        for arm in found.table.arms:
            for run in arm.runs:
                if run.outcome not in ENDED - {"diverged"}:
                    why = str((run.row or {}).get("failure_signature") or run.detail or "no detail")
                    key = f"{run.outcome}: {why}" if run.outcome == "failed" else run.outcome
                    target = _anchor(found.table, arm)
                    link = f'<a href="#{target}">{escape(found.table.title)}, {escape(arm.label)}, seed {run.seed}</a>'
                    groups.setdefault(key, []).append(link)
    lines = [f"<h3>{escape(key)} ({len(found)})</h3><p>{'<br>'.join(found)}</p>" for key, found in groups.items()]
    lines += [f'<p class="warning">Could not be read: {escape(str(problem))}</p>' for problem in problems]
    return f'<h2 id="failures">Failures and gaps</h2>{"".join(lines) or "<p>None.</p>"}'


def _targets(evidence: Sequence[Evidence]) -> dict[str, str]:
    return {run.run_id: _anchor(e.table, arm) for e in evidence for arm in e.table.arms for run in arm.runs}


def _anchor(table: Table, arm: Arm) -> str:
    return f"{_slug(table)}-{arm.arm}"


def _slug(table: Table) -> str:
    return escape(table.manifest.slug)
