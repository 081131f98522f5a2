"""What `moe-sweeps decide` finds where the question is "which arm is best": python benchmarks/which_is_best.py

Simulated tables of six arms and one claim, "this arm is best", bought by the functions that the command uses
(results/deciding) and judged by those of the tables, against equal seeds for all arms and one look at the end. A run
costs 1; effects are in standard deviations of one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from decide import ARMS, BUDGETS, PLAIN, SEED, Array, Counts, Flags, fit_of, interval

from moe_sweeps.records.claims import Statement
from moe_sweeps.results.deciding.batches import MOST_SEEDS, Situation, next_batch
from moe_sweeps.results.deciding.questions import Question, lowest
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.shapes import Shown, lowest_at

NAMES = [str(arm) for arm in range(ARMS)]
LAWS = {
    "one of 2 sd, five alike": np.array([0.0, 2, 2, 2, 2, 2]),
    "steps of 1 sd": np.arange(ARMS) * 1.0,
    "two near, four far": np.array([0.0, 0.7, 3, 3, 3, 3]),
    "all alike": np.zeros(ARMS),
}


@dataclass(frozen=True)
class Found:
    """Per table: whether the claim was shown, whether it was contradicted, and the seeds of each arm (tables, ARMS)."""

    shown: Flags
    contradicted: Flags
    counts: Counts

    @property
    def runs(self) -> float:
        """Runs a table."""
        return float(self.counts.sum(1).mean())

    @property
    def rate(self) -> float:
        """The share of tables in which the claim was shown."""
        return float(self.shown.mean())


def claim(arm: int) -> Statement:
    """That `arm` has the lowest loss of all."""
    points = tuple((name, name) for name in NAMES)
    return Statement("it is best", "best_at", "val_loss", axis="arm", points=points, at=(NAMES[arm],))


def shown_by(runs: Array, counts: Counts, arm: int) -> Shown:
    """The claim, judged on the first seeds (ARMS,) of the runs (ARMS, seeds)."""
    return lowest_at(fit_of(runs, counts, PLAIN), [arm])


def equal_seeds(runs: Array, seeds: int, arm: int) -> Found:
    """The same seeds for all arms, and one look."""
    return _looked(runs, np.full(runs.shape[:2], seeds), arm)


def decided(runs: Array, budget: float, arm: int, most: int = MOST_SEEDS) -> Found:
    """Runs (tables, ARMS, seeds), each table with a budget of its own."""
    return _looked(runs, np.stack([_bought(table, budget, arm, most) for table in runs]), arm)


def _looked(runs: Array, counts: Counts, arm: int) -> Found:
    looks = [shown_by(table, own, arm) for table, own in zip(runs, counts, strict=True)]
    shown, against = (
        np.array([p.max() < FIRST for p in side])
        for side in ([s.p_for for s in looks], [s.p_against for s in looks])
    )  # fmt: skip
    return Found(shown, against, counts)


def _bought(runs: Array, budget: float, arm: int, most: int) -> Counts:
    """The seeds (ARMS,) that one table ends with."""
    counts, left = np.zeros(ARMS, int), budget
    while (batch := next_batch(_situation(runs, counts, arm, most), left)) is not None:
        for name, seeds in batch.targets.items():
            left -= seeds - counts[int(name)]
            counts[int(name)] = seeds
    return counts


def _situation(runs: Array, counts: Counts, arm: int, most: int) -> Situation:
    question = Question("best", "", "val_loss", tuple(NAMES))
    if counts.all():
        fit, shown = fit_of(runs, counts, PLAIN), shown_by(runs, counts, arm)
        sd = float(np.sqrt(fit.squares.sum() / fit.freedom.sum()))
        means = dict(zip(NAMES, fit.layout.means.tolist(), strict=True))
        p = float(min(shown.p_for.max(), shown.p_against.max()))
        question = Question(
            "best", "", "val_loss", tuple(NAMES), p=p, pairs=tuple(lowest(claim(arm), NAMES, means, sd))
        )
    now = dict(zip(NAMES, counts.tolist(), strict=True))
    return Situation([question], now, FIRST, lambda to: float(sum(n - now[a] for a, n in to.items())), most)


def tables_of(law: str, tables: int) -> Array:
    """Runs (tables, ARMS, MOST_SEEDS); the first arm is best."""
    random = np.random.default_rng(SEED + 4)
    runs: Array = random.standard_normal((tables, ARMS, MOST_SEEDS)) + LAWS[law][None, :, None]
    return runs


def rows(tables: int) -> Iterator[str]:
    """At the same budget, the true claim; where no arm is best, how often either answer is given."""
    yield "| arms | budget: seeds for all | equal: shown / runs | decide: shown / runs | ratio a run | seeds by rank |"
    yield "|---|---:|---|---|---:|---|"
    for law in LAWS:
        runs = tables_of(law, tables)
        for seeds in BUDGETS:
            equal, one = equal_seeds(runs, seeds, 0), decided(runs, seeds * ARMS, 0)
            each = ", ".join(f"{count:.0f}" for count in one.counts.mean(0))
            yield (
                f"| {law} | {seeds} | {equal.rate:.0%} / {equal.runs:.0f} | {one.rate:.0%} / {one.runs:.0f} "
                f"| {ratio(one, equal)} | {each} |"
            )


def ratio(one: Found, other: Found) -> str:
    """Answers a run of one over those of the other."""
    return f"{one.rate / one.runs / (other.rate / other.runs):.2f}" if other.rate and one.rate else "-"


def errors(tables: int) -> Iterator[str]:
    """False answers, with the 95% interval: arms that are alike, and a claim for the second best."""
    yield "| arms | claimed | budget: seeds for all | false answers, % | 95% interval |"
    yield "|---|---|---:|---:|---|"
    for law, arm in (("all alike", 0), ("one of 2 sd, five alike", 1), ("two near, four far", 1)):
        runs = tables_of(law, tables)
        for seeds in (8, MOST_SEEDS):
            one = decided(runs, seeds * ARMS, arm)
            wrong = one.shown | one.contradicted if law == "all alike" else one.shown
            low, high = interval(int(wrong.sum()), tables)
            said = "the first" if arm == 0 else "the second best"
            yield f"| {law} | {said} | {seeds} | {100 * wrong.mean():.1f} | {100 * low:.1f} to {100 * high:.1f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200, help="simulated tables a row; errors takes twice as many")
    chosen = parser.parse_args(arguments)
    began = time.process_time()
    for title, lines in (("The same budget", rows(chosen.tables)), ("False answers", errors(2 * chosen.tables))):
        print(f"## {title}\n")
        for line in lines:
            print(line, flush=True)
        print()
    print(f"({time.process_time() - began:.0f} CPU-s)")


if __name__ == "__main__":
    main()
