"""Gradients of one optimizer step: of every micro-batch of its global batch, averaged over processes, then clipped.

A process has its slice of the global batch and cuts it into micro-batches. Gradients are averaged over the processes in
the last backward pass; loss terms and loads are summed over them once, at the end of the step.

Axes: B sequences of the micro-batch, S positions, L MoE layers, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.balancing import Balancer, z_loss
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.batches import Batch
from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.load import LoadCounter
from moe_sweeps.model.compiling import compiled
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.router import RouterConfig, Routing
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.monitor import RouterMonitor
from moe_sweeps.optim.groups import role_of
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.randomness import random_state, restore_random_state
from moe_sweeps.sharding import total_norm
from moe_sweeps.stopwatch import StepTimer

_CLIP_EPSILON = 1e-6  # what torch adds to the norm before it divides by it


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the gradients of one global batch came with. Scalars stay on the device, and nobody waits for them."""

    values: dict[str, Tensor]  # loss terms, means over the global batch, and the gradient's norm before clipping
    load_LE: Tensor | None  # int64, picks of the global batch; None without experts


class Gradients:
    """Computes the gradients of a model's parameters for one global batch at a time."""

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
    ) -> None:
        self.run, self.model, self.balancer, self.monitor = run, model, balancer, monitor
        self.compute, self.timer, self.ranks = compute, timer, ranks
        # Called where a backward pass follows.
        self.replicated = ranks.replicated(compiled(model) if compiles else model)
        self.num_micro_batches = run.trainer.micro_batches // ranks.size
        if self.replicated is not model:
            self._settle_buckets()

    def accumulate(self, batch: Batch, *, progress: float) -> StepResult:
        """Add up the gradients of `batch`, this process's slice of the global batch, and clip them.

        `progress`: the share of the run's steps that lie behind.
        """
        load = LoadCounter()
        totals: dict[str, Tensor] = {}
        step_load_LE = self.step_load(batch) if self.balancer.needs_step_load else None
        for i, micro_batch in enumerate(self._micro_batches(batch), start=1):
            with self.ranks.averaging(self.replicated, when=i == self.num_micro_batches):
                terms = self._forward_backward(micro_batch, load, step_load_LE, progress)
            for name, value in terms.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.compute.device)) + value
        self.monitor.add_gradients()
        clip_router_gradients(self.model, self.run.router)
        norm = clip_gradients(self.model, self.run.trainer.grad_clip)
        means, load_LE = self._over_ranks(totals, load.total())
        return StepResult(means | {"grad_norm": norm}, load_LE)

    def _over_ranks(self, terms: dict[str, Tensor], load_LE: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Means of the loss terms and the sum of the loads over all processes, in one message."""
        if self.ranks.size == 1:
            return terms, load_LE
        found = self.ranks.sum(terms | ({} if load_LE is None else {"load_LE": load_LE}))
        load_LE = found.pop("load_LE", None)
        return {name: value / self.ranks.size for name, value in found.items()}, load_LE

    def _settle_buckets(self) -> None:
        """A backward pass that leaves nothing behind: see `Ranks.replicated`."""
        random = random_state(self.compute.device)
        shape = (self.run.trainer.micro_batch_size, self.run.trainer.seq_len)
        nothing_BS = torch.zeros(shape, dtype=torch.int64, device=self.compute.device)
        with self.compute.context():
            output = self.replicated(nothing_BS, nothing_BS, ranking=self.balancer.ranking_TE)
        output.loss.backward()
        self.model.zero_grad(set_to_none=True)
        restore_random_state(random, self.compute.device)

    def step_load(self, batch: Batch) -> Tensor | None:
        """Picks of the step's global batch, (L, E), before its first backward pass; None where it is one micro-batch.

        A forward pass without gradient or output head, which makes a step about a third dearer. Random numbers are
        drawn again by the pass that trains.
        """
        if self.run.trainer.micro_batches == 1:
            return None  # which implies that there is one process
        load, random = LoadCounter(), random_state(self.compute.device)
        with torch.no_grad(), self.compute.context(), self.timer.part("forward"):
            for inputs_BS, _ in self._micro_batches(batch):
                load.add(self.model.routings(inputs_BS, self.balancer.ranking_TE))
        restore_random_state(random, self.compute.device)
        load_LE = load.total()
        return None if load_LE is None else self.ranks.sum({"load_LE": load_LE})["load_LE"]

    def _forward_backward(
        self, micro_batch: Batch, load: LoadCounter, step_load_LE: Tensor | None, progress: float
    ) -> dict[str, Tensor]:
        """Gradients of one micro-batch, and its share of each loss term in the mean over this process's slice."""
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
        """The terms of one micro-batch's loss, and how its tokens were routed."""
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
            yield self.compute.hold(inputs), self.compute.hold(targets)


def clip_gradients(model: torch.nn.Module, limit: float) -> Tensor:
    """Scale the gradients to a global norm of at most `limit` (0: not at all); returns the norm before."""
    norm = total_norm(p.grad for p in model.parameters() if p.grad is not None)
    if limit and not _changes_nothing(norm, limit):
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    return norm


def _changes_nothing(norm: Tensor, limit: float) -> bool:
    """Whether clipping would multiply by 1, which is a pass over all gradients. On a GPU the answer is waited for, so
    there nobody asks."""
    return norm.device.type == "cpu" and bool(norm + _CLIP_EPSILON <= limit)


def clip_router_gradients(model: torch.nn.Module, config: RouterConfig) -> None:
    """Clip the router's gradients alone: each entry to `clip_value`, then their common norm to `clip_norm`; 0: not."""
    if not (config.clip_value or config.clip_norm):
        return
    params = [p for name, p in model.named_parameters() if role_of(name) is Role.router]
    if config.clip_value:
        torch.nn.utils.clip_grad_value_(params, config.clip_value)
    if config.clip_norm:
        norm = total_norm(p.grad for p in params if p.grad is not None)
        torch.nn.utils.clip_grads_with_norm_(params, config.clip_norm, norm)
