"""Evaluation on the validation set. It changes no state: no balancer update, no random number, no gradient.

Axes: B sequences, S positions, L MoE layers, E experts, T tokens, K picks per token, D domains of the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.balancing import Balancer, balance_loss, z_loss
from moe_sweeps.balancing.load import DomainLoads, LoadCounter
from moe_sweeps.balancing.metrics import maxvio
from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.data.batches import Batch, chosen_windows, val_batches, window_count, window_domains
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.distributed.sharding import is_sharded
from moe_sweeps.model.moe import narrow_experts
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.router import Routing
from moe_sweeps.model.transformer import LayerRanking, ModelOutput, Transformer
from moe_sweeps.training.routing_samples import sample_inputs_BS


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of one pass over the validation set, or a part of it."""

    loss: float  # mean cross-entropy in nats, no auxiliary term
    accuracy: float  # share of next tokens that were the model's first choice
    tokens: int
    load_LE: Tensor | None  # int64, picks over the whole pass; None for a model without experts
    domain_load_DLE: Tensor | None = None  # int64, the same by domain; None unless requested
    probs_LE: Tensor | None = None  # float64, router probabilities summed over tokens
    z_loss: float | None = None  # mean over tokens and layers of logsumexp(z)^2, without its coefficient

    def metrics(self) -> dict[str, float]:
        """The numbers by their names in metrics.jsonl. In summary.json these have the prefix "val_"."""
        values = {"loss": self.loss, "perplexity": math.exp(min(self.loss, 700.0)), "accuracy": self.accuracy}
        return values | self._routing_metrics()

    def _routing_metrics(self) -> dict[str, float]:
        if self.load_LE is None or self.probs_LE is None or self.z_loss is None:
            return {}
        balance = balance_loss(counts_E=self.load_LE, probs_TE=self.probs_LE.unsqueeze(-2) / self.tokens).item()
        return {"maxvio_global": maxvio(self.load_LE).item(), "load_balancing_loss": balance, "z_loss": self.z_loss}


class Validation:
    """Evaluates one run's model on its validation data."""

    def __init__(
        self,
        settings: TrainerConfig,
        data: TokenData,
        model: Transformer,
        balancer: Balancer,
        compute: Compute,
        ranks: Ranks = ALONE,
    ) -> None:
        self.settings, self.data, self.model, self.balancer = settings, data, model, balancer
        self.compute, self.ranks = compute, ranks

    def evaluate(self, max_sequences: int | None = None) -> Evaluation:
        """Evaluate on `max_sequences` windows spread over the validation set, or on all of it.

        The processes of a run share the windows, and all of them return the result.
        """
        settings = self.settings
        chosen = len(chosen_windows(window_count(self.data.val, settings.seq_len), max_sequences))
        # With fewer windows than processes, every process evaluates all of them.
        ranks = self.ranks if chosen >= self.ranks.size else ALONE
        part = ranks.share_of(chosen)
        batches = val_batches(self.data.val, settings.seq_len, settings.eval_batch_size, max_sequences, part)
        return evaluate(
            self.model,
            batches,
            passes=self._passes(chosen, ranks) if is_sharded(self.model) else 0,
            ranking=self.balancer.ranking_TE,
            compute=self.compute,
            domains=domain_loads(self.data, settings.seq_len, max_sequences, part) if settings.monitor else None,
            ranks=ranks,
        )

    def _passes(self, chosen: int, ranks: Ranks) -> int:
        """The largest number of batches that a process has when `ranks` share `chosen` windows."""
        return math.ceil(math.ceil(chosen / ranks.size) / self.settings.eval_batch_size)

    def sample_LTK(self) -> Tensor:
        """The experts that each token of a fixed sample of the validation set is sent to, int64 (L, T, K).

        If the model is sharded, all processes must call this.
        """
        inputs_BS = sample_inputs_BS(self.data.val, self.settings.seq_len)
        return picks_LTK(self.model, inputs_BS, ranking=self.balancer.ranking_TE, compute=self.compute)


@torch.no_grad()
def evaluate(
    model: Transformer,
    batches: Iterable[Batch],
    *,
    ranking: LayerRanking,
    compute: Compute,
    domains: DomainLoads | None = None,
    ranks: Ranks = ALONE,
    passes: int = 0,
) -> Evaluation:
    """Means over all tokens of the `batches` (inputs_BS, targets_BS) of all `ranks`; `domains` counts loads by domain.

    Each of `ranks` has batches of its own, at least one. The processes of a sharded model must run their forward passes
    together. So a process with fewer than `passes` batches repeats its last one and ignores what it finds.
    """
    model.eval()
    sums, done = _Sums(compute.device, domains), 0
    with narrow_experts(model, compute):
        for done, (inputs_BS, targets_BS) in enumerate(batches, start=1):  # noqa: B007
            with compute.context():
                output = model(compute.to_device(inputs_BS), compute.to_device(targets_BS), ranking=ranking)
            sums.add(output)
        for _ in range(passes - done):
            with compute.context():
                model.routings(compute.to_device(inputs_BS), ranking)
    model.train()
    return sums.evaluation(ranks)


class _Sums:
    """Sums over the batches of an evaluation in one process, on the device."""

    def __init__(self, device: torch.device, domains: DomainLoads | None) -> None:
        self._load, self._domains = LoadCounter(), domains
        whole = {name: torch.zeros((), dtype=torch.int64, device=device) for name in ("correct", "tokens")}
        self._sums = {"loss": torch.zeros((), dtype=torch.float64, device=device)} | whole

    def add(self, output: ModelOutput) -> None:
        """Add one batch, whose `output` is that of a forward pass with targets."""
        assert output.token_loss_BS is not None
        assert output.correct_BS is not None
        self._sums["loss"] += output.token_loss_BS.sum(dtype=torch.float64)
        self._sums["correct"] += output.correct_BS.sum()
        self._sums["tokens"] += output.token_loss_BS.numel()
        for name, value in router_sums(output.routings).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._load.add(output.routings)
        if self._domains and output.routings:
            self._domains.add(output.routings, len(output.token_loss_BS))

    def evaluation(self, ranks: Ranks) -> Evaluation:
        """Means over the batches of all `ranks`."""
        loads = {"load_LE": self._load.total(), "domain_load_DLE": self._domains.total() if self._domains else None}
        total = ranks.all_reduce(self._sums | {name: load for name, load in loads.items() if load is not None})
        count = int(total["tokens"].item())
        return Evaluation(
            loss=total["loss"].item() / count,
            accuracy=total["correct"].item() / count,
            tokens=count,
            load_LE=total.get("load_LE"),
            domain_load_DLE=total.get("domain_load_DLE"),
            probs_LE=total.get("probs_LE"),
            z_loss=total["z_loss"].item() / count if "z_loss" in total else None,
        )


def router_sums(routings: Sequence[Routing]) -> dict[str, Tensor]:
    """Sums over a batch's tokens, float64: router probabilities (L, E) and the z-loss; empty without experts."""
    if not routings:
        return {}
    probs_LE = torch.stack([r.probs_TE.sum(dim=0, dtype=torch.float64) for r in routings])
    return {"probs_LE": probs_LE, "z_loss": z_loss(routings).to(torch.float64) * len(routings[0].probs_TE)}


def domain_loads(data: TokenData, seq_len: int, max_sequences: int | None, part: slice = slice(None)) -> DomainLoads:
    """A counter for the windows that `val_batches` yields."""
    domain_N = window_domains(data, "val", seq_len)
    return DomainLoads(domain_N[chosen_windows(len(domain_N), max_sequences)[part]].tolist(), len(data.domains))


@torch.no_grad()
def picks_LTK(model: Transformer, inputs_BS: Tensor, *, ranking: LayerRanking, compute: Compute) -> Tensor:
    """The experts that each token of `inputs_BS` is sent to, int64 (L, T, K)."""
    model.eval()
    inputs_BS = compute.to_device(inputs_BS)
    with compute.context():
        routings = model(inputs_BS, inputs_BS, ranking=ranking).routings
    model.train()
    return torch.stack([r.ids_TK for r in routings])
