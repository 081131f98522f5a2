"""The scorecard of the archived sweeps, with runs drawn anew in which no arm differs from another.

What is false then: that something is better, worse, falls, is best or five times as unbalanced was reproduced, or that
two arms do equally well was contradicted. Rates are of sweeps with a false verdict.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.records.words import CONTRADICTED, REPRODUCED
from moe_sweeps.results.claims import judge
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import Row as RunRow
from moe_sweeps.results.runs import Runs, read_runs
from moe_sweeps.results.tables import ablation_table
from simulated.rates import Row, each, limit, percent

ARCHIVE = Path(__file__).parents[2] / "results" / "proxy" / "runs"
# Standard deviation of the logarithm of an arm's spread, and the share of arms that scatter five times as much.
LAWS = {
    "all arms alike": (0.0, 0.0),
    "spreads of arms vary (log sd .5)": (0.5, 0.0),
    "one arm in ten 5x": (0.0, 0.1),
}
PIECES = 8  # of a law, counted side by side
EASY = "all arms alike"  # it errs far less than the others, and a quarter of the scorecards says so
_FALSE_IF_CONTRADICTED = ("no_difference", "not_worse", "ratio_at_most")


def rows(cards: int) -> list[Row]:
    """`cards` scorecards a law, and a quarter of the easy one."""
    pieces = each(partial(_piece, -(-cards // PIECES)), itertools.product(LAWS, range(PIECES)))
    found = []
    for law, of_law in itertools.groupby(pieces, key=lambda row: row["spreads"]):
        several = list(of_law)
        numbers = {key: sum(row[key] for row in several) for key in ("cards", "hits", "of", "verdicts")}
        found.append({"spreads": law, **numbers})
    return found


@cache
def archived() -> tuple[Runs, tuple[Manifest, ...]]:
    """The committed runs and their sweeps."""
    return read_runs(ARCHIVE), tuple(load_manifests(ARCHIVE)[0])


def _piece(most: int, cell: tuple[str, int]) -> list[Row]:
    law, piece = cell
    cards = -(-most // 4) if law == EASY else most
    random = np.random.default_rng([5, [*LAWS].index(law), piece])
    false = [false_verdicts(random, *LAWS[law]) for _ in range(cards)]
    sweeps = [wrong > 0 for card in false for wrong in card]
    return [{"spreads": law, "cards": cards, "hits": sum(sweeps), "of": len(sweeps), "verdicts": sum(map(sum, false))}]


def false_verdicts(random: np.random.Generator, varied: float, noisy: float) -> list[int]:
    """False verdicts of each sweep in one scorecard without any difference."""
    runs, manifests = archived()
    drawn = redrawn(runs, random, varied, noisy)
    noise = Noise.of(drawn, manifests)
    return [_false(judge(ablation_table(m, drawn, noise=noise)), m) for m in manifests]


def redrawn(runs: Runs, random: np.random.Generator, varied: float, noisy: float) -> Runs:
    """The same runs with losses and MaxVio of arms that differ in their spread alone."""
    spread: dict[str, float] = {}
    rows: dict[str, RunRow] = {}
    for run_id, row in runs.rows.items():
        factor = float(np.exp(varied * random.standard_normal())) * (5 if random.random() < noisy else 1)
        scatter = spread.setdefault(row["arm"], factor) * random.standard_normal(2)
        rows[run_id] = {
            **row,
            "val_loss": 4.15 + 0.019 * scatter[0],
            "val_maxvio_global": 0.2 * float(np.exp(0.17 * scatter[1])),
            "train_seconds": 100.0,
        }
    return Runs(rows, [])


def _false(found: Sequence[Verdict], manifest: Manifest) -> int:
    wrong = 0
    for verdict, statement in zip(found, manifest.expect, strict=True):
        bad = CONTRADICTED if statement.kind in _FALSE_IF_CONTRADICTED else REPRODUCED
        wrong += verdict.verdict == bad and statement.kind != "spread_at_most"
    return wrong


def lines(found: list[Row]) -> list[str]:
    """A line a law."""
    sweeps = found[0]["of"] // found[0]["cards"]
    told = [
        f"Scorecards of the {sweeps} archived sweeps, most of single seeds, without any difference between arms:",
        "",
        "| spreads | scorecards | sweeps with a false verdict, % | upper 95% limit | false verdicts a scorecard |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in found:
        rates = f"{percent(row)} | {limit(row)} | {row['verdicts'] / row['cards']:.2f}"
        told.append(f"| {row['spreads']} | {row['cards']} | {rates} |")
    return told
