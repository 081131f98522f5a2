"""How a run begins at a trunk's checkpoint: what of the trunk's state it takes, and what begins anew.

Weights, the optimizer's state, random streams, collapse watch and open log intervals are the trunk's. The optimizer's
settings are the run's own. A balancer and the ratios of a load-based split keep their state where the trunk has the
same kind, and otherwise are as at step 0. docs/forks.md says so kind by kind.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.errors import Interrupted, MoeSweepsError, RunBusyError, RunFolderError
from moe_sweeps.experiment.frozen_run import frozen_run
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.code_record import records
from moe_sweeps.records.genuine import SEED_KEYS
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.training.checkpoint import Checkpoints

log = logging.getLogger(__name__)
WAIT_SECONDS = 1.0
TrainTrunk = Callable[[RunDir], State]
AGAIN = "Type the line of the sweep again: it trains the trunk again."


@dataclass(frozen=True, slots=True)
class Trunk:
    """The trunk of a run, and the step at which the run leaves it."""

    folder: RunDir
    run: RunConfig
    step: int

    @classmethod
    def of(cls, run: RunConfig, folder: RunDir) -> Trunk:
        """The trunk of `run`, whose folder lies beside it. The plan has compared the two (experiment/forking.py).

        Raises:
            RunFolderError: there is no such folder, or it is of another recipe.
        """
        found = RunDir.find(folder.path.parent, run.fork.run or "")
        if found is None:
            raise RunFolderError(f"{folder.path.name}: its trunk {run.fork.run} has no folder here. {AGAIN}")
        _require_recipe(run, found)
        assert run.fork.step is not None
        return cls(found, frozen_run(found), run.fork.step)

    def state(self) -> dict[str, Any]:
        """The trunk's state after its last step; its tensors may lie in a file.

        Raises:
            OSError, ValueError, KeyError, ...: the checkpoint is missing or damaged.
        """
        return Checkpoints(self.folder.checkpoints, 1).load(self.step, torch.device("cpu"))

    def is_intact(self) -> bool:
        """Whether the checkpoint is complete, with the checksum that it was written with."""
        return Checkpoints(self.folder.checkpoints, 1).is_intact(self.step)

    def record(self) -> dict[str, Any]:
        """What provenance.json keeps of it: where the run began, and which code had trained it up to there."""
        kept = [record.entry() for record in records(self.folder.provenance())]
        name = {"run_id": self.folder.run_id, "folder": self.folder.path.name, "step": self.step}
        stamp = Checkpoints(self.folder.checkpoints, 1).stamp(self.step)
        return name | {"checkpoint": stamp["sha256"], "attempts": kept}


def _require_recipe(run: RunConfig, trunk: RunDir) -> None:
    found = trunk.identity()
    canonical = found.get("canonical") or {}
    seeds = run.seed, run.effective_data_seed
    if found.get("arm") != run.fork.arm or tuple(canonical.get(key) for key in SEED_KEYS) != seeds:
        raise RunFolderError(f"{trunk.path} is not the trunk that this run was planned with. {AGAIN}")


def ready_trunk(trunk: Trunk, train: TrainTrunk, ranks: Ranks, should_stop: Callable[[], bool]) -> None:
    """Have the trunk trained: `train` it here unless it has its checkpoint, and wait while another worker does.

    Raises:
        Interrupted: the process was asked to stop meanwhile.
        MoeSweepsError: it failed, diverged or was cancelled, so that nothing can continue from it.
    """
    while not _is_ready(trunk, ranks):
        _require_hope(trunk, ranks)
        log.info("first the trunk, %s, up to step %d", trunk.folder.path.name, trunk.step)
        try:
            state = train(trunk.folder)
        except RunBusyError:
            state = State.running
            time.sleep(WAIT_SECONDS)
        if ranks.any(should_stop() or state is State.preempted):
            raise Interrupted(f"stopped before its trunk {trunk.folder.path.name} had reached step {trunk.step}")


def _is_ready(trunk: Trunk, ranks: Ranks) -> bool:
    """Whether the checkpoint can be used. One that is lost or damaged is made again by resuming the trunk."""
    ready = False
    if ranks.is_first and trunk.folder.status().state is State.done:
        ready = trunk.is_intact()
        if not ready:
            _reopen(trunk)
    return ranks.any(ready)


def _reopen(trunk: Trunk) -> None:
    """Let the trunk be trained to its end again, from an earlier checkpoint or from the beginning."""
    with trunk.folder.lock(wait=WAIT_SECONDS):
        if trunk.is_intact():  # another worker was faster
            return
        status = trunk.folder.status()
        if status.state is State.done:
            log.warning("%s: its checkpoint is missing or damaged; it is trained again", trunk.folder.path.name)
            status.state = State.preempted
            trunk.folder.write_status(status)


def _require_hope(trunk: Trunk, ranks: Ranks) -> None:
    state = trunk.folder.status().state
    if ranks.any(state in (State.failed, State.diverged, State.cancelled)):
        fix = f"`moe-sweeps explain {trunk.folder.run_id}` says what it is; `moe-sweeps retry` trains it again."
        raise MoeSweepsError(f"its trunk {trunk.folder.path.name} is {state}, so nothing can continue from it. {fix}")


# --- the state --------------------------------------------------------------------------------------------------------


def continued(state: dict[str, Any], own: Mapping[str, Any], trunk: RunConfig, run: RunConfig) -> dict[str, Any]:
    """The state with which `run` continues from `state` of its trunk. `own`: the state that it has at step 0."""
    found = {name: state.get(name, fresh) for name, fresh in own.items()}
    found["stepper"] = _stepper(state["stepper"], own["stepper"], trunk, run)
    same_balancer = run.balancer.kind == trunk.balancer.kind and _alike(state["balancer"], own["balancer"])
    if not same_balancer:
        found["balancer"] = own["balancer"]
    if not (same_balancer and _kind_of_split(run) == _kind_of_split(trunk) and state.get("monitor")):
        found["monitor"] = own["monitor"]  # sums of quantities that only one of them has
    return found


def _stepper(state: Mapping[str, Any], own: Mapping[str, Any], trunk: RunConfig, run: RunConfig) -> dict[str, Any]:
    """The optimizer's tensors of the trunk under the run's own settings: groups differ in those alone."""
    optimizer = {**state["optimizer"], "param_groups": own["optimizer"]["param_groups"]}
    same = _kind_of_split(run) == _kind_of_split(trunk)
    return {"optimizer": optimizer, "ratios": state["ratios"] if same and state["ratios"] else own["ratios"]}


def _kind_of_split(run: RunConfig) -> str:
    return run.lr_split.canonical(run).kind


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two states have the same entries of the same shapes."""
    shapes = [{k: tuple(v.shape) if isinstance(v, Tensor) else None for k, v in s.items()} for s in (one, other)]
    return shapes[0] == shapes[1]


def perturbed(weights: Mapping[str, Any], run: RunConfig) -> dict[str, Any]:
    """The weights with which this replicate begins: w (1 + noise z), z standard normal from (seed, replicate, name).

    Replicate 0 keeps the trunk's. All arms of a trunk get the same perturbation, and tensors are perturbed whole, so
    that the number of processes changes nothing.
    """
    if run.fork.replicate == 0:
        return dict(weights)
    return {name: _noisy(value, name, run) for name, value in weights.items()}


def _noisy(value: Any, name: str, run: RunConfig) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    digest = hashlib.sha256(f"{run.seed}:fork:{run.fork.replicate}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    noise = torch.empty(value.shape, dtype=torch.float32).normal_(generator=generator)
    return value * (1 + run.fork.noise * noise).to(value.dtype)
