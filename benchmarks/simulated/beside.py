"""The test of the tables beside its rivals: family-wise error and power on complete tables."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from simulated.calibration import family_wise
from simulated.cases import SPREADS, Case
from simulated.rates import Row, each
from simulated.rivals import RIVALS, Test

SHAPES = ((6, 3), (6, 5), (2, 3))  # arms, seeds
EFFECTS = ((0.0, 2.0), (0.0, 3.0), (0.0, 4.5), (0.4, 2.0), (0.4, 3.0))  # correlation, standard deviations of a run


def found_share(test: Test, arms: int, seeds: int, tables: int, size: float, correlation: float) -> float:
    """How often the first arm is called different that differs by `size` standard deviations of one run."""
    random = np.random.default_rng([arms, seeds, round(10 * size)])
    runs = Case("", correlation=correlation).draw(random, tables, arms, seeds)
    runs[:, 1] += size
    return float(np.mean(test(runs)[:, 0]))


def rows(tables: int) -> list[Row]:
    """Every test at every shape."""
    return each(partial(_cell, tables), itertools.product(SHAPES, RIVALS))


def _cell(tables: int, cell: tuple[tuple[int, int], str]) -> list[Row]:
    (arms, seeds), name = cell
    test = RIVALS[name]
    errors = {n: family_wise(Case(n, s), test, arms, seeds, tables) for n, s in SPREADS.items()}
    rates = {n: hits / of for n, (hits, of) in errors.items()}
    power = [found_share(test, arms, seeds, tables, size, correlation) for correlation, size in EFFECTS]
    shape = {"test": name, "arms": arms, "seeds": seeds, "tables": tables}
    return [shape | {"equal": rates["equal"], "worst": max(rates.values()), "power": power}]


def lines(found: list[Row]) -> list[str]:
    """A line a test and shape; errors that pass 7% are bold."""
    told = [
        f'Beside its rivals ({found[0]["tables"]:,} tables a cell; "worst" is over the {len(SPREADS)} patterns of '
        "spreads; power to find one arm that is 2, 3 or 4.5 standard deviations of a run away, seeds independent; the "
        "last two at a correlation of 0.4), in %:",
        "",
        "| test | arms x seeds | equal | worst | 2 sd | 3 sd | 4.5 sd | .4: 2 sd | .4: 3 sd |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        worst = f"{100 * row['worst']:.1f}"
        worst = f"**{worst}**" if row["worst"] > 0.07 else worst
        shares = " | ".join(f"{100 * share:.0f}" for share in row["power"])
        shape = f"{row['arms']} x {row['seeds']}"
        told.append(f"| {row['test']} | {shape} | {100 * row['equal']:.1f} | {worst} | {shares} |")
    return told
