"""How many looks a sweep is, by the sweeps that were typed before it (results/noise.py)."""

from __future__ import annotations

from dataclasses import fields, replace

from moe_sweeps.records.manifest import Manifest, RunRecord, SearchRecord, sweep_id_of
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


def batch(*seeds: int, created: str) -> Manifest:
    runs = {f"{arm}{seed}": RunRecord("", arm, "", seed) for arm in "ab" for seed in seeds}
    return Manifest(sweep_id_of("aux_coef", runs), "aux_coef", runs, created=created)


def test_batches_of_other_seeds_are_looks_each() -> None:
    """A table counts the runs of its arms that earlier sweeps asked for; that these lie apart makes them no fewer."""
    batches = [batch(*range(3 * i, 3 * i + 3), created=f"2026-11-{10 + i}T10:00:00+00:00") for i in range(12)]
    assert [looks(one, *batches[:i]) for i, one in enumerate(batches)] == list(range(1, 13))
    assert looks(batch(0, 1, created="2026-11-29T10:00:00+00:00"), *batches[:3]) == 3  # it sees what the third saw
    wide = batch(0, 1, 2, created=LATER)
    assert looks(wide, batch(0, 1, 7, created=EARLIER), batch(0, 1, 8, created=EARLIER)) == 3


def stage(seeds: int, number: int) -> Manifest:
    return typed(seeds, f"2026-11-28T1{number}:00:00+00:00", sweep_id=f"{number:012x}")


def test_a_plan_that_was_typed_before_hides_no_look_of_decide() -> None:
    """It asked for all the runs that `decide` then looked at a few at a time."""
    plan, stages = typed(10, "2026-11-27T10:00:00+00:00"), [stage(3 + 2 * i, i) for i in range(4)]
    for others in ([], [plan]):
        assert [looks(one, *others, *stages[:i]) for i, one in enumerate(stages)] == [1, 2, 3, 4]
        noise = Noise((), (*others, *stages))
        assert [len(noise.later_runs(one)) for one in stages] == [12, 8, 4, 0]
    assert looks(typed(9, LATER), plan, *stages) == 5  # typed as a plan again, it sees the ten that the plan asked for


def test_another_sweep_that_asks_later_makes_no_run_an_earlier_one() -> None:
    first, second = typed(2, "2026-11-27T10:00:00+00:00"), typed(4, EARLIER)
    other = typed(4, LATER, name="gating", arms="a")  # shares the baseline
    assert Noise((), (first, second, other)).later_runs(first) == {"a2", "a3", "b2", "b3"}


def test_a_search_that_is_typed_again_under_another_id_is_no_look() -> None:
    search = SearchRecord(*[None] * len(fields(SearchRecord)))  # type: ignore[arg-type]
    first, again = (
        replace(typed(3, created, sweep_id=i * 12), search=search) for i, created in (("a", EARLIER), ("b", LATER))
    )
    assert looks(again, first) == 1


def test_seeds_of_a_single_arm_are_looks() -> None:
    """Its spread is tested against a bound."""
    manifests = [typed(3 + i, f"2026-11-{10 + i}T10:00:00+00:00", arms="a") for i in range(4)]
    assert [looks(one, *manifests[:i]) for i, one in enumerate(manifests)] == [1, 2, 3, 4]
    assert looks(typed(3, LATER), typed(2, EARLIER, arms="a")) == 1  # one arm of two: nothing was compared


def test_runs_of_later_looks_are_those_that_no_earlier_sweep_asked_for() -> None:
    first, second = typed(2, EARLIER), typed(4, LATER)
    noise = Noise((), (first, second, typed(3, "2026-11-28T10:00:00+00:00", name="noise_floor", arms="a")))
    assert noise.later_runs(first) == {"a3", "b2", "b3"}
    assert noise.later_runs(second) == set()


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


def test_a_look_of_decide_at_more_seeds_is_a_look_before_one_at_fewer() -> None:
    """With a smaller --max-seeds what a later look had left open was judged again, at the level of a first one."""
    first = typed(11, EARLIER, sweep_id="0123456789ab")
    assert looks(typed(3, LATER, sweep_id="ba9876543210"), first) == 2
    assert looks(typed(3, LATER, arms="abc", sweep_id="ba9876543210"), first) == 2


def test_a_sweep_is_no_look_before_itself() -> None:
    now = typed(3, LATER, sweep_id="0123456789ab")
    assert looks(now, typed(2, EARLIER, sweep_id="0123456789ab")) == 1  # as it was written when it began
