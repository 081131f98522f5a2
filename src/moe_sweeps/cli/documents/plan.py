"""`moe-sweeps plan --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, told
from moe_sweeps.sweep.cost import PlanCost, RunCost
from moe_sweeps.sweep.detect import Asked, Measured, promise
from moe_sweeps.sweep.estimate import tokens_of
from moe_sweeps.sweep.other_code import OtherCode
from moe_sweeps.sweep.plan import Plan, PlannedRun
from moe_sweeps.sweep.worth import Worth


@dataclass(frozen=True, slots=True)
class RunCostData(Part):
    """What the rest of one run costs."""

    seconds: float = told("of wall time, from where it is now")
    source: str = told("where the time comes from: finished runs, a probe, or a guess")
    measured: bool = told("false: a guess")
    flop: int = told("training FLOP of the whole run")
    tokens: int = told("training tokens of the whole run")
    params_total: int = told("parameters")
    params_active: int = told("parameters that one token uses")
    memory_bytes: int = told("the most that exists at one time, estimated")
    checkpoint_bytes: int = told("of one checkpoint")
    probe_problem: str | None = told("why a probe that was tried gave no time; null: none failed")


@dataclass(frozen=True, slots=True)
class PlannedRunData(Part):
    """One distinct run."""

    run_id: str = told("twelve hexadecimal digits")
    arm: str = told("what runs that differ in seeds alone share")
    label: str = told("its settings on the axes of the sweep, seeds apart")
    settings: dict[str, str] = told("the same as keys and values, each as it is typed")
    overrides: list[str] = told("what python train.py takes to train this run alone")
    seed: int = told("of weights, and of batches unless data_seed is set")
    state: str = told("as in moe-sweeps/status; planned if it has no folder")
    step: int = told("steps trained already")
    folder: str | None = told("path of its folder, if there is one")
    cost: RunCostData | None = told("null where nothing is left to train")


@dataclass(frozen=True, slots=True)
class UnreadData(Part):
    """A key that was set in combinations whose run does not read it."""

    key: str = told("the key")
    by: str = told("the choice with which it is not read")
    reader: str = told("what would read it")
    combinations: int = told("how many there are")


@dataclass(frozen=True, slots=True)
class TotalCost(Part):
    """What all runs that are left cost together."""

    runs: int = told("how many are left")
    workers: int = told("processes that train them")
    seconds: float = told("of wall time")
    flop: int = told("training FLOP")
    disk_bytes: int = told("of checkpoints that are kept")
    free_disk_bytes: int = told("on the disk of the runs folder")


@dataclass(frozen=True, slots=True)
class OtherCodeData(Part):
    """Runs that code other than the current has trained."""

    done: list[str] = told("names of run folders that are done")
    begun: list[str] = told("names of run folders that are not")
    files: list[str] = told("in which files the code of the done ones differs; empty if that was not recorded")


@dataclass(frozen=True, slots=True)
class DetectData(Part):
    """What `--detect` found: seeds that show a difference in validation loss in 80% of tables."""

    difference: float = told("nats")
    sd: float | None = told("spread of alike runs over seeds, nats; null: no arm of this size has two seeds")
    freedom: int | None = told("degrees of freedom behind it")
    seeds: int | None = told("an arm; null: more than can be planned, or no spread is known")
    power: float | None = told("chance of this plan to find the difference, in its arm with the fewest seeds")


@dataclass(frozen=True, slots=True)
class CheaperData(Part):
    """A plan that finds as much for less."""

    change: str = told("what it changes")
    seeds: int = told("an arm; of forks their trunks")
    share: float = told("of the core time of the whole plan")
    finds: float | None = told("nats that it finds in 80% of tables; null: as much as the plan")
    caveat: str | None = told("how its question differs; null: it is the same one")


@dataclass(frozen=True, slots=True)
class PowerData(Part):
    """What the plan finds, by the spread of finished runs of its size."""

    finds: float | None = told("nats of validation loss to the baseline that it finds in 80% of tables; null: none")
    sd: float = told("spread of alike runs over seeds, of forks within trunks, nats")
    freedom: int = told("degrees of freedom behind it")
    spread_of: str = told("runs, forks, or unforked: for a plan of forks of which none is finished, so it is cautious")
    asked: float | None = told("the smallest margin that its claims about validation loss name, nats")
    power: float | None = told("chance to find a difference of that size")
    cheaper: list[CheaperData] = told("plans that find as much, the cheapest first")


@dataclass(frozen=True, slots=True)
class PlanDocument(Document):
    """What a sweep would do. Nothing is written or trained."""

    SCHEMA: ClassVar[str] = "moe-sweeps/plan"

    name: str = told("of the sweep")
    sweep_id: str = told("the same set of runs is the same sweep, in whatever order it is typed")
    runs_folder: str = told("path of the folder of the run folders")
    axes: dict[str, list[str]] = told("every key that varies, and its values as typed")
    requested: int = told("combinations")
    runs: list[PlannedRunData] = told("distinct runs behind them")
    unread: list[UnreadData] = told("why several combinations mean one run")
    cost: TotalCost = told("of what is left")
    other_code: OtherCodeData = told("results of other code")
    detect: DetectData | None = told("with --detect")
    power: PowerData | None = told("null: no finished runs of this size tell a spread, or nothing is compared")


def plan_document(
    found: Plan, cost: PlanCost, code: OtherCode, detect: DetectData | None, worth: Worth | None = None
) -> PlanDocument:
    """The document of a plan."""
    costs = {one.planned.run_id: one for one in cost.runs}
    total = TotalCost(len(cost.runs), cost.workers, cost.seconds, cost.flops, cost.disk, cost.free_disk)
    done, begun = ([folder.path.name for folder in folders] for folders in (code.trained, code.begun))
    return PlanDocument(
        found.name, found.sweep_id, str(found.runs_root), found.axes, len(found.requests),
        [_run(planned, costs.get(run_id)) for run_id, planned in found.runs.items()], list(_unread(found)), total,
        OtherCodeData(done, begun, code.files), detect, None if worth is None else power_data(worth),
    )  # fmt: skip


def detect_data(difference: float, noise: Measured | None, asked: Asked) -> DetectData:
    """What the table of a plan finds."""
    if noise is None:
        return DetectData(difference, None, None, None, None)
    found = promise(difference, noise, asked)
    return DetectData(difference, noise.sd, noise.freedom, found.seeds, found.power)


def power_data(found: Worth) -> PowerData:
    """What the plan finds."""
    cheaper = [CheaperData(one.change, one.seeds, one.share, one.finds, one.caveat or None) for one in found.cheaper]
    noise = found.noise
    return PowerData(
        found.finds, noise.sd, noise.freedom, str(noise.spread_of), found.asked, found.power, cheaper
    )  # fmt: skip


def _run(planned: PlannedRun, cost: RunCost | None) -> PlannedRunData:
    folder = None if planned.folder is None else str(planned.folder.path)
    return PlannedRunData(
        planned.run_id, planned.arm, planned.label, planned.shown, [str(s) for s in planned.settings],
        planned.run.seed, str(planned.state), planned.step, folder, None if cost is None else _cost(cost),
    )  # fmt: skip


def _cost(cost: RunCost) -> RunCostData:
    estimate, size = cost.estimate, cost.size
    return RunCostData(
        cost.seconds, estimate.source, estimate.measured, cost.flops, tokens_of(cost.planned.run), size.params_total,
        size.params_active, cost.memory.estimate, estimate.checkpoint_bytes, estimate.problem or None,
    )  # fmt: skip


def _unread(found: Plan) -> Iterator[UnreadData]:
    counts = Counter((key, why) for request in found.requests for key, why in request.unread.items())
    for (key, why), count in counts.items():
        yield UnreadData(key, why.by, why.reader, count)
