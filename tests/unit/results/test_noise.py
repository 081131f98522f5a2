"""How many looks a sweep is, by the sweeps that were typed before it (results/noise.py)."""

from __future__ import annotations

from moe_sweeps.records.manifest import Manifest, RunRecord, sweep_id_of
from moe_sweeps.results.noise import Noise


def typed(seeds: int, created: str, name: str = "aux_coef", arms: str = "ab", sweep_id: str = "") -> Manifest:
    runs = {f"{arm}{seed}": RunRecord("", arm, "", seed) for arm in arms for seed in range(seeds)}
    return Manifest(sweep_id or sweep_id_of(name, runs), name, runs, created=created)


def looks(now: Manifest, *others: Manifest) -> int:
    return Noise((), (now, *others)).looks(now)


EARLIER, LATER = "2026-11-29T10:00:00+00:00", "2026-11-29T11:00:00+00:00"


def test_fewer_seeds_before_are_a_look() -> None:
    assert looks(typed(3, LATER)) == 1
    assert looks(typed(3, LATER), typed(2, EARLIER)) == 2
    assert looks(typed(3, EARLIER), typed(2, LATER)) == 1
    assert looks(typed(3, LATER), typed(2, EARLIER, name="other")) == 1


def test_the_clock_is_that_of_one_time_zone() -> None:
    """10:00 in London is 19:00 in Tokyo, and is before 11:00 in London."""
    assert looks(typed(3, LATER), typed(2, "2026-11-29T19:00:00+09:00")) == 2
    assert looks(typed(3, LATER), typed(2, "2026-11-29T20:30:00+09:00")) == 1
    assert looks(typed(3, "2026-11-29T20:00:00+09:00"), typed(2, EARLIER)) == 2


def test_the_same_runs_again_are_a_look_of_decide_alone() -> None:
    first = typed(3, EARLIER, sweep_id="0123456789ab")
    assert looks(typed(3, LATER, sweep_id="ba9876543210"), first) == 2
    assert looks(typed(3, LATER), first) == 1  # typed as a sweep: the results that were looked at
    assert looks(typed(3, LATER, arms="abc", sweep_id="ba9876543210"), first) == 1


def test_a_sweep_is_no_look_before_itself() -> None:
    now = typed(3, LATER, sweep_id="0123456789ab")
    assert looks(now, typed(2, EARLIER, sweep_id="0123456789ab")) == 1  # as it was written when it began
