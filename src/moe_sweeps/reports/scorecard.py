"""The scorecard of all claims: reports/claims.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from moe_sweeps.host.plain import markdown_text
from moe_sweeps.records.numbers import metric_of, spell_ratio
from moe_sweeps.records.words import NOT_JUDGED, tone
from moe_sweeps.reports.headings import heading
from moe_sweeps.reports.notes import warning
from moe_sweeps.reports.sheets import Cell, Sheet, text_cell
from moe_sweeps.results.families import read_differently
from moe_sweeps.results.findings import VERDICTS, Verdict
from moe_sweeps.results.looks import LEVEL
from moe_sweeps.results.tables import Table

FIGURE_TITLE = "All statements: effects, intervals, and the border where each turns"


def claims_markdown(judged: Sequence[tuple[Table, Sequence[Verdict]]], *, figure: bool = False) -> str:
    """The scorecard: every statement of every sweep with its verdict. `figure`: claims.png lies beside it."""
    every = [v for _, verdicts in judged for v in verdicts]
    found = Counter(v.verdict for v in every)
    counts = ", ".join(f"{found[k]} {k}" for k in VERDICTS if k != NOT_JUDGED or found[k])
    plural = "" if len(every) == 1 else "s"
    lines = ["# Claims put to the test", "", f"{len(every)} statement{plural}: {counts}.", ""]
    lines += [
        "Reproduced: the test shows that the statement holds; contradicted: that it does not; undecided: neither. "
        f"The tests of one sweep are corrected together (Holm), so that at most {LEVEL:.0%} of sweeps have a false "
        "verdict. They are a family of their own beside that of the table, which is corrected over its arms: a number "
        "that is decided in one and open in the other is named. Intervals are those of the first step: a statement "
        "that a later step decides may have an interval that just holds both answers. No statement was chosen "
        "afterwards: they stand in the sweep files. A sweep of `decide` counts once, by its newest look; what an "
        "earlier look decided stays decided.",
        "",
    ]
    lines += [f"![{FIGURE_TITLE}](claims.png)", ""] if figure else []
    for table, verdicts in judged:
        lines += _section(table, verdicts) if verdicts else []
    return "\n".join(lines)


def _section(table: Table, verdicts: Sequence[Verdict]) -> list[str]:
    lines = [heading(table.title, 2), ""]
    lines += [markdown_text(table.manifest.file.question), ""] if table.manifest.file.question else []
    lines += [f"**{markdown_text(incomplete)}**", ""] if (incomplete := warning(table)) else []
    scale = ", ".join(table.scales) or "none yet"
    lines += [
        "| claim | verdict | effect | interval | n | scale | basis | source |",
        "|---|---|---:|---|---:|---|---|---|",
    ]
    for v in verdicts:
        p = "" if v.p is None else f" (p {v.p:.2g})"
        cells = (
            markdown_text(v.claim),
            f"**{v.verdict}**: {markdown_text(v.why)}{p}",
            *map(markdown_text, (*effect_texts(v), scale, v.effect.basis if v.effect else "", v.source)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(markdown_text(sentence) for sentence in read_differently(table, verdicts))]
    return [*lines, ""]


def effect_texts(verdict: Verdict) -> tuple[str, str, str]:
    """Effect, interval and n as they are shown."""
    effect = verdict.effect
    if effect is None:
        return "–", "–", "–"
    metric = metric_of(verdict.metric)

    def spelt(value: float) -> str:
        is_ratio = effect.what == "ratio"
        return f"×{spell_ratio(math.log(value))}" if is_ratio else metric.spell(value, sign=effect.what == "difference")

    interval = "–" if effect.low is None or effect.high is None else f"{spelt(effect.low)} to {spelt(effect.high)}"
    return f"{spelt(effect.value)} ({metric.header}, {effect.what})", interval, " and ".join(map(str, effect.n))


def _effect_keys(verdict: Verdict) -> tuple[float | None, float | None, float | None]:
    """What effect, interval and n sort by."""
    effect = verdict.effect
    return (None, None, None) if effect is None else (effect.value, effect.low, float(min(effect.n)))


def scorecard_sheet(judged: Sequence[tuple[Table, Sequence[Verdict]]]) -> Sheet | None:
    """Every statement of every sweep as one sheet, what is decided first; None without any."""
    rows = [(table, verdict) for table, verdicts in judged for verdict in verdicts]
    if not rows:
        return None
    found = Counter(verdict.verdict for _, verdict in rows)
    rows.sort(key=lambda row: VERDICTS.index(row[1].verdict))
    counts = ", ".join(f"{found[k]} {k}" for k in VERDICTS if found[k])
    titles = ("claim", "verdict", "effect", "interval", "n", "of", "why", "sweep", "source")
    numeric = (False, False, True, True, True, False, False, False, False)
    cells = tuple(_score_row(table, verdict) for table, verdict in rows)
    notes = (f"{len(rows)} statements: {counts}. The statements stand in the sweep files; none was chosen afterwards.",)
    return Sheet("scorecard", "Scorecard", titles, numeric, cells, notes)


def _score_row(table: Table, v: Verdict) -> tuple[Cell, ...]:
    p = "" if v.p is None else f" (p {v.p:.2g})"
    value, interval, n = effect_texts(v)
    value, _, of = value.partition(" (")
    numbers = zip((value, interval, n), _effect_keys(v), strict=True)
    return (
        text_cell(v.claim),
        Cell(v.verdict, v.verdict, v.runs, tone(v.verdict)),
        *(Cell(text, key, v.runs) for text, key in numbers),
        text_cell(of.removesuffix(")")),
        text_cell(f"{v.why}{p}"),
        text_cell(table.manifest.name),
        text_cell(v.source),
    )


def claim_sheet(table: Table, verdicts: Sequence[Verdict]) -> Sheet | None:
    """The claims of one sweep as a sheet."""
    if not verdicts:
        return None
    titles = ("claim", "verdict", "why", "effect", "interval", "n", "basis", "source")
    numeric = (False, False, False, True, False, True, False, False)
    rows = [
        (
            text_cell(v.claim),
            Cell(v.verdict, v.verdict, v.runs, tone(v.verdict)),
            text_cell(v.why),
            *(Cell(text, key, v.runs) for text, key in zip(effect_texts(v), _effect_keys(v), strict=True)),
            text_cell(v.effect.basis if v.effect else ""),
            text_cell(v.source),
        )
        for v in verdicts
    ]
    tested = sum(v.p is not None for v in verdicts)
    family = f"{tested} statement{'s' * (tested != 1)} of this sweep" if tested else "statements of a sweep"
    notes = (
        f"Corrected (Holm) over the {family}, a family of its own: differences to the baseline are corrected over the "
        "arms of the table, so one number can be decided in one family and open in the other.",
        *read_differently(table, verdicts),
    )
    return Sheet("claims", "Claims", titles, numeric, tuple(rows), notes)
