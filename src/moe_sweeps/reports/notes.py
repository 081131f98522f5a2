"""The texts around a table: warning, caption, legend, details, facts."""

from __future__ import annotations

from collections.abc import Sequence

from moe_sweeps.records.code_record import UNKNOWN, differing_files, name_files
from moe_sweeps.reports.rows import rows
from moe_sweeps.reports.sheets import NOTHING
from moe_sweeps.results.outcomes import COLLAPSED, ENDED, OUTCOMES, ArmRun
from moe_sweeps.results.runs import REMARKS
from moe_sweeps.results.stats import CONFIDENCE
from moe_sweeps.results.tables import Arm, Table

DETAIL = 120  # characters of a reason
_UNTOLD = "differences between arms cannot be told from seed noise."
_LENT = "differences are judged by the spread of alike runs (the noise below)."


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
            files = differing_files(r for arm in table.arms for r in arm.records) if name == "code" else []
            where = f" ({name_files(files)})" if files else ""
            parts.append(f"{len(versions)} versions of the {name} are mixed{where}")
        elif UNKNOWN in versions:
            parts.append(f"the version of the {name} is unknown")
    return f"NOT FINAL: {'; '.join(parts)}." if parts else None


def caption(table: Table) -> str:
    """What the numbers are."""
    most, seeds = max(arm.seeds_done for arm in table.arms), "Seeds: n done of N planned."
    so = _LENT if table.floor and table.differences else _UNTOLD
    if most == 0:
        return f"No run is done. {seeds}"
    if most == 1:
        return f"One seed per arm: there is no spread, and {so} {seeds}"
    single = f" (n=1): one seed has no spread, and {so}" if any(arm.done == 1 for arm in table.arms) else ""
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
    if len(table.arithmetic) > 1:
        found = "; ".join(f"{way} ({_runs(count)})" for way, count in table.arithmetic.most_common())
        lines.append(f"arithmetic: {found}. The recipes are the same; rounding differs, so one seed gives other runs")
    if any(NOTHING in texts for texts in rows(table)):
        lines.append(f"{NOTHING}: not read by this arm, or no value")
    return lines + _remarks(table)


def _remarks(table: Table) -> list[str]:
    """What people wrote about the sweep and its runs."""
    sweep = [f"note on this sweep: {table.manifest.remarks}"] if table.manifest.remarks else []
    runs = [(arm, run) for arm in table.arms for run in arm.runs if run.row is not None and run.row.get(REMARKS)]
    return sweep + [f"note on {arm.label}, seed {run.seed} ({run.run_id}): {(run.row or {})[REMARKS]}"
                    for arm, run in runs]  # fmt: skip


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
    typed = [str(replaced) for replaced in table.manifest.replaced if replaced.old]
    parts |= {"typed": ", ".join(typed)} if typed else {}
    return " · ".join(f"{k} {v}" for k, v in parts.items())


def _short(versions: Sequence[str]) -> str:
    return ", ".join(v if v == UNKNOWN else v[:8] for v in versions) or NOTHING


def _detail(arm: Arm, run: ArmRun) -> str:
    why = run.detail.strip().split("\n")[0]
    why = why if len(why) <= DETAIL else why[: DETAIL - 1] + "…"
    return f"{arm.label}, seed {run.seed}: {run.outcome}{f' ({why})' if why else ''}, {run.folder}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
