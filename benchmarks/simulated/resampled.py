"""Proposals judged by the test of `moe-sweeps judge`, with seeds drawn anew from the scatter of the archived arms.

Three runs of a proposal, three of what it is held against, the spread of the archived arms lent.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.verdicts import against_baseline
from simulated.cases import Array
from simulated.rates import Row, each, limit, percent, upper
from simulated.scorecards import archived

GAINS = (0.0, 0.03, 0.06, 0.12)  # nats
PROPOSALS, SEEDS = 200, 3


def rows(programs: int) -> list[Row]:
    """`programs` times 200 proposals of each true gain, and as many programs that keep what they accept."""
    return [*each(partial(_gain, programs), GAINS), kept(programs)]


def scatter() -> tuple[Array, tuple[Array, Array]]:
    """What seeds did to each archived run of an arm with several, and sums of squares with degrees of freedom."""
    arms: dict[str, list[float]] = {}
    for row in archived()[0].rows.values():
        arms.setdefault(row["arm"], []).append(row[PRIMARY.column])
    several = [np.array(values) for values in arms.values() if len(values) > 1]
    pool = np.concatenate([(v - v.mean()) * np.sqrt(len(v) / (len(v) - 1)) for v in several])
    return pool, (np.array([v.var() * len(v) for v in several]), np.array([len(v) - 1.0 for v in several]))


def better(proposed: Array, used: Array, lent: tuple[Array, Array]) -> Array:
    """Which proposals (..., seeds) are called better than what is in use (..., seeds)."""
    found = against_baseline(Fit.of(np.stack([used, proposed], -2), blocks=False, others=lent), intervals=False)
    return np.asarray((found.p_family[..., 0] < FIRST) & (found.difference[..., 0] < 0))


def _gain(programs: int, gain: float) -> list[Row]:
    pool, lent = scatter()
    runs = np.random.default_rng(3).choice(pool, (PROPOSALS * programs, 2, SEEDS))
    runs[:, 1] -= gain
    hits = better(runs[:, 1], runs[:, 0], lent).sum()
    greedy = (runs[:, 1].mean(-1) < runs[:, 0].mean(-1)).sum()
    return [{"gain": gain, "hits": int(hits), "of": len(runs), "greedy": int(greedy)}]


def kept(programs: int) -> Row:
    """Programs whose accepted proposal is what the next is held against, without any gain."""
    pool, lent = scatter()
    runs = np.random.default_rng(4).choice(pool, (programs, 1 + PROPOSALS, SEEDS))
    found: Row = {"programs": programs}
    for name in ("judge", "greedy"):
        used, accepted = runs[:, 0], np.zeros(programs)
        for place in range(1, 1 + PROPOSALS):
            new = runs[:, place]
            takes = better(new, used, lent) if name == "judge" else new.mean(-1) < used.mean(-1)
            used, accepted = np.where(takes[:, None], new, used), accepted + takes
        claimed = runs[:, 0].mean(-1) - used.mean(-1)
        found |= {
            name: int(accepted.sum()), f"{name}_gain": float(claimed.mean()),
            f"{name}_over": int((accepted > 0.05 * PROPOSALS).sum()),
        }  # fmt: skip
    return found


def lines(found: list[Row]) -> list[str]:
    """Accepted by gain, and the programs that keep what they accept."""
    gains, last = found[:-1], found[-1]
    told = [
        f"Proposals of three runs, drawn from the scatter of the archived runs, {gains[0]['of']:,} a row:",
        "",
        "| true gain (nats) | accepted by judge, % | by the lower mean, % |",
        "|---:|---:|---:|",
    ]
    told += [f"| {r['gain']:g} | {percent(r)} | {100 * r['greedy'] / r['of']:.1f} |" for r in gains]
    of = last["programs"] * PROPOSALS
    rate = {"hits": last["judge"], "of": of}
    over, most = last["judge_over"], upper(last["judge_over"], last["programs"])
    return [
        *told, "",
        f"{last['programs']:,} programs with {PROPOSALS} proposals each that change nothing, an accepted one taking "
        f"the place of what it beat: judge accepts {percent(rate, 2)}% (upper 95% limit {limit(rate)}%), more than 5% "
        f"in {over} of them (upper limit {100 * most:.1f}%), and thinks to have gained {last['judge_gain']:.4f} nats. "
        f"The lower mean accepts {100 * last['greedy'] / of:.1f}%, each at the luck of all before it, and thinks to "
        f"have gained {last['greedy_gain']:.4f} nats.",
    ]  # fmt: skip
