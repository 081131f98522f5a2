"""--detect: the power of t-tests against worked examples, and noise against numbers computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, compose_run

from moe_sweeps.files import write_json
from moe_sweeps.freeze import freeze
from moe_sweeps.rundir import State, Status
from moe_sweeps.sweep.detect import Spread, measured_noise, power, seeds_needed


@pytest.mark.parametrize(
    ("effect", "paired", "n"),
    [
        # Cohen (1988), tables 2.3.5 and 2.4.1: two-sided level 0.05, power 0.80.
        (0.2, False, 394),
        (0.5, False, 64),
        (0.8, False, 26),
        # Faul et al. (2007), G*Power: paired t-test.
        (0.5, True, 34),
        (0.8, True, 15),
    ],
)
def test_published_sample_sizes(effect: float, paired: bool, n: int) -> None:
    assert seeds_needed(effect, 1.0, paired=paired) == n
    assert seeds_needed(effect / 500, 1 / 500, paired=paired) == n  # only their ratio matters


def test_power_is_what_simulation_finds() -> None:
    from scipy.stats import ttest_ind  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (4000, 5)), rng.normal(1.5, 1, (4000, 5))
    found = float(np.mean(ttest_ind(a, b, axis=1).pvalue < 0.05))
    assert power(1.5, 1.0, 5, paired=False) == pytest.approx(found, abs=4 * math.sqrt(0.25 / 4000))


def test_extremes() -> None:
    assert seeds_needed(1.0, 0.0, paired=True) == 2  # no noise at all
    assert seeds_needed(1.0, 1e-6, paired=False) == 2
    assert seeds_needed(1e-6, 1.0, paired=False) is None
    with pytest.raises(ValueError, match="above 0"):
        seeds_needed(0.0, 1.0, paired=True)


def test_the_interval_of_a_standard_deviation() -> None:
    """For 4 degrees of freedom chi-squared has the quantiles 0.4844 and 11.1433 (any table)."""
    low, high = Spread(1.0, 4, "").interval()
    assert low == pytest.approx(math.sqrt(4 / 11.1433), rel=1e-4)
    assert high == pytest.approx(math.sqrt(4 / 0.4844), rel=1e-4)


def finish(line: tuple[str, ...], val_loss: float) -> str:
    folder = freeze(compose_run(*TINY, *line), [], command="test")
    folder.write_summary({"val_loss": val_loss})
    folder.write_status(Status(State.done))
    return folder.run_id


def test_noise_of_seeds_and_of_pairs(folders: Path) -> None:
    assert measured_noise(folders, compose_run(*TINY)).seeds is None
    ids = [finish(("balancer=aux", f"seed={s}"), v) for s, v in enumerate((4.0, 4.2, 4.4))]
    for s, v in enumerate((4.5, 4.7, 5.2)):
        finish(("balancer=lossfree", f"seed={s}"), v)
    finish(("balancer=aux", "seed=9", "model.layers=3"), 9.0)  # another size
    finish(("balancer=aux", "seed=9", "trainer.steps=48"), 9.0)  # another length
    noise = measured_noise(folders, compose_run(*TINY))
    assert noise.seeds is None  # these runs are in no noise_floor sweep
    assert noise.paired is not None
    assert noise.paired.sd == pytest.approx(np.std([0.5, 0.5, 0.8], ddof=1))
    assert (noise.paired.freedom, noise.paired.source) == (2, "1 pair of arms of this size")
    (folders / "sweeps" / "abc").mkdir(parents=True)
    write_json(folders / "sweeps" / "abc" / "manifest.json", {"name": "noise_floor", "runs": dict.fromkeys(ids)})
    noise = measured_noise(folders, compose_run(*TINY))
    assert noise.seeds is not None
    assert noise.seeds.sd == pytest.approx(0.2)
    assert noise.seeds.source == "3 runs of noise_floor"


def test_one_seed_is_no_noise(folders: Path) -> None:
    finish(("balancer=aux",), 4.0)
    finish(("balancer=lossfree",), 5.0)
    noise = measured_noise(folders, compose_run(*TINY))
    assert (noise.seeds, noise.paired) == (None, None)
