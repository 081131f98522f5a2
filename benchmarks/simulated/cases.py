"""What the runs of simulated tables are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """What a table's runs are drawn from: the spread of each arm, the law of a run, and how seeds move all arms."""

    name: str
    spreads: Callable[[int], Array] = np.ones
    law: str = "normal"
    correlation: float = 0.0
    missing: float = 0.0

    def draw(self, random: np.random.Generator, tables: int, arms: int, seeds: int) -> Array:
        """Runs (tables, arms, seeds) without any difference, NaN where one is missing."""
        own = _noise(random, self.law, (tables, arms, seeds))
        common = random.standard_normal((tables, 1, seeds))
        runs = np.sqrt(1 - self.correlation) * own + np.sqrt(self.correlation) * common
        runs = runs * self.spreads(arms)[:, None]
        return np.where(random.random(runs.shape) < self.missing, np.nan, runs)


def _noise(random: np.random.Generator, law: str, shape: tuple[int, ...]) -> Array:
    if law == "t(3)":
        return np.asarray(random.standard_t(3, shape) / np.sqrt(3))
    found = random.standard_normal(shape)
    return np.where(random.random(shape) < 0.1, 10 * found, found) if law == "outliers" else found


def _one(place: int, spread: float, arms: int) -> Array:
    found = np.ones(arms)
    found[place] = spread
    return found


SPREADS: dict[str, Callable[[int], Array]] = {
    "equal": np.ones,
    "one arm 5x": partial(_one, -1, 5.0),
    "one arm 27x": partial(_one, -1, 27.0),
    "baseline 5x": partial(_one, 0, 5.0),
    "baseline 27x": partial(_one, 0, 27.0),
    "1x to 5x": partial(np.geomspace, 1, 5),
    "1x to 27x": partial(np.geomspace, 1, 27),
}
CASES = (
    *(Case(name, spreads, correlation=r) for name, spreads in SPREADS.items() for r in (0.0, 0.3, 0.6)),
    *(Case(law, law=law, correlation=r) for law in ("t(3)", "outliers") for r in (0.0, 0.3, 0.6)),
    *(Case(f"{name}, 15% missing", spreads, missing=0.15) for name, spreads in SPREADS.items()),
    *(Case(f"{law}, 15% missing", law=law, missing=0.15) for law in ("t(3)", "outliers")),
)
