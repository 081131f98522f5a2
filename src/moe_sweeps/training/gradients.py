"""Gradients of one optimizer step: summed over micro-batches, averaged over processes, then clipped.

Each process cuts its slice of the global batch into micro-batches. Gradients are averaged over the processes in the
last backward pass of the step. Loss terms and loads are summed over the processes once, at the end of the step.

Axes: B sequences of the micro-batch, S positions, L MoE layers, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.balancing import Balancer, z_loss
from moe_sweeps.balancing.load import LoadCounter
from moe_sweeps.data.batches import Batch
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.distributed.sharding import total_norm
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.compiling import compiled
from moe_sweeps.model.moe import narrow_experts
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.router import RouterConfig, Routing
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.optim.groups import role_of
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.training.monitor import RouterMonitor
from moe_sweeps.training.randomness import random_state, restore_random_state
from moe_sweeps.training.step_timer import StepTimer

_CLIP_EPSILON = 1e-6  # what torch adds to the norm before it divides by it


@dataclass(frozen=True, slots=True)
class StepResult:
    """What was found beside the gradients of one global batch. Scalars stay on the device, without synchronisation."""

    values: dict[str, Tensor]  # loss terms, means over the global batch, and the gradient's norm before clipping
    load_LE: Tensor | None  # int64, picks of the global batch; None without experts
    divisor: Tensor | None = None  # what the optimizer must still divide the gradients by, to clip them


class Gradients:
    """Computes the gradients of one run's model, one global batch at a time."""

    def __init__(
        self,
        run: RunConfig,
        model: Transformer,
        balancer: Balancer,
        monitor: RouterMonitor,
        compute: Compute,
        timer: StepTimer,
        ranks: Ranks = ALONE,
        *,
        compiles: bool = False,
        leaves_division: bool = False,
    ) -> None:
        """`leaves_division`: whether the optimizer divides gradients to clip them, in a pass that it makes anyway."""
        self.run, self.model, self.balancer, self.monitor = run, model, balancer, monitor
        self.compute, self.timer, self.ranks = compute, timer, ranks
        # What to call where a backward pass follows.
        called = compiled(model) if compiles else model
        self.replicated = ranks.replicated(called)
        self.num_micro_batches = run.trainer.micro_batches // ranks.size
        self.leaves_division = leaves_division and run.trainer.grad_clip > 0
        if self.replicated is not called:
            self._settle_buckets()

    def accumulate(self, batch: Batch, *, progress: float) -> StepResult:
        """Leave the clipped gradients of the global batch in the parameters; `batch` is this process's slice of it.

        `progress`: the share of the run's steps that are done, 0 in the first step.
        """
        load = LoadCounter()
        totals: dict[str, Tensor] = {}
        with self._narrow_experts():
            self._sum_gradients(batch, totals, load, progress)
        self.monitor.add_gradients()
        clip_router_gradients(self.model, self.run.router)
        limit = self.run.trainer.grad_clip
        norm = clip_gradients(self.model, 0 if self.leaves_division else limit)
        means, load_LE = self._over_ranks(totals, load.total())
        return StepResult(
            means | {"grad_norm": norm}, load_LE, clip_divisor(norm, limit) if self.leaves_division else None
        )

    def _sum_gradients(self, batch: Batch, totals: dict[str, Tensor], load: LoadCounter, progress: float) -> None:
        """Sum gradients, loss terms and picks over the micro-batches."""
        step_load_LE = self.step_load(batch) if self.balancer.needs_step_load else None
        for i, micro_batch in enumerate(self._micro_batches(batch), start=1):
            with self.ranks.averaging(self.replicated, when=i == self.num_micro_batches):
                terms = self._forward_backward(micro_batch, load, step_load_LE, progress)
            for name, value in terms.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.compute.device)) + value

    def _narrow_experts(self) -> AbstractContextManager[None]:
        """The experts' weights in the products' dtype for the whole step, where several forward passes need them."""
        several = self.num_micro_batches > 1 or self.balancer.needs_step_load
        return narrow_experts(self.model, self.compute) if several else nullcontext()

    def _over_ranks(self, terms: dict[str, Tensor], load_LE: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Means of the loss terms and the sum of the loads over all processes, in one message."""
        if self.ranks.size == 1:
            return terms, load_LE
        found = self.ranks.all_reduce(terms | ({} if load_LE is None else {"load_LE": load_LE}))
        load_LE = found.pop("load_LE", None)
        return {name: value / self.ranks.size for name, value in found.items()}, load_LE

    def _settle_buckets(self) -> None:
        """Run the backward pass that `Ranks.replicated` asks for. It leaves no gradient and no random number drawn."""
        random = random_state(self.compute.device)
        shape = (self.run.trainer.micro_batch_size, self.run.trainer.seq_len)
        nothing_BS = torch.zeros(shape, dtype=torch.int64, device=self.compute.device)
        with self.compute.context():  # two tensors, because code compiled for one would be compiled again
            output = self.replicated(nothing_BS, nothing_BS.clone(), ranking=self.balancer.ranking_TE)
        output.loss.backward()
        self.model.zero_grad(set_to_none=True)
        restore_random_state(random, self.compute.device)

    def step_load(self, batch: Batch) -> Tensor | None:
        """Picks of the step's global batch, (L, E), before its first backward pass; None where it is one micro-batch.

        This takes a forward pass without gradients and output head, which makes a step about a third slower. The
        training pass draws the same random numbers again.
        """
        if self.run.trainer.micro_batches == 1:
            return None  # which implies that there is one process
        load, random = LoadCounter(), random_state(self.compute.device)
        with torch.no_grad(), self.compute.context(), self.timer.part("forward"):
            for inputs_BS, _ in self._micro_batches(batch):
                load.add(self.model.routings(inputs_BS, self.balancer.ranking_TE))
        restore_random_state(random, self.compute.device)
        load_LE = load.total()
        return None if load_LE is None else self.ranks.all_reduce({"load_LE": load_LE})["load_LE"]

    def _forward_backward(
        self, micro_batch: Batch, load: LoadCounter, step_load_LE: Tensor | None, progress: float
    ) -> dict[str, Tensor]:
        """Add the gradients of one micro-batch. Returns its part of each loss term's mean over the process's slice."""
        share = 1 / self.num_micro_batches
        with self.timer.part("forward"):
            terms, routings = self._loss_terms(micro_batch, step_load_LE)
            total = torch.stack(list(terms.values())).sum() * share
        with self.timer.part("backward"):
            total.backward()
        if routings:
            self.balancer.observe(routings, progress=progress)
            load.add(routings)
        self.monitor.add_micro_batch(routings)
        return {name: term.detach() * share for name, term in terms.items()}

    def _loss_terms(
        self, micro_batch: Batch, step_load_LE: Tensor | None
    ) -> tuple[dict[str, Tensor], tuple[Routing, ...]]:
        """The terms of one micro-batch's loss by name, and one routing for each MoE layer."""
        inputs_BS, targets_BS = micro_batch
        with self.compute.context():
            output = self.replicated(inputs_BS, targets_BS, ranking=self.balancer.ranking_TE)
        assert output.loss is not None
        terms = {"loss": output.loss}
        if output.routings:
            balance = self.balancer.loss(output.routings, num_sequences=inputs_BS.shape[0], step_load_LE=step_load_LE)
            terms |= {} if balance is None else {"aux_loss": balance}
            if self.run.router.z_loss:
                terms["z_loss"] = self.run.router.z_loss * z_loss(output.routings)
        return terms, output.routings

    def _micro_batches(self, batch: Batch) -> Iterator[Batch]:
        inputs_BS, targets_BS = batch
        size = self.run.trainer.micro_batch_size
        for inputs, targets in zip(inputs_BS.split(size), targets_BS.split(size), strict=True):
            yield self.compute.to_device(inputs), self.compute.to_device(targets)


def clip_divisor(norm: Tensor, limit: float) -> Tensor:
    """What gradients of this norm are divided by to be clipped to `limit`: a scalar, 1 where they stay as they are."""
    return ((norm + _CLIP_EPSILON) / limit).clamp(min=1.0)


def clip_gradients(model: torch.nn.Module, limit: float) -> Tensor:
    """Scale the gradients to a global norm of at most `limit`; 0 turns it off. Returns the norm before scaling."""
    norm = total_norm(p.grad for p in model.parameters() if p.grad is not None)
    if limit and not _changes_nothing(norm, limit):
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    return norm


def _changes_nothing(norm: Tensor, limit: float) -> bool:
    """Whether clipping would multiply by 1, and cost a pass over all gradients for nothing.

    Checking would synchronise the GPU, so there the answer is no, and it clips unconditionally.
    """
    return norm.device.type == "cpu" and bool(norm + _CLIP_EPSILON <= limit)


def clip_router_gradients(model: torch.nn.Module, config: RouterConfig) -> None:
    """Clip the router's gradients alone: each entry to `clip_value`, then their norm to `clip_norm`; 0 turns it off."""
    if not (config.clip_value or config.clip_norm):
        return
    params = [p for name, p in model.named_parameters() if role_of(name) is Role.router]
    if config.clip_value:
        torch.nn.utils.clip_grad_value_(params, config.clip_value)
    if config.clip_norm:
        norm = total_norm(p.grad for p in params if p.grad is not None)
        torch.nn.utils.clip_grads_with_norm_(params, config.clip_norm, norm)
