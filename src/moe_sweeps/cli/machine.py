"""What this machine and its text must be able to do before any run has a folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from moe_sweeps.config.groups import KernelChoice
from moe_sweeps.data.batches import TrainBatches, val_batches
from moe_sweeps.data.prepare import prepared
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.experiment.identity import identity
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.hardware import resolve_device
from moe_sweeps.kernels import Arithmetic
from moe_sweeps.paths import resolve
from moe_sweeps.records.rundir import FINISHED, RunDir
from moe_sweeps.sweep.fitting import require_memory


def check_machine_and_data(runs: Sequence[RunConfig]) -> None:
    """Refuse what this machine or the text cannot do, before any run has a folder."""
    for run in {r.engine.device: r for r in runs}.values():
        resolve_device(run.engine.device)
    for choice in {getattr(run.engine, "kernels", KernelChoice.auto) for run in runs if not _is_over(run)}:
        _require_kernels(choice)  # megatron has none of these
    check_data(runs)


def _is_over(run: RunConfig) -> bool:
    """Whether the run has ended already, so that no kernels are needed."""
    with suppress(MoeSweepsError, OSError):
        folder = RunDir.find(resolve(run.paths.runs), identity(run)["run_id"])
        return folder is not None and folder.status().state in FINISHED
    return False


def _require_kernels(choice: KernelChoice) -> None:
    obstacle = Arithmetic(choice.value).obstacle() if choice.value in list(Arithmetic) else None
    if obstacle:
        raise ConfigError(
            "engine.kernels", choice.value, obstacle, "Use engine.kernels=auto, which takes what there is."
        )


def check_memory_machine_and_data(runs: Sequence[RunConfig]) -> None:
    """The same, and refuse what this machine has no memory for."""
    require_memory(runs)
    check_machine_and_data(runs)


def check_data(runs: Sequence[RunConfig]) -> None:
    """Refuse runs for which the text is too short; prepare it on first use."""
    for run in {repr((r.data, r.trainer)): r for r in runs}.values():
        data = prepared(run.data, resolve(run.paths.data))
        TrainBatches(data.train, run.trainer.seq_len, run.trainer.batch_size, data_seed=0)
        val_batches(data.val, run.trainer.seq_len, run.trainer.eval_batch_size)
