"""What `moe-sweeps decide` finds for its core-hours, and how often it errs: python benchmarks/decide.py [--tables N]

Simulated tables, decided by the functions that the command uses (results/deciding), against equal seeds for all arms
with the same test and one look at the end. A run costs 1; effects are in standard deviations of one run.
docs/running.md holds what it printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]
from simulated.cases import SPREADS

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.deciding.batches import MOST_SEEDS, Batch, Situation, next_batch
from moe_sweeps.results.deciding.questions import Pair, Question
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.verdicts import against_baseline

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
ARMS = 6
SEED = 20261129
# Of a fork at step 200 of 800: what one arm of a trunk costs, and what the trunk costs, where a whole run costs 1; and
# the sd of a difference, forked over unforked (.0065 over .0142 nats for aux.coef 0.2 against 0.1, docs/forks.md).
ARM_COST, TRUNK_COST, FORK_SD = 0.75, 0.25, 0.458


@dataclass(frozen=True)
class Design:
    """What a run of an arm costs, and a trunk that all arms of a seed share (0: runs start from step 0)."""

    run: float = 1.0
    trunk: float = 0.0

    @property
    def forked(self) -> bool:
        """Whether seeds are trunks."""
        return self.trunk > 0

    def cost(self, counts: Counts) -> float:
        """Of a table with so many seeds of each arm."""
        return float(self.run * counts.sum() + self.trunk * counts.max())


PLAIN, FORKED = Design(), Design(ARM_COST, TRUNK_COST)


@dataclass(frozen=True)
class Decided:
    """Which arms (tables, arms - 1) were found to differ, the seeds (tables, arms), and what each table cost."""

    found: Flags
    counts: Counts
    cost: Array


def fit_of(runs: Array, counts: Counts, design: Design) -> Fit:
    """The fit of the first seeds of each arm."""
    there = np.arange(runs.shape[-1]) < counts[..., None]
    return Fit.of(np.where(there, runs, np.nan), blocks=design.forked, by_design=design.forked)


def equal_seeds(runs: Array, seeds: int, design: Design = PLAIN) -> Decided:
    """The same seeds for all arms, and one look."""
    counts = np.full(runs.shape[:2], seeds)
    found = against_baseline(fit_of(runs, counts, design), intervals=False).p_family < FIRST
    return Decided(found, counts, np.array([design.cost(one) for one in counts]))


def decided(runs: Array, budget: float, *, tables: int = 1, most: int = MOST_SEEDS, design: Design = PLAIN) -> Decided:
    """Runs (tables in all, arms, seeds), where each `tables` of them share one budget of `tables` times `budget`."""
    counts = np.zeros(runs.shape[:2], int)
    batches: list[Batch | None] = [None] * len(runs)
    changed = np.arange(len(runs))
    left = np.full(len(runs) // tables, tables * budget)
    while len(changed):
        for table, situation in zip(changed, _situations(runs[changed], counts[changed], most, design), strict=True):
            batches[table] = next_batch(situation, left[table // tables])
        changed = _bought(batches, counts, left, tables, design)
    found = against_baseline(fit_of(runs, counts, design), intervals=False).p_family < FIRST
    return Decided(found, counts, np.array([design.cost(one) for one in counts]))


def _bought(batches: list[Batch | None], counts: Counts, left: Array, tables: int, design: Design) -> Counts:
    """Buy the best batch of every group of tables; returns the tables that have new runs."""
    bought = []
    for group in range(len(left)):
        mine = range(group * tables, (group + 1) * tables)
        offers = [(batch.worth, -batch.cost, t) for t in mine if (batch := batches[t]) and batch.cost <= left[group]]
        if not offers:
            continue
        table = max(offers)[2]
        batch = batches[table]
        assert batch
        before = design.cost(counts[table])
        for arm, seeds in batch.targets.items():
            counts[table, int(arm)] = seeds
        left[group] -= design.cost(counts[table]) - before
        bought.append(table)
    return np.array(bought, int)


def _situations(runs: Array, counts: Counts, most: int, design: Design) -> Iterator[Situation]:
    arms = [str(arm) for arm in range(runs.shape[1])]
    unseen = [Question(arm, "", "val_loss", (arm, arms[0]), family=len(arms) - 1) for arm in arms[1:]]
    if not counts.any():  # the first batch of every table
        for own in counts:
            yield Situation(unseen, dict(zip(arms, own.tolist(), strict=True)), FIRST, _cost(own, design), most)
        return
    fit = fit_of(runs, counts, design)
    family = against_baseline(fit, intervals=False)
    sd = np.sqrt(fit.squares.sum(-1) / fit.freedom.sum(-1))
    for own, difference, p in zip(counts, family.difference / sd[:, None], family.p_family, strict=True):
        if not own.any():
            yield Situation(unseen, dict(zip(arms, own.tolist(), strict=True)), FIRST, _cost(own, design), most)
            continue
        questions = [
            Question(arm, "", "val_loss", (arm, arms[0]), p=float(p[i]), family=len(arms) - 1,
                     pairs=(Pair(arm, arms[0], float(difference[i])),))
            for i, arm in enumerate(arms[1:])
        ]  # fmt: skip
        yield Situation(questions, dict(zip(arms, own.tolist(), strict=True)), FIRST, _cost(own, design), most)


def _cost(counts: Counts, design: Design) -> Callable[..., float]:
    def cost(targets: dict[str, int]) -> float:
        later = counts.copy()
        for arm, seeds in targets.items():
            later[int(arm)] = max(seeds, later[int(arm)])
        return design.cost(later) - design.cost(counts)

    return cost


# --- what is simulated ------------------------------------------------------------------------------------------------


def effects(name: str, random: np.random.Generator, tables: int) -> Array:
    """True differences (tables, ARMS) to the baseline, which is the first arm."""
    shape = (tables, ARMS - 1)
    found = np.zeros(shape)
    if name == "one of 2 sd":
        found[:, 0] = 2
    elif name == "normal, 2 sd":
        found = 2 * random.standard_normal(shape)
    elif name == "mixed":
        found = random.standard_normal(shape) * random.choice([0, 1, 2, 6], shape)
    return np.concatenate([np.zeros((tables, 1)), found], 1)


NAMES = ("one of 2 sd", "normal, 2 sd", "mixed")
BUDGETS = (5, 8, 14, 20, 40)  # seeds for all arms


def efficiency(tables: int) -> Iterator[str]:
    """Answers, runs and their ratio at the same budget, one table at a time and six that share it."""
    yield "| effects | budget: seeds for all | equal: answers / runs | decide | ratio | six share | ratio | wrong |"
    yield "|---|---:|---|---|---:|---|---:|---:|"
    for name in NAMES:
        random = np.random.default_rng(SEED)
        true = effects(name, random, tables)
        runs = random.standard_normal((tables, ARMS, MOST_SEEDS)) + true[..., None]
        for seeds in BUDGETS:
            equal = equal_seeds(runs, seeds)
            alone, shared = (decided(runs, seeds * ARMS, tables=group) for group in (1, 6))
            wrong = (alone.found & (true[:, 1:] == 0)).any(1).mean()
            yield (
                f"| {name} | {seeds} | {_rate(equal)} | {_rate(alone)} | {ratio(alone, equal):.2f} | {_rate(shared)} "
                f"| {ratio(shared, equal):.2f} | {100 * wrong:.1f}% |"
            )


def _rate(found: Decided) -> str:
    return f"{found.found.sum(1).mean():.2f} / {found.cost.mean():.0f}"


def ratio(one: Decided, other: Decided) -> float:
    """Answers a core-hour of one over those of the other."""
    rates = [found.found.sum() / found.cost.sum() for found in (one, other)]
    return float(rates[0] / rates[1]) if rates[1] else float("nan")


def same_answers(tables: int) -> Iterator[str]:
    """What equal seeds cost that answer as much as decide does."""
    yield "| effects | max. seeds | decide: answers / runs | equal seeds that answer as much: runs | ratio |"
    yield "|---|---:|---|---:|---:|"
    for name in NAMES:
        random = np.random.default_rng(SEED + 1)
        runs = random.standard_normal((tables, ARMS, MOST_SEEDS)) + effects(name, random, tables)[..., None]
        curve = {n: float(equal_seeds(runs, n).found.sum(1).mean()) for n in range(3, MOST_SEEDS + 1)}
        for most in (8, 14, 20, MOST_SEEDS):
            one = decided(runs, 1e9, most=most)
            answers = float(one.found.sum(1).mean())
            needed = next((n for n, found in curve.items() if found >= answers), MOST_SEEDS)
            yield f"| {name} | {most} | {_rate(one)} | {needed * ARMS} | {needed * ARMS / one.cost.mean():.2f} |"


def with_forks(tables: int) -> Iterator[str]:
    """The same budget: equal seeds from step 0, equal forks, and decide on forks."""
    yield "| effects | budget: seeds for all | equal, step 0 | equal, forked | decide, forked | ratio | over forked |"
    yield "|---|---:|---|---|---|---:|---:|"
    for name in NAMES:
        random = np.random.default_rng(SEED + 2)
        true = effects(name, random, tables)
        noise = random.standard_normal((tables, ARMS, MOST_SEEDS))
        common = random.standard_normal((tables, 1, MOST_SEEDS))
        plain, forks = noise + true[..., None], FORK_SD * noise + common + true[..., None]
        for seeds in BUDGETS:
            budget = float(seeds * ARMS)
            equal = equal_seeds(plain, seeds)
            trunks = min(int(budget / (ARMS * ARM_COST + TRUNK_COST)), MOST_SEEDS)
            equal_forks = equal_seeds(forks, trunks, FORKED)
            one = decided(forks, budget, design=FORKED)
            yield (
                f"| {name} | {seeds} | {_rate(equal)} | {_rate(equal_forks)} | {_rate(one)} | {ratio(one, equal):.2f} "
                f"| {ratio(one, equal_forks):.2f} |"
            )


def errors(tables: int) -> Iterator[str]:
    """Tables of identical arms in which decide calls a difference, with the 95% interval (Clopper & Pearson)."""
    yield "| arms | spreads | budget: seeds for all | false, % | 95% interval | equal seeds, % |"
    yield "|---:|---|---:|---:|---|---:|"
    for arms in (2, ARMS):
        for name, spreads in SPREADS.items():
            random = np.random.default_rng([SEED, arms])
            runs = random.standard_normal((tables, arms, MOST_SEEDS)) * spreads(arms)[:, None]
            for seeds in (8, MOST_SEEDS):
                wrong = decided(runs, seeds * arms).found.any(1)
                equal = equal_seeds(runs, seeds).found.any(1)
                low, high = interval(int(wrong.sum()), tables)
                yield (
                    f"| {arms} | {name} | {seeds} | {100 * wrong.mean():.1f} | {100 * low:.1f} to {100 * high:.1f} "
                    f"| {100 * equal.mean():.1f} |"
                )


def interval(hits: int, of: int) -> tuple[float, float]:
    """The exact 95% interval of a rate."""
    found = stats.binomtest(hits, of).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def waste(tables: int) -> Iterator[str]:
    """Where the runs go: mixed effects, a budget of 20 seeds for all arms."""
    random = np.random.default_rng(SEED + 3)
    true = effects("mixed", random, tables)
    runs = random.standard_normal((tables, ARMS, MOST_SEEDS)) + true[..., None]
    one = decided(runs, 20 * ARMS)
    arms, size = one.counts[:, 1:], np.abs(true[:, 1:])
    rows = {
        "baseline": one.counts[:, 0],
        "answered, beyond 3 sd": arms[one.found & (size > 3)],
        "answered, 1 to 3 sd": arms[one.found & (size > 1) & (size <= 3)],
        "answered, below 1 sd": arms[one.found & (size <= 1)],
        "not answered, above 0.5 sd": arms[~one.found & (size > 0.5)],
        "not answered, below 0.5 sd": arms[~one.found & (size <= 0.5)],
    }
    yield "| arms | a table | seeds each | share of all runs, % |"
    yield "|---|---:|---:|---:|"
    for name, seeds in rows.items():
        share = 100 * seeds.sum() / one.counts.sum()
        yield f"| {name} | {len(seeds) / tables:.2f} | {seeds.mean() if len(seeds) else 0:.1f} | {share:.0f} |"


PARTS: dict[str, tuple[Callable[[int], Iterator[str]], float]] = {
    "efficiency": (efficiency, 1.0), "same-answers": (same_answers, 1.0), "forks": (with_forks, 1.0),
    "errors": (errors, 4.0), "waste": (waste, 1.0),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", type=int, default=300, help="simulated tables a row; errors takes four times as many"
    )
    parser.add_argument("--part", choices=PARTS, action="append")
    chosen = parser.parse_args(arguments)
    for name in chosen.part or PARTS:
        began = time.process_time()
        part, share = PARTS[name]
        print(f"## {name}\n")
        for line in part(6 * max(1, round(share * chosen.tables / 6))):
            print(line, flush=True)
        print(f"\n({time.process_time() - began:.0f} CPU-s)\n")


if __name__ == "__main__":
    main()
