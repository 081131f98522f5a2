"""`--detect 0.002`: how many seeds show a difference of that size, judged by the noise that was measured.

Two arms are compared with a two-sided t-test at LEVEL with power POWER: unpaired with the standard deviation over
seeds, paired by seed with that of the differences (Cohen, Statistical Power Analysis, 1988, chapter 2).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.files import read_json
from moe_sweeps.identity import canonical_form
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.estimate import cost_key

NOISE_SWEEP = "noise_floor"
METRIC = "val_loss"
LEVEL, POWER = 0.05, 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation with its degrees of freedom, and what it was measured on."""

    sd: float
    freedom: int
    source: str

    def interval(self) -> tuple[float, float]:
        """The 95% interval of the standard deviation, of normal values (chi-squared)."""
        from scipy.stats import chi2  # type: ignore[import-untyped]

        low, high = chi2.ppf([0.975, 0.025], self.freedom)
        return self.sd * math.sqrt(self.freedom / low), self.sd * math.sqrt(self.freedom / high)


@dataclass(frozen=True, slots=True)
class Noise:
    """What is known about seed noise for runs of one size and length: None where nothing was measured."""

    seeds: Spread | None
    paired: Spread | None


def seeds_needed(difference: float, sd: float, *, paired: bool) -> int | None:
    """Seeds per arm that show `difference` with POWER; None if MOST_SEEDS do not. At least 2.

    Raises:
        ValueError: `difference` is not above 0.
    """
    if not difference > 0:
        raise ValueError(f"a difference to detect is above 0, not {difference}")
    return next((n for n in range(2, MOST_SEEDS + 1) if power(difference, sd, n, paired=paired) >= POWER), None)


def power(difference: float, sd: float, n: int, *, paired: bool) -> float:
    """The chance that a two-sided t-test with `n` seeds an arm finds `difference`, by the noncentral t distribution."""
    from scipy.stats import nct, t

    freedom = n - 1 if paired else 2 * (n - 1)
    shift = difference / sd * math.sqrt(n if paired else n / 2) if sd else math.inf
    if shift > 30:
        return 1.0  # where the distribution function is no longer computed reliably, nothing is missed
    critical = t.ppf(1 - LEVEL / 2, freedom)
    return float(nct.sf(critical, freedom, shift) + nct.cdf(-critical, freedom, shift))


def measured_noise(root: Path, run: RunConfig) -> Noise:
    """The noise of runs that have the size and length of `run`, from finished runs below `root`."""
    like = _results(root, run)
    return Noise(_seed_noise(like, _runs_of(root, NOISE_SWEEP)), _paired_noise(like))


@dataclass(frozen=True, slots=True)
class _Result:
    run_id: str
    arm: str
    seed: int
    data_seed: int
    value: float


def _results(root: Path, run: RunConfig) -> list[_Result]:
    wanted = _size(canonical_form(run))
    found = []
    for folder in RunDir.all(root):
        try:
            summary, identity = folder.summary(), folder.identity()
            form = identity["canonical"]
            if folder.status().state is State.done and summary and _size(form) == wanted:
                seeds = (int(form["seed"]), int(form["data_seed"]))
                found.append(_Result(identity["run_id"], identity["arm"], *seeds, float(summary[METRIC])))
        except (OSError, ValueError, KeyError, TypeError, MoeSweepsError):
            continue  # a damaged folder is the tables' business
    return found


def _size(form: dict[str, dict[str, object]]) -> tuple[str, object]:
    return cost_key({**form, "optimizer": {}, "aux": {}}), form["trainer"]["steps"]


def _runs_of(root: Path, sweep: str) -> set[str]:
    found: set[str] = set()
    for path in (root / "sweeps").glob("[!.]*/manifest.json"):
        try:
            content = read_json(path)
            found |= set(content["runs"]) if content["name"] == sweep else set()
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _seed_noise(results: Sequence[_Result], of_noise_sweep: set[str]) -> Spread | None:
    """The standard deviation over seeds of one arm, pooled if the noise sweep has several arms of this size."""
    return _pooled(
        [[r.value for r in arm] for arm in _by_arm([r for r in results if r.run_id in of_noise_sweep])],
        "arm", NOISE_SWEEP,
    )  # fmt: skip


def _paired_noise(results: Sequence[_Result]) -> Spread | None:
    """The standard deviation of differences between two arms at one seed, pooled over pairs of arms.

    Pairs share arms, so the degrees of freedom are counted as if there were arms - 1 of them.
    """
    pairs = list(_differences(_by_arm(results)))
    if not pairs:
        return None
    arms = len(_by_arm(results))
    square_sum = sum(statistics.variance(d) * (len(d) - 1) for d in pairs)
    freedom = sum(len(d) - 1 for d in pairs)
    plural = "" if len(pairs) == 1 else "s"
    honest = max(1, round(freedom * (arms - 1) / len(pairs)))
    return Spread(math.sqrt(square_sum / freedom), honest, f"{len(pairs)} pair{plural} of arms of this size")


def _differences(arms: Sequence[Sequence[_Result]]) -> Iterator[list[float]]:
    for one, other in itertools.combinations(arms, 2):
        values = {(r.seed, r.data_seed): r.value for r in other}
        found = [r.value - values[seeds] for r in one if (seeds := (r.seed, r.data_seed)) in values]
        if len(found) > 1:
            yield found


def _by_arm(results: Sequence[_Result]) -> list[list[_Result]]:
    arms: dict[str, list[_Result]] = {}
    for result in results:
        arms.setdefault(result.arm, []).append(result)
    return list(arms.values())


def _pooled(groups: Sequence[Sequence[float]], unit: str, source: str) -> Spread | None:
    several = [g for g in groups if len(g) > 1]
    if not several:
        return None
    freedom = sum(len(g) - 1 for g in several)
    sd = math.sqrt(sum(statistics.variance(g) * (len(g) - 1) for g in several) / freedom)
    seeds = sum(map(len, several))
    where = f" in {len(several)} {unit}s" if len(several) > 1 else ""
    return Spread(sd, freedom, f"{seeds} runs of {source}{where}")
