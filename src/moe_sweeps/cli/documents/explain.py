"""`moe-sweeps explain --json`: a run's parameter groups, or the runs behind a cell of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, told
from moe_sweeps.cli.documents.tables import ArmRunData, EstimateData, arm_run, estimate_data
from moe_sweeps.cli.explain import notes, parameter_groups
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.optim.lr_split import LoadBasedConfig, LrSplitConfig, Role
from moe_sweeps.reports.lineage import CellReference, reproduce


@dataclass(frozen=True, slots=True)
class GroupData(Part):
    """Parameters that are trained alike."""

    role: str = told("expert, dense, router, embedding or norm")
    tensors: int = told("how many")
    params: int = told("numbers in them")
    lr_multiplier: float = told("of base_lr")
    peak_lr: float = told("the highest learning rate of the schedule")
    follows_load: bool = told("the rate of each expert is multiplied by a function of its load")
    schedule: str = told("the kind")
    weight_decay: float = told("as the optimizer gets it")


@dataclass(frozen=True, slots=True)
class ExplainDocument(Document):
    """The parameter groups of a run. Nothing is trained or prepared."""

    SCHEMA: ClassVar[str] = "moe-sweeps/explain"

    run_id: str = told("twelve hexadecimal digits")
    name: str = told("of the run folder, without the run id")
    optimizer: str = told("the kind")
    base_lr: float = told("the learning rate that multipliers refer to")
    steps: int = told("of training")
    groups: list[GroupData] = told("in the order of the optimizer")
    notes: list[str] = told("what the numbers do not say")


@dataclass(frozen=True, slots=True)
class CellDocument(Document):
    """What a number of a table rests on."""

    SCHEMA: ClassVar[str] = "moe-sweeps/cell"

    sweep_id: str = told("of the table; empty for runs that no sweep asked for")
    table: str = told("its name")
    arm: str = told("twelve hexadecimal digits that replicates share")
    label: str = told("its settings")
    metric: str = told("a key of summary.json")
    estimate: EstimateData = told("over the runs that are done")
    values: dict[str, float | None] = told("the number of each run, by run id; null: not in the mean")
    runs: list[ArmRunData] = told("planned runs of the arm")
    commands: dict[str, str] = told("what trains each of them again, by run id")


def explain_document(run: RunConfig) -> ExplainDocument:
    """The document of a run that exists or that overrides describe."""
    split, groups = parameter_groups(run)
    listed = [_group(run, split, group) for group in groups]
    about = (run_id(run), run.run_name, run.optimizer.kind, run.optimizer.base_lr, run.trainer.steps)
    return ExplainDocument(*about, listed, list(notes(run, split)))


def cell_document(cell: CellReference) -> CellDocument:
    """The document of one cell."""
    runs, column = cell.arm.runs, cell.metric.column
    rows = {run.run_id: run.row for run in runs if run.row is not None}
    done = {run.run_id for run in runs if run.outcome == "done"}
    return CellDocument(
        cell.table.manifest.sweep_id, cell.table.name, cell.arm.arm, cell.arm.label, column,
        estimate_data(cell.arm.cells[column]),
        {run_id: row.get(column) if run_id in done else None for run_id, row in rows.items()},
        [arm_run(run) for run in runs], {run_id: reproduce(row) for run_id, row in rows.items()},
    )  # fmt: skip


def _group(run: RunConfig, split: LrSplitConfig, group: ParamGroup) -> GroupData:
    settings = group.as_torch(run.optimizer.base_lr, run.optimizer.weight_decay)
    follows = isinstance(split, LoadBasedConfig) and group.role is Role.expert
    size = sum(param.numel() for param in group.params)
    return GroupData(
        group.role.value, len(group.params), size, group.lr_multiplier, float(settings["peak_lr"]), follows,
        run.schedule.of(group.role).kind, float(settings["weight_decay"]),
    )  # fmt: skip
