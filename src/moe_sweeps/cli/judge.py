"""`moe-sweeps judge A B`: is A better than B? For people, and with --json and its exit code for programs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from moe_sweeps.cli.documents.document import print_document
from moe_sweeps.cli.documents.judgement import judgement_document
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.errors import MoeSweepsError, nearest
from moe_sweeps.records.find import find_run, is_setting
from moe_sweeps.records.genuine import flatten
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.numbers import CATALOGUE, Metric, metric_of, spell_probability
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.records.settings import active, same_value, value_text
from moe_sweeps.records.words import BETTER, EQUIVALENT, UNDECIDED, WORSE
from moe_sweeps.results.judging import Judgement, judge_sides, on_scale_margin
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import Row, Runs, is_finished, read_runs

# Groups whose settings tell arms apart, as columns of the frame.
GROUPS = frozenset(
    {"model", "experts", "router", "balancer", "aux", "lr_split", "optimizer", "schedule", "data", "trainer"}
)
# 1, 2 and 130 are taken by failures of the command itself.
EXIT_CODES = {BETTER: 0, WORSE: 10, EQUIVALENT: 11, UNDECIDED: 12}
_BETWEEN = re.compile(r"[,\s]+(?![^\[({]*[\])}])")  # commas and spaces outside brackets


def judge(arguments: argparse.Namespace, console: Console) -> int:
    """Print the verdict; the exit code says it, too."""
    root = runs_root()
    runs = read_runs(root)
    metric = _metric(arguments.metric)
    a, b = (side(word, runs) for word in (arguments.a, arguments.b))
    noise = Noise.of(runs, load_manifests(root)[0])
    within = on_scale_margin(arguments.within, b, metric)
    found = judge_sides(a, b, metric, noise, within=within, look=arguments.look)
    if arguments.json:
        print_document(console, judgement_document(found, a, b))
    else:
        for line in _lines(found, arguments.a, arguments.b):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return EXIT_CODES[found.verdict]


def side(word: str, runs: Runs) -> list[Row]:
    """The finished runs that a word means: a run stands for all seeds of its arm, several runs (commas) for themselves,
    settings (key=value, with commas or spaces between) for the one arm that has them.

    Raises:
        MoeSweepsError: it means no finished run, or several arms, whose differences would pass for those of seeds.
    """
    parts = [part for part in _BETWEEN.split(word) if part]
    done = [row for row in runs.rows.values() if is_finished(row)]
    if parts and all(map(is_setting, parts)):
        wanted = dict(part.split("=", 1) for part in parts)
        found = _with(wanted, done)
        _require_one_arm(word, found)
    else:
        ids = [find_run(part, runs_root()).run_id for part in parts]
        arms = {runs.rows[i]["arm"] for i in ids if i in runs.rows}
        found = [row for row in done if (row["arm"] in arms if len(ids) == 1 else row["run_id"] in ids)]
    if not found:
        raise MoeSweepsError(
            f"{word} means no finished run. Give a run, several with commas, or settings: aux.coef=0.1"
        )
    return found


def _require_one_arm(word: str, rows: Sequence[Row]) -> None:
    arms = list({row["arm"]: row for row in rows}.values())
    if len(arms) < 2:
        return
    values = {key: sorted({value_text(row.get(key)) for row in arms}) for row in arms for key in row if _decides(key)}
    differ = [f"{key} ({', '.join(found[:4])}{', ...' if len(found) > 4 else ''})" for key, found in values.items()
              if len(found) > 1]  # fmt: skip
    more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
    raise MoeSweepsError(
        f"{word} means {len(arms)} arms, which differ in {'; '.join(differ[:4])}{more}. "
        "Add settings until one arm is left, or give one of its runs."
    )


def _decides(key: str) -> bool:
    """Whether a column of the frame is a setting that can change a result."""
    return key.partition(".")[0] in GROUPS


def _with(wanted: Mapping[str, str], rows: Sequence[Row]) -> list[Row]:
    """The rows that have all of these settings and read them."""
    asked = [row for row in rows if all(k in row and same_value(value_text(row[k]), v) for k, v in wanted.items())]
    forms = [flatten(RunDir(Path(str(row["folder"]))).identity().get("canonical") or {}) for row in asked]
    values = {key: {value_text(form[key]) for form in forms if key in form} for key in wanted}
    return [row for row, form in zip(asked, forms, strict=True)
            if all(active(row, form, key, values[key]) is not None for key in wanted)]  # fmt: skip


def _metric(column: str) -> Metric:
    known = {m.column for m in CATALOGUE if m.better}
    if column not in known:
        hint = nearest(column, known)
        raise MoeSweepsError(f"{column} has no better direction" + (f"; did you mean {hint}?" if hint else ""))
    return metric_of(column)


def _lines(found: Judgement, a: str, b: str) -> list[str]:
    c = found.comparison
    interval = (
        ""
        if c.low is None or c.high is None
        else f" ({c.metric.spell_effect(c.low)} to {c.metric.spell_effect(c.high)})"
    )
    effect = f"{c.metric.header}: A {c.metric.spell_effect(c.difference)} against B{interval}"
    lines = [f"A is {found.verdict}" if found.verdict != UNDECIDED else UNDECIDED, effect]
    if c.p_family is not None:
        lines[-1] += f", p {c.p_family:.2g} against {c.level:g}"
    if c.probability_better is not None:
        lines.append(f"probability that A is better: {spell_probability(c.probability_better)} (by the same test)")
    if found.p_equivalent is not None and found.margin is not None:
        margin = " to ".join(c.metric.spell_effect(edge) for edge in found.margin)
        shown = EQUIVALENT if found.verdict == EQUIVALENT else f"not shown to be {EQUIVALENT}"
        lines.append(f"{shown} within {margin} (p {found.p_equivalent:.2g}, two one-sided tests)")
    lines += [f"rests on {text}" for text in found.rests_on] + [f"A: {a}", f"B: {b}"]
    return lines + _next_lines(found)


def _next_lines(found: Judgement) -> list[str]:
    if found.next is None:
        return []
    if found.next.core_hours is None:
        return ["no affordable number of seeds would decide it"]
    runs = f"{found.next.a} more runs of A and {found.next.b} of B"
    return [f"next: {runs}, about {found.next.core_hours:.2g} core-hours, decide it (then with --look "
            f"{found.next.look}), one way or the other, with a chance of 80% if the difference is what it looks "
            "like"]  # fmt: skip
