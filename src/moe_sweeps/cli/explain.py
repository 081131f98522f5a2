"""`moe-sweeps explain`: which parameters a run has, and at which learning rate and decay each group is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from moe_sweeps.config.compose import compose
from moe_sweeps.config.frozen import from_dict
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.identity import run_id
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.optim.lr_split import Control, LoadBasedConfig, LrSplitConfig, Role
from moe_sweeps.optim.stepper import groups_of
from moe_sweeps.results.history import find_run
from moe_sweeps.sweep.grid import single

COLUMNS = ("role", "tensors", "params", "multiplier", "peak lr", "schedule", "decay")
_RATIO = {"batch_fraction": "c/T", "ideal_normalized": "cE/(kT)"}
_CONTROL = {
    Control.uniform: "every expert gets the mean of its layer",
    Control.shuffled: "permuted among the experts of a layer",
}


def configured_run(words: Sequence[str], runs_root: Path) -> RunConfig:
    """The frozen config of the run that one word means, or what several overrides describe.

    Raises:
        MoeSweepsError: there is no such run.
        ConfigError: the overrides are refused.
    """
    if all("=" in word for word in words) and not (words and Path(words[0]).is_dir()):
        return compose(single(words))
    if len(words) > 1:
        raise MoeSweepsError(f"one run or several overrides (key=value), not both: {' '.join(words)}")
    return from_dict(find_run(words[0], runs_root).config())


def print_explanation(console: Console, run: RunConfig) -> None:
    """The groups of `run`, and what a table cannot say about them. Nothing is trained or prepared."""
    with torch.device("meta"):  # shapes without memory, however large the model is
        model = Transformer(run, run.data.vocab_size)
    split, groups = groups_of(run, model)
    console.print(f"{run.run_name}-{run_id(run)}", style="bold", highlight=False, markup=False)
    console.print(_table(run, split, groups))
    for line in _notes(run, split):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(run: RunConfig, split: LrSplitConfig, groups: Sequence[ParamGroup]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("role", "schedule") else "right", no_wrap=True)
    for group in groups:
        table.add_row(*_row(run, split, group))
    size = sum(p.numel() for group in groups for p in group.params)
    table.add_row("all", str(sum(len(group.params) for group in groups)), f"{size:,}")
    return table


def _row(run: RunConfig, split: LrSplitConfig, group: ParamGroup) -> tuple[str, ...]:
    settings = group.as_torch(run.optimizer.base_lr, run.optimizer.weight_decay)
    multiplier, peak = f"{group.lr_multiplier:g}", f"{settings['peak_lr']:g}"
    if isinstance(split, LoadBasedConfig) and group.role is Role.expert:
        multiplier, peak = f"{multiplier} r", f"{peak} r"
    size = sum(p.numel() for p in group.params)
    schedule, decay = run.schedule.of(group.role).kind, f"{settings['weight_decay']:g}"
    return group.role.value, str(len(group.params)), f"{size:,}", multiplier, peak, schedule, decay


def _notes(run: RunConfig, split: LrSplitConfig) -> Iterator[str]:
    yield f"optimizer={run.optimizer.kind}, base_lr {run.optimizer.base_lr:g}, {run.trainer.steps} steps"
    if isinstance(split, LoadBasedConfig):
        yield f"r, anew for each expert in every step: {_ratio(split)}"
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
