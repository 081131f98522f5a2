"""`moe-sweeps explain`: which parameters a run has, and at which learning rate and decay each group is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console

from moe_sweeps.cli.naming import Line, named
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.frozen_run import frozen_run
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.optim.lr_split import Control, LoadBasedConfig, LrSplitConfig, Role
from moe_sweeps.records.find import find_run
from moe_sweeps.sweep.grid import ONE_RUN, single
from moe_sweeps.training.stepper import groups_of

COLUMNS = ("role", "tensors", "params", "multiplier", "peak lr", "schedule", "decay")
TEXTS = ("role", "schedule")
_RATIO = {"batch_fraction": "c/T", "ideal_normalized": "cE/(kT)"}
_CONTROL = {
    Control.uniform: "every expert gets the mean of its layer",
    Control.shuffled: "permuted among the experts of a layer",
}


def configured_run(words: Sequence[str], runs_root: Path) -> RunConfig:
    """The frozen config of the run that one word means, or what a line of overrides describes.

    Raises:
        MoeSweepsError: there is no such run.
        ConfigError: the overrides are refused.
    """
    names = named(words)
    if not names:
        return compose(single([]))
    if len(names) > 1:
        raise MoeSweepsError(f"one run or several overrides (key=value), not both: {' '.join(words)}")
    what = names[0]
    return compose(single(what.settings, *ONE_RUN)) if isinstance(what, Line) else frozen_run(find_run(what, runs_root))


def print_explanation(console: Console, run: RunConfig) -> None:
    """Print the parameter groups of `run`, and notes below them. Nothing is trained or prepared."""
    split, groups = parameter_groups(run)
    console.print(f"{run.run_name}-{run_id(run)}", style="bold", highlight=False, markup=False)
    console.print(_table(run, split, groups))
    for line in notes(run, split):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(run: RunConfig, split: LrSplitConfig, groups: Sequence[ParamGroup]) -> FoldedTable:
    columns = [Column(name, right=name not in TEXTS, folds=name == "schedule", told=True) for name in COLUMNS]
    size = sum(p.numel() for group in groups for p in group.params)
    total = ("all", str(sum(len(group.params) for group in groups)), f"{size:,}", "", "", "", "")
    return FoldedTable(columns, [*(_row(run, split, group) for group in groups), total])


def _row(run: RunConfig, split: LrSplitConfig, group: ParamGroup) -> tuple[str, ...]:
    settings = group.as_torch(run.optimizer.base_lr, run.optimizer.weight_decay)
    multiplier, peak = f"{group.lr_multiplier:g}", f"{settings['peak_lr']:g}"
    if isinstance(split, LoadBasedConfig) and group.role is Role.expert:
        multiplier, peak = f"{multiplier} r", f"{peak} r"
    size = sum(p.numel() for p in group.params)
    schedule, decay = run.schedule.of(group.role).kind, f"{settings['weight_decay']:g}"
    return group.role.value, str(len(group.params)), f"{size:,}", multiplier, peak, schedule, decay


def parameter_groups(run: RunConfig) -> tuple[LrSplitConfig, list[ParamGroup]]:
    """How `run` splits learning rates, and its parameter groups, whose tensors have shapes and no memory."""
    with torch.device("meta"):  # however large the model is
        model = Transformer(run, run.data.vocab_size)
    return groups_of(run, model)


def notes(run: RunConfig, split: LrSplitConfig) -> Iterator[str]:
    """What the table of parameter groups does not say."""
    yield f"optimizer={run.optimizer.kind}, base_lr {run.optimizer.base_lr:g}, {run.trainer.steps} steps"
    if isinstance(split, LoadBasedConfig):
        yield f"r, for each expert in every step: {_ratio(split)}"
        follows = "follows r" if split.scale_decay else "does not follow r"
        yield f"weight decay of the experts {follows}"
    if split.kind != run.lr_split.kind:
        yield f"lr_split={run.lr_split.kind} with these settings is {split.kind} in this run"


def _ratio(split: LoadBasedConfig) -> str:
    """c: picks of the expert over the step's global batch of T tokens with k picks each."""
    formula = _RATIO.get(split.kind, split.kind)
    parts = [f"averaged over steps (EMA {split.ema:g})"] if split.ema else []
    if split.min_ratio or split.max_ratio is not None:
        high = "inf" if split.max_ratio is None else f"{split.max_ratio:g}"
        parts.append(f"clipped to [{split.min_ratio:g}, {high}]")
    parts += [_CONTROL[split.control]] if split.control in _CONTROL else []
    meaning = "c picks of the step's T tokens, k each, for E experts"
    return "; ".join([f"sqrt({formula})" if split.sqrt else formula, *parts, meaning])
