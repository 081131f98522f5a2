"""How a table looks: in the terminal, as Markdown, and as CSV with every digit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from moe_sweeps.results.columns import METRICS, Metric
from moe_sweeps.results.outcomes import COLLAPSED, ENDED, OUTCOMES, ArmRun
from moe_sweeps.results.stats import CONFIDENCE
from moe_sweeps.results.tables import UNKNOWN, Arm, Table, marks

NOTHING = "–"
MAX_DETAILS = 12
_STYLES = {
    "failed": "red",
    "unreadable": "red",
    "diverged": "magenta",
    "stopped": "magenta",
    "collapsed": "magenta",
    "running": "cyan",
    "done": "green",
}
_OTHER_MARK = "yellow"
_NOISE = "differences between arms cannot be told from seed noise."


# --- cells and sentences, common to all forms -------------------------------------------------------------------------


def cell(table: Table, arm: Arm, metric: Metric, plus_minus: str = " ± ") -> str:
    """Mean and half-width of the interval. A number over fewer runs than the row claims, or over one, says so."""
    found = arm.cells[metric.column]
    if found.mean is None:
        outcomes = set(arm.counts)
        alike = metric is METRICS[0] and len(outcomes) == 1 and outcomes <= ENDED - {"done"}
        return outcomes.pop() if alike else NOTHING
    text = f"{found.mean * metric.factor:.{metric.digits}f}"
    if found.half_width is not None:
        text += f"{plus_minus}{found.half_width * metric.factor:.{metric.digits}f}"
    single = found.n == 1 and any(a.done > 1 for a in table.arms)
    return text + (f"{plus_minus[0]}(n={found.n})" if single or found.n < arm.done else "")


def header(table: Table) -> list[str]:
    """Column titles; the last column is there only if some row has something to say in it."""
    notes = ["notes"] if any(marks(table, arm) for arm in table.arms) else []
    return [*(table.axes or ["arm"]), "seeds", *(m.header for m in METRICS), *notes]


def row(table: Table, arm: Arm, plus_minus: str = " ± ") -> list[str]:
    """The texts of one row, in the order of `header`."""
    names = [arm.settings.get(axis, NOTHING) for axis in table.axes] or [arm.label]
    numbers = [cell(table, arm, metric, plus_minus) for metric in METRICS]
    notes = [f",{plus_minus[0]}".join(marks(table, arm))] if "notes" in header(table) else []
    return [*names, f"{arm.done}/{len(arm.runs)}", *numbers, *notes]


def warning(table: Table) -> str | None:
    """What keeps this table from being final, in one line; None if nothing does."""
    gaps = {k: n for k, n in table.counts.items() if k not in ENDED}
    parts = []
    if gaps:
        kinds = ", ".join(f"{gaps[k]} {k}" for k in OUTCOMES if k in gaps)
        parts.append(f"{sum(gaps.values())} of {table.counts.total()} runs have no result ({kinds})")
    if any(arm.has_gaps for arm in table.arms):
        parts.append("some runs lack numbers that others have")
    for name, versions in (("code", table.code), ("data", table.data)):
        if len(versions) > 1:
            parts.append(f"{len(versions)} versions of the {name} are mixed")
        elif UNKNOWN in versions:
            parts.append(f"the version of the {name} is unknown")
    return f"NOT FINAL: {'; '.join(parts)}." if parts else None


def caption(table: Table) -> str:
    """What the numbers are."""
    most, seeds = max(arm.done for arm in table.arms), "Seeds: n done of N planned."
    if most == 0:
        return f"No run is done. {seeds}"
    if most == 1:
        return f"One seed per arm: there is no spread, and {_NOISE} {seeds}"
    single = f" (n=1): one seed has no spread, and {_NOISE}" if any(arm.done == 1 for arm in table.arms) else ""
    return f"Mean ± half-width of the {CONFIDENCE:.0%} t-interval over seeds. {seeds}{single}"


def legend(table: Table) -> list[str]:
    """Explanations of the marks that occur."""
    lines = [f"{k}: {OUTCOMES[k]}" for k in OUTCOMES if k != "done" and table.counts[k]]
    if any(arm.router_collapsed for arm in table.arms):
        lines.append(f"collapsed: {COLLAPSED}")
    if any(arm.has_gaps for arm in table.arms):
        lines.append("missing values: (n=k) after a number says over how many of the done runs it is taken")
    for name, versions in (("code", table.code), ("data", table.data)):
        if len(versions) > 1 or UNKNOWN in versions:
            lines.append(f"{name} ...: version of the {name} behind the row; different versions are not comparable")
    if any(NOTHING in row(table, arm) for arm in table.arms):
        lines.append(f"{NOTHING}: not read by this arm, or no value")
    return lines


def details(table: Table, most: int | None = None) -> list[str]:
    """The runs without a number, one by one, or the first few of them."""
    found = [(arm, run) for arm in table.arms for run in arm.runs if run.outcome != "done"]
    lines = [_detail(arm, run) for arm, run in found[:most]]
    rest = len(found) - len(lines)
    return lines + ([f"and {rest} more; table.md lists them all"] if rest else [])


def facts(table: Table) -> str:
    """Scale, number of runs, tokens, versions."""
    ended = ", ".join(f"{table.counts[k]} {k}" for k in OUTCOMES if k in ENDED if table.counts[k] or k == "done")
    parts = {
        "scale": ", ".join(table.scales) or NOTHING,
        "runs": f"{ended} of {table.counts.total()}",
        "tokens per run": " to ".join(f"{n:,}" for n in dict.fromkeys(table.tokens[:1] + table.tokens[-1:])) or NOTHING,
        "data": _short(table.data),
        "code": _short(table.code),
    }
    return " · ".join(f"{k} {v}" for k, v in parts.items())


def _short(versions: Sequence[str]) -> str:
    return ", ".join(v if v == UNKNOWN else v[:8] for v in versions) or NOTHING


def _detail(arm: Arm, run: ArmRun, limit: int = 120) -> str:
    why = run.detail.strip().split("\n")[0]
    why = why if len(why) <= limit else why[: limit - 1] + "…"
    return f"{arm.label}, seed {run.seed}: {run.outcome}{f' ({why})' if why else ''}, {run.folder}"


# --- terminal ---------------------------------------------------------------------------------------------------------


def print_table(table: Table, console: Console) -> None:
    """Show a table with its notes."""
    console.print(terminal(table, console))


def terminal(table: Table, console: Console) -> RenderableType:
    """A table with its notes."""
    blocks: list[RenderableType] = [Text(table.title, style="bold"), _widest_that_fits(table, console)]
    if (text := warning(table)) is not None:
        blocks.append(Text(text, style="bold yellow"))
    blocks.append(Text(caption(table), style="italic"))
    blocks += _block("", legend(table))
    blocks += _block("Runs without a number", details(table, MAX_DETAILS))
    blocks += _block("Collapsed combinations", table.collapsed)
    return Group(*blocks, Text(facts(table), style="dim"), Text())


def _widest_that_fits(table: Table, console: Console) -> Grid:
    """One line per arm if there is room, else the intervals below the means, else the columns closer together, too."""
    for grid in (_grid(table, " ±"), _grid(table, "\n±")):
        if Measurement.get(console, console.options.update(width=10_000), grid).maximum <= console.width:
            return grid
    return _grid(table, "\n±", tight=True)


def _grid(table: Table, plus_minus: str, *, tight: bool = False) -> Grid:
    titles, names = header(table), len(table.axes) or 1
    rows = [row(table, arm, plus_minus) for arm in table.arms]
    apart = any("\n" in text for texts in rows for text in texts)
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", leading=int(apart))
    grid.padding = (0, 0) if tight else (0, 1, 0, 0)
    for i, title in enumerate(titles):
        is_number = names <= i < names + 1 + len(METRICS)
        justify: JustifyMethod = "right" if is_number else "left"
        title = title.replace(".", ".\n") if tight else title
        grid.add_column(title.replace(" ", "\n"), justify=justify, no_wrap=is_number, overflow="fold")
    for arm, texts in zip(table.arms, rows, strict=True):
        grid.add_row(*(_styled(title, text, table, arm) for title, text in zip(titles, texts, strict=True)))
    return grid


def _styled(title: str, text: str, table: Table, arm: Arm) -> Text:
    if title == "seeds":
        return Text(text, style="green" if arm.done == len(arm.runs) else _OTHER_MARK)
    if title != "notes":
        return Text(text, style="dim" if text == NOTHING else _STYLES.get(text, ""))
    styled = Text(text)
    for mark in marks(table, arm):
        styled.highlight_words([mark], style=_STYLES.get(mark.rsplit(" ", 1)[-1], _OTHER_MARK))
    return styled


def _block(title: str, lines: Iterable[str]) -> list[RenderableType]:
    items: list[RenderableType] = [Padding(Text(line, style="dim"), (0, 0, 0, 2), expand=False) for line in lines]
    return [Text(title, style="dim bold"), *items] if items and title else items


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """A table with its notes as GitHub Markdown."""
    titles, names = header(table), len(table.axes) or 1
    rules = ["---:" if names <= i < names + 1 + len(METRICS) else "---" for i in range(len(titles))]
    lines = [f"# {table.title}", ""]
    if (text := warning(table)) is not None:
        lines += [f"**{text}**", ""]
    lines += [_pipes(titles), _pipes(rules), *(_pipes(row(table, arm)) for arm in table.arms), ""]
    lines += [caption(table), ""]
    sections = {"": legend(table), "Runs without a number": details(table), "Collapsed combinations": table.collapsed}
    for title, items in sections.items():
        lines += ([f"{title}:", ""] if items and title else []) + [f"- {_escape(item)}" for item in items]
        lines += [""] if items else []
    lines.append(facts(table))
    if table.manifest.command:
        lines += ["", f"    {table.manifest.command}"]
    return "\n".join(lines) + "\n"


def _pipes(texts: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(t) for t in texts)} |"


def _escape(text: str) -> str:
    for character in "\\|*_<[":
        text = text.replace(character, "\\" + character)
    return text


# --- CSV --------------------------------------------------------------------------------------------------------------


def csv_text(table: Table) -> str:
    """One line per arm with every digit: mean, standard deviation, interval and n of each metric, runs by outcome."""
    records = [_record(table, arm) for arm in table.arms]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def _record(table: Table, arm: Arm) -> dict[str, Any]:
    record: dict[str, Any] = {"arm": arm.arm, "label": arm.label}
    record |= {axis: arm.settings.get(axis) for axis in table.axes} | {"N": len(arm.runs), "n": arm.done}
    for metric in METRICS:
        found = arm.cells[metric.column]
        values = {"mean": found.mean, "sd": found.sd, "ci95_half_width": found.half_width, "n": found.n}
        record |= {f"{metric.column}_{k}": v for k, v in values.items()}
    record |= {f"runs_{outcome}": arm.counts[outcome] for outcome in OUTCOMES}
    record["runs_collapsed"] = arm.router_collapsed
    record |= {"seeds": _joined(r.seed for r in arm.runs), "run_ids": _joined(r.run_id for r in arm.runs)}
    record |= {"source_hashes": _joined(arm.code), "data_fingerprints": _joined(arm.data)}
    return record | {"notes": ", ".join(marks(table, arm))}


def _joined(values: Iterable[object]) -> str:
    return " ".join(map(str, values))
