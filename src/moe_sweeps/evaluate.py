"""Evaluation on the validation set. It changes no state: no balancer update, no random numbers, no gradients.

Axes: B sequences, S positions, L MoE layers, E experts, T tokens, K picks per token, D domains of the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.balancing import Balancer
from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.data.batches import Batch, chosen_windows, val_batches, window_domains
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.load import DomainLoads, LoadCounter
from moe_sweeps.metrics import maxvio
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.transformer import LayerRanking, Transformer
from moe_sweeps.routing_samples import sample_inputs_BS


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one pass over (part of) the validation set found."""

    loss: float  # mean cross-entropy in nats, no auxiliary term
    accuracy: float  # share of next tokens that were the model's first choice
    tokens: int
    load_LE: Tensor | None  # int64, picks over the whole pass; None without experts
    domain_load_DLE: Tensor | None = None  # int64, the same by domain; None unless it was asked for

    def metrics(self) -> dict[str, float]:
        """The numbers by the names they have in metrics.jsonl and, with "val_" before them, in summary.json."""
        values = {"loss": self.loss, "perplexity": math.exp(min(self.loss, 700.0)), "accuracy": self.accuracy}
        return values | ({} if self.load_LE is None else {"maxvio_global": maxvio(self.load_LE).item()})


class Validation:
    """Evaluates one run's model on its validation data."""

    def __init__(
        self, settings: TrainerConfig, data: TokenData, model: Transformer, balancer: Balancer, compute: Compute
    ) -> None:
        self.settings, self.data, self.model, self.balancer, self.compute = settings, data, model, balancer, compute

    def evaluate(self, max_sequences: int | None = None, alive: Callable[[], None] | None = None) -> Evaluation:
        """Evaluate on `max_sequences` windows spread over the validation set, or on all of it.

        `alive` is called at every batch.
        """
        settings = self.settings
        batches = val_batches(self.data.val, settings.seq_len, settings.eval_batch_size, max_sequences)
        return evaluate(
            self.model,
            _calling(alive, batches) if alive else batches,
            ranking=self.balancer.ranking_TE,
            compute=self.compute,
            domains=domain_loads(self.data, settings.seq_len, max_sequences) if settings.monitor else None,
        )

    def sample_LTK(self) -> Tensor:
        """The experts that each token of a fixed sample of the validation set is sent to, int64 (L, T, K)."""
        inputs_BS = sample_inputs_BS(self.data.val, self.settings.seq_len)
        return picks_LTK(self.model, inputs_BS, ranking=self.balancer.ranking_TE, compute=self.compute)


def _calling(function: Callable[[], None], batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        function()
        yield batch


@torch.no_grad()
def evaluate(
    model: Transformer,
    batches: Iterable[Batch],
    *,
    ranking: LayerRanking,
    compute: Compute,
    domains: DomainLoads | None = None,
) -> Evaluation:
    """Mean over all tokens of `batches` of (inputs_BS, targets_BS); `domains` counts loads by domain."""
    model.eval()
    load, device = LoadCounter(), compute.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    tokens = 0
    for inputs_BS, targets_BS in batches:
        with compute.context():
            output = model(inputs_BS.to(device), targets_BS.to(device), ranking=ranking)
        loss += output.token_loss_BS.sum(dtype=torch.float64)
        correct += output.correct_BS.sum()
        tokens += targets_BS.numel()
        load.add(output.routings)
        if domains and output.routings:
            domains.add(output.routings, len(inputs_BS))
    model.train()
    by_domain_DLE = domains.total() if domains else None
    return Evaluation(loss.item() / tokens, correct.item() / tokens, tokens, load.total(), by_domain_DLE)


def domain_loads(data: TokenData, seq_len: int, max_sequences: int | None) -> DomainLoads:
    """A counter for the windows that `val_batches` yields."""
    domain_N = window_domains(data, "val", seq_len)
    return DomainLoads(domain_N[chosen_windows(len(domain_N), max_sequences)].tolist(), len(data.domains))


@torch.no_grad()
def picks_LTK(model: Transformer, inputs_BS: Tensor, *, ranking: LayerRanking, compute: Compute) -> Tensor:
    """The experts that each token of `inputs_BS` is sent to, int64 (L, T, K)."""
    model.eval()
    inputs_BS = inputs_BS.to(compute.device)
    with compute.context():
        routings = model(inputs_BS, inputs_BS, ranking=ranking).routings
    model.train()
    return torch.stack([r.ids_TK for r in routings])
