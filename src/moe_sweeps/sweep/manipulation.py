"""The manipulation check: do arms differ where they claim to, and nowhere else without a reason?

Every arm of a plan is trained for a few steps at one seed, and its trace is compared with that of the nearest arm.
A difference in the identity claims a difference in some channels of the trace; CLAIMS says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.identity import canonical_form
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.sweep.plan import Plan, PlannedRun, Request
from moe_sweeps.sweep.trace import BALANCER, WEIGHTS, Trace, trace
from moe_sweeps.sweep.why import flat

# A key of the identity -> channels of which at least one must differ; the first pattern that fits. Other keys: any.
CLAIMS: dict[str, tuple[str, ...]] = {
    "aux.*": ("aux_loss",),
    "balancer.*": (BALANCER, "aux_loss", "maxvio_batch", f"{WEIGHTS} router"),
    **{f"lr_split.{role.value}": (f"{WEIGHTS} {role.value}",) for role in Role},
    "lr_split.*": (f"{WEIGHTS} expert",),
    "router.z_loss": ("z_loss",),
    "optimizer.base_lr": ("lr",),
    "schedule.*": ("lr",),
    "optimizer.*": (f"{WEIGHTS} *",),
}
# Knobs that act late in a run: a rehearsal of its first steps cannot show them.
LATE = ("trainer.steps", "trainer.final_eval_sequences", "trainer.collapse_*", "trainer.stop_on_collapse",
        "schedule.end_fraction", "balancer.decay_fraction", "fork.*")  # fmt: skip
MOST_EQUIVALENTS = 4


@dataclass(frozen=True, slots=True)
class ArmCheck:
    """One arm compared with another. `problem` is None when they differ as they claim."""

    arm: str
    against: str
    claimed: tuple[str, ...]  # the keys in which the two identities differ
    seen: dict[str, int]  # channels that differ -> the first step at which they do
    problem: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What the manipulation check found."""

    arms: list[ArmCheck]
    equivalents: list[ArmCheck]
    unread: dict[str, list[str]]  # keys of the identity that no code read -> labels of the arms

    @property
    def clean(self) -> bool:
        """Whether no comparison has a problem."""
        return all(f.problem is None for f in (*self.arms, *self.equivalents))


def check(
    plan: Plan, data: Callable[[PlannedRun], TokenData], steps: int, *, threads: int, tick: Callable[[str], None]
) -> Checked:
    """Trace every arm of `plan` for `steps` steps, and some other spellings of runs, which must give equal traces.

    `data` gives the tokens of a run. `tick` is called with the label of each of the `count_traces(plan)` traces before
    it is made.
    """
    arms, traces = first_of_each_arm(plan), {}
    for planned in arms:
        tick(planned.label)
        traces[planned.run_id] = trace(planned.run, data(planned), steps, threads=threads)
    equivalents = []
    for request in _other_spellings(plan):
        tick(_spell(request))
        planned = plan.runs[request.run_id]
        again = trace(compose(request.settings), data(planned), steps, threads=threads)
        equivalents.append(_compare_equivalent(request, planned, again, traces[planned.run_id]))
    return Checked(list(_compare_arms(arms, traces)), equivalents, _unread(arms, traces))


def count_traces(plan: Plan) -> int:
    """How many traces the check of `plan` takes."""
    return len(first_of_each_arm(plan)) + len(_other_spellings(plan))


def first_of_each_arm(plan: Plan) -> list[PlannedRun]:
    """One run of every arm, in the order of the plan."""
    return list({p.arm: p for p in reversed(plan.runs.values())}.values())[::-1]


def _other_spellings(plan: Plan) -> list[Request]:
    """At most MOST_EQUIVALENTS requests that spell a traced run in another way."""
    traced = {p.run_id for p in first_of_each_arm(plan)}
    spelt = {run_id: {_spell(r) for r in plan.requests if r.run_id == run_id} for run_id in traced}
    others = []
    for request in plan.requests:
        waiting = spelt.get(request.run_id, set()) - {_spell_run(plan, request.run_id)}
        if _spell(request) in waiting:
            spelt[request.run_id].remove(_spell(request))
            others.append(request)
    return others[:MOST_EQUIVALENTS]


def _compare_arms(arms: list[PlannedRun], traces: dict[str, Trace]) -> Iterator[ArmCheck]:
    """Each arm against the nearest earlier arm by identity, and against every earlier arm with the same trace."""
    for position, planned in enumerate(arms[1:], start=1):
        near = min(arms[:position], key=lambda other: len(_claimed(planned, other)))
        yield _compare(planned, near, traces)
        for other in arms[:position]:
            if other is not near and not traces[planned.run_id].differences(traces[other.run_id]):
                yield _compare(planned, other, traces)


def _compare(a: PlannedRun, b: PlannedRun, traces: dict[str, Trace]) -> ArmCheck:
    claimed, seen = _claimed(a, b), traces[a.run_id].differences(traces[b.run_id])
    return ArmCheck(a.label, b.label, claimed, seen, _problem(claimed, seen))


def _problem(claimed: tuple[str, ...], seen: dict[str, int]) -> str | None:
    visible = [key for key in claimed if not any(fnmatch(key, pattern) for pattern in LATE)]
    if not seen:
        if not visible:
            return None  # every knob that differs acts later than the rehearsal
        return f"no effect: {', '.join(claimed)} made no difference in any number or weight"
    for key in visible if len(visible) == 1 else []:
        expected = next((c for pattern, c in CLAIMS.items() if fnmatch(key, pattern)), ())
        if expected and not any(fnmatch(channel, name) for channel in seen for name in expected):
            return f"{key} claims to change {' or '.join(expected)}, and did not"
        if problem := _moved_other_roles(key, seen):
            return problem
    return None


def _moved_other_roles(key: str, seen: dict[str, int]) -> str | None:
    """A learning rate of one role must not move another role's weights in the first step."""
    if key not in {f"lr_split.{role.value}" for role in Role}:
        return None
    own = f"{WEIGHTS} {key.partition('.')[2]}"
    early = [name for name, step in seen.items() if name.startswith(WEIGHTS) and name != own and step <= 1]
    return f"{key} also changed {', '.join(early)} in the first step" if early else None


def _compare_equivalent(request: Request, planned: PlannedRun, again: Trace, first: Trace) -> ArmCheck:
    seen = again.differences(first)
    problem = None if not seen else "declared the same run, but the traces differ"
    return ArmCheck(_spell(request), planned.label, (), seen, problem)


def _claimed(a: PlannedRun, b: PlannedRun) -> tuple[str, ...]:
    """Keys in which two identities differ. Where a kind differs, its group's other keys are left out."""
    one, other = flat(canonical_form(a.run)), flat(canonical_form(b.run))
    keys = [k for k in dict.fromkeys([*one, *other]) if one.get(k) != other.get(k)]
    kinds = {k.partition(".")[0] for k in keys if k.endswith(".kind")}
    own = {k for k in keys if k.endswith(".kind") or k.partition(".")[0] not in kinds}
    found = [k for k in keys if k in own and not (k.startswith("aux.") and "balancer" in kinds)]
    return tuple(key for k in found for key in (_roles(a, b) if k == "lr_split.kind" else (k,)))


def _roles(a: PlannedRun, b: PlannedRun) -> tuple[str, ...]:
    """The roles whose fixed multipliers differ between two kinds of lr_split; the kind itself where none do."""
    one, other = a.run.lr_split, b.run.lr_split
    roles = [r for r in Role if one.multiplier(r) != other.multiplier(r)]
    return tuple(f"lr_split.{role.value}" for role in roles) or ("lr_split.kind",)


def _unread(arms: list[PlannedRun], traces: dict[str, Trace]) -> dict[str, list[str]]:
    """Keys of an arm's identity that no code read while it was traced -> labels of such arms."""
    found: dict[str, list[str]] = {}
    for planned in arms:
        keys = [k for k in flat(canonical_form(planned.run)) if not _not_in_a_rehearsal(k)]
        for key in keys:
            if key not in traces[planned.run_id].read:
                found.setdefault(key, []).append(planned.label)
    return found


def _not_in_a_rehearsal(key: str) -> bool:
    """Whether a key is read before training (kinds, seeds, data) or only late in it."""
    made = key.endswith(".kind") or key in ("seed", "data_seed") or key.startswith("data.")
    return made or any(fnmatch(key, pattern) for pattern in LATE)


def _spell_run(plan: Plan, run_id: str) -> str:
    """The spelling of the combination from which the run was made."""
    return next(_spell(r) for r in plan.requests if r.settings == plan.runs[run_id].settings)


def _spell(request: Request) -> str:
    return " ".join(str(s) for s in request.settings if s.key not in ("seed", "data_seed"))
