"""The scorecard of all claims: reports/claims.md."""

from __future__ import annotations

from collections.abc import Sequence

from moe_sweeps.results.claims import CONTRADICTED, INCONCLUSIVE, REPRODUCED, Verdict
from moe_sweeps.results.notes import warning
from moe_sweeps.results.sheets import Cell, Sheet, text_cell
from moe_sweeps.results.stats import CONFIDENCE
from moe_sweeps.results.tables import Table


def claims_markdown(judged: Sequence[tuple[Table, Sequence[Verdict]]]) -> str:
    """The scorecard: every statement of every sweep with its verdict."""
    every = [v for _, verdicts in judged for v in verdicts]
    counts = ", ".join(f"{sum(v.verdict == k for v in every)} {k}" for k in (REPRODUCED, CONTRADICTED, INCONCLUSIVE))
    lines = ["# Claims put to the test", "", f"{len(every)} statements: {counts}.", ""]
    lines += [
        "Reproduced: the whole interval agrees with the statement; contradicted: the whole interval disagrees; "
        "inconclusive: it holds both answers. The intervals of one sweep hold together at "
        f"{CONFIDENCE:.0%}. No statement was chosen afterwards: they stand in the sweep files.",
        "",
    ]
    for table, verdicts in judged:
        lines += _section(table, verdicts) if verdicts else []
    return "\n".join(lines)


def _section(table: Table, verdicts: Sequence[Verdict]) -> list[str]:
    lines = (
        [f"## {table.title}", "", table.manifest.question, ""] if table.manifest.question else [f"## {table.title}", ""]
    )
    lines += [f"**{incomplete}**", ""] if (incomplete := warning(table)) else []
    scale = ", ".join(table.scales) or "none yet"
    lines += [
        "| claim | verdict | effect | interval | n | scale | basis | source |",
        "|---|---|---:|---|---:|---|---|---|",
    ]
    for v in verdicts:
        cells = (
            v.claim,
            f"**{v.verdict}**: {v.why}",
            *effect_texts(v),
            scale,
            v.effect.basis if v.effect else "",
            v.source,
        )
        lines.append(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |")
    return [*lines, ""]


def effect_texts(verdict: Verdict) -> tuple[str, str, str]:
    """Effect, interval and n as they are shown."""
    effect = verdict.effect
    if effect is None:
        return "–", "–", "–"
    value = f"{effect.value:+.4g}" if effect.what == "difference" else f"{effect.value:.4g}"
    interval = "–" if effect.low is None or effect.high is None else f"{effect.low:+.4g} to {effect.high:+.4g}"
    return f"{value} ({verdict.metric}, {effect.what})", interval, " and ".join(map(str, effect.n))


def _effect_keys(verdict: Verdict) -> tuple[float | None, float | None, float | None]:
    """What effect, interval and n sort by."""
    effect = verdict.effect
    return (None, None, None) if effect is None else (effect.value, effect.low, float(min(effect.n)))


def claim_sheet(table: Table, verdicts: Sequence[Verdict]) -> Sheet | None:
    """The claims of one sweep as a sheet."""
    if not verdicts:
        return None
    titles = ("claim", "verdict", "why", "effect", "interval", "n", "basis", "source")
    numeric = (False, False, False, True, False, True, False, False)
    kinds = {REPRODUCED: "better", CONTRADICTED: "worse"}
    rows = [
        (
            text_cell(v.claim),
            Cell(v.verdict, v.verdict, v.runs, kinds.get(v.verdict, "grey")),
            text_cell(v.why),
            *(Cell(text, key, v.runs) for text, key in zip(effect_texts(v), _effect_keys(v), strict=True)),
            text_cell(v.effect.basis if v.effect else ""),
            text_cell(v.source),
        )
        for v in verdicts
    ]
    return Sheet("claims", "Claims", titles, numeric, tuple(rows))
