"""Errors and findings of one who looks ten times and adds seeds in between."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import LEVEL, MOST_LOOKS, level_of_look
from moe_sweeps.results.verdicts import against_baseline
from simulated.cases import SPREADS, Array, Case
from simulated.rates import Row, each, limit, percent

TABLES = (
    (2, "equal"), (2, "one arm 5x"), (3, "baseline 5x"), (6, "equal"), (6, "1x to 27x"), (16, "equal"),
)  # fmt: skip
STEPS = ((2, 1), (3, 1), (3, 3))  # seeds at the first look, and more at each later one
EFFECTS = (1.0, 1.5, 2.65)  # standard deviations of a run
LEVELS = [level_of_look(look) for look in range(1, MOST_LOOKS + 1)]


def rows(tables: int) -> list[Row]:
    """Errors of every pattern, then what is found."""
    errors = each(partial(_errors, tables), itertools.product(TABLES, STEPS))
    return errors + each(partial(_findings, max(100, tables // 4)), EFFECTS)


def _errors(tables: int, cell: tuple[tuple[int, str], tuple[int, int]]) -> list[Row]:
    (arms, spreads), (first, step) = cell
    random = np.random.default_rng([arms, first, step])
    runs = Case("", SPREADS[spreads]).draw(random, tables, arms, first + step * (MOST_LOOKS - 1))
    p = p_of_looks(runs, first, step)
    smallest = np.nanmin(p, 1)
    return [
        {
            "arms": arms, "spreads": spreads, "first": first, "step": step, "of": tables,
            "hits": int((smallest < LEVELS).any(-1).sum()), "naive": int((smallest < LEVEL).any(-1).sum()),
            "process": int(e_process(runs, first, step).any((1, 2)).sum()),
        }
    ]  # fmt: skip


def _findings(tables: int, effect: float) -> list[Row]:
    """Six arms, three seeds and three more at every look."""
    runs = Case("").draw(np.random.default_rng(7), tables, 6, 3 * MOST_LOOKS)
    runs[:, 1] += effect
    ours = np.maximum.accumulate(p_of_looks(runs, 3, 3)[:, 0] < LEVELS, -1).mean(0)
    process = np.maximum.accumulate(e_process(runs, 3, 3)[:, 0], -1).mean(0)
    return [{"effect": effect, "found": ours.tolist(), "process": process.tolist()}]


def p_of_looks(runs: Array, first: int, step: int) -> Array:
    """The corrected p (tables, arms - 1, looks)."""
    seeds = [first + step * look for look in range(MOST_LOOKS)]
    return np.stack([against_baseline(Fit.of(runs[..., :n]), intervals=False).p_family for n in seeds], -1)


def e_process(runs: Array, first: int, step: int, q: float = 4.0) -> Array:
    """Which arms (tables, arms - 1, looks) an e-process of paired differences has decided, Bonferroni.

    E_n = (1 + nq)^-1/2 (1 - q S² / ((1 + nq) V))^(-n/2) (Wang & Ramdas, arXiv 2310.03722).
    """
    found = runs[:, 1:] - runs[:, :1]
    decided = []
    for look in range(MOST_LOOKS):
        n = first + step * look
        total, squares = found[..., :n].sum(-1), (found[..., :n] ** 2).sum(-1)
        log = -0.5 * np.log(1 + n * q) - n / 2 * np.log(1 - q * total**2 / ((1 + n * q) * squares))
        decided.append(log >= np.log(found.shape[1] / LEVEL))
    return np.stack(decided, -1)


def lines(found: list[Row]) -> list[str]:
    """A line a pattern, and the sentence on what is found."""
    errors, findings = [r for r in found if "hits" in r], [r for r in found if "found" in r]
    worst = max(errors, key=lambda row: row["hits"] / row["of"])
    told = [
        f"Tables of identical arms in which a difference was called at some of {MOST_LOOKS} looks, in % "
        f"({errors[0]['of']:,} tables a row; the worst is {percent(worst)}%, upper 95% limit {limit(worst)}%):",
        "",
        "| arms | spreads | seeds | ten looks, spent | ten looks, each at 5% | e-process |",
        "|---:|---|---|---:|---:|---:|",
    ]
    for row in errors:
        rates = " | ".join(f"{100 * row[key] / row['of']:.1f}" for key in ("hits", "naive", "process"))
        told.append(f"| {row['arms']} | {row['spreads']} | {row['first']}, then +{row['step']} | {rates} |")
    return [*told, "", *map(_finding, findings)]


def _finding(row: Row) -> str:
    ours, process = ([f"{100 * share:.0f}" for share in row[key][:3]] for key in ("found", "process"))
    return (
        f"- A real difference of {row['effect']:g} standard deviations in a table of six arms is found at the first of "
        f"such looks (three seeds) in {ours[0]}%, by the second (six seeds) in {ours[1]}%, by the third in {ours[2]}%; "
        f"by the e-process of paired differences in {process[0]}%, {process[1]}% and {process[2]}%."
    )
