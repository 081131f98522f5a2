"""Family-wise error of the test of the tables: how often one of several identical arms is called different."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from moe_sweeps.results.looks import LEVEL
from simulated.cases import CASES, Case
from simulated.rates import Row, each, limit, percent, upper
from simulated.rivals import Test, ours

ARMS, SEEDS = (2, 3, 6, 16), (2, 3, 5, 10)


def family_wise(case: Case, test: Test, arms: int, seeds: int, tables: int) -> tuple[int, int]:
    """In how many tables of identical arms at least one is called different, of how many that could be judged."""
    random = np.random.default_rng([arms, seeds, round(10 * case.correlation), len(case.name)])
    runs = case.draw(random, tables, arms, seeds)
    runs = runs[np.isfinite(runs).any(-1).all(-1) & (np.isfinite(runs).sum(-1) > 1).any(-1)]
    return int(np.nan_to_num(test(runs)).any(-1).sum()), len(runs)


def rows(tables: int) -> list[Row]:
    """Every case with every number of arms and seeds."""
    return each(partial(_cell, tables), itertools.product(range(len(CASES)), ARMS, SEEDS))


def _cell(tables: int, cell: tuple[int, int, int]) -> list[Row]:
    place, arms, seeds = cell
    case = CASES[place]
    hits, of = family_wise(case, ours, arms, seeds, tables)
    name = {"case": case.name, "correlation": case.correlation}
    return [name | {"arms": arms, "seeds": seeds, "hits": hits, "of": of, "tables": tables}]


def lines(found: list[Row]) -> list[str]:
    """A line a case, in a cell the rates for each number of seeds; below it the worst of all."""
    told = [
        f"Family-wise error in %, {found[0]['tables']:,} tables a cell; in a cell the rates for "
        f"{', '.join(map(str, SEEDS[:-1]))} and {SEEDS[-1]} seeds.",
        "",
        "| case | seeds' correlation | " + " | ".join(f"{arms} arms" for arms in ARMS) + " |",
        "|---|---:|" + "---|" * len(ARMS),
    ]
    for (case, correlation), rows in itertools.groupby(found, key=lambda row: (row["case"], row["correlation"])):
        of_case = list(rows)
        cells = [" ".join(percent(row) for row in of_case if row["arms"] == arms) for arms in ARMS]
        told.append(f"| {case} | {correlation:g} | {' | '.join(cells)} |")
    return [*told, "", *_worst(found)]


def _worst(found: list[Row]) -> list[str]:
    worst = max(found, key=lambda row: row["hits"] / row["of"])
    where = f"{worst['case']}, correlation {worst['correlation']:g}, {worst['arms']} arms, {worst['seeds']} seeds"
    over = sum(upper(row["hits"], row["of"]) > 0.07 for row in found)
    often = sum(row["hits"] / row["of"] > LEVEL for row in found)
    return [
        f"The worst of {len(found)} cells is {percent(worst)}%, upper 95% limit {limit(worst)}% ({where}); "
        f"{often} are above {LEVEL:.0%}, and {over} have an upper limit above 7%."
    ]
