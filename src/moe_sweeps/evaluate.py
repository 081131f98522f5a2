"""Evaluation on the validation set. It changes no state: no balancer update, no random numbers, no gradients.

Axes: B sequences, S positions, L MoE layers, E experts, T tokens, K picks per token, D domains of the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.balancing import Balancer, balance_loss, z_loss
from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.data.batches import Batch, chosen_windows, val_batches, window_count, window_domains
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.load import DomainLoads, LoadCounter
from moe_sweeps.metrics import maxvio
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.router import Routing
from moe_sweeps.model.transformer import LayerRanking, Transformer
from moe_sweeps.routing_samples import sample_inputs_BS
from moe_sweeps.sharding import is_sharded


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one pass over (part of) the validation set found."""

    loss: float  # mean cross-entropy in nats, no auxiliary term
    accuracy: float  # share of next tokens that were the model's first choice
    tokens: int
    load_LE: Tensor | None  # int64, picks over the whole pass; None without experts
    domain_load_DLE: Tensor | None = None  # int64, the same by domain; None unless it was asked for
    probs_LE: Tensor | None = None  # float64, router probabilities summed over tokens
    z_loss: float | None = None  # mean over tokens and layers of logsumexp(z)^2, without its coefficient

    def metrics(self) -> dict[str, float]:
        """The numbers by the names they have in metrics.jsonl and, with "val_" before them, in summary.json."""
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

    def evaluate(self, max_sequences: int | None = None, alive: Callable[[], None] | None = None) -> Evaluation:
        """Evaluate on `max_sequences` windows spread over the validation set, or on all of it.

        The processes of a run share the windows, and all of them have the result. `alive` is called at every batch.
        """
        settings = self.settings
        chosen = len(chosen_windows(window_count(self.data.val, settings.seq_len), max_sequences))
        # With fewer windows than processes every process takes them all.
        ranks = self.ranks if chosen >= self.ranks.size else ALONE
        part = ranks.share_of(chosen)
        batches = val_batches(self.data.val, settings.seq_len, settings.eval_batch_size, max_sequences, part)
        return evaluate(
            self.model,
            _calling(alive, batches) if alive else batches,
            passes=self._passes(chosen, ranks) if is_sharded(self.model) else 0,
            ranking=self.balancer.ranking_TE,
            compute=self.compute,
            domains=domain_loads(self.data, settings.seq_len, max_sequences, part) if settings.monitor else None,
            ranks=ranks,
        )

    def _passes(self, chosen: int, ranks: Ranks) -> int:
        """Batches of the process that has most of them, when `ranks` share `chosen` windows."""
        return math.ceil(math.ceil(chosen / ranks.size) / self.settings.eval_batch_size)

    def sample_LTK(self) -> Tensor:
        """The experts that each token of a fixed sample of the validation set is sent to, int64 (L, T, K).

        Of a sharded model all processes must ask.
        """
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
    ranks: Ranks = ALONE,
    passes: int = 0,
) -> Evaluation:
    """Mean over all tokens of all `ranks`' `batches` of (inputs_BS, targets_BS); `domains` counts loads by domain.

    Each of `ranks` has batches of its own, at least one. The processes of a sharded model pass forward together, so
    that one with fewer than `passes` batches repeats its last one, for the others' sake.
    """
    model.eval()
    load, device = LoadCounter(), compute.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    router: dict[str, Tensor] = {}
    correct = torch.zeros((), dtype=torch.int64, device=device)
    tokens = torch.zeros((), dtype=torch.int64, device=device)
    done = 0
    for done, (inputs_BS, targets_BS) in enumerate(batches, start=1):  # noqa: B007
        with compute.context():
            output = model(compute.hold(inputs_BS), compute.hold(targets_BS), ranking=ranking)
        loss += output.token_loss_BS.sum(dtype=torch.float64)
        correct += output.correct_BS.sum()
        tokens += targets_BS.numel()
        load.add(output.routings)
        for name, value in router_sums(output.routings).items():
            router[name] = router[name] + value if name in router else value
        if domains and output.routings:
            domains.add(output.routings, len(inputs_BS))
    for _ in range(passes - done):
        with compute.context():
            model.routings(compute.hold(inputs_BS), ranking)
    model.train()
    found = {"loss": loss, "correct": correct, "tokens": tokens} | router
    loads = {"load_LE": load.total(), "domain_load_DLE": domains.total() if domains else None}
    total = ranks.sum(found | {name: value for name, value in loads.items() if value is not None})
    count = int(total["tokens"].item())
    return Evaluation(
        total["loss"].item() / count,
        total["correct"].item() / count,
        count,
        total.get("load_LE"),
        total.get("domain_load_DLE"),
        total.get("probs_LE"),
        total["z_loss"].item() / count if "z_loss" in total else None,
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
    inputs_BS = inputs_BS.to(compute.device)
    with compute.context():
        routings = model(inputs_BS, inputs_BS, ranking=ranking).routings
    model.train()
    return torch.stack([r.ids_TK for r in routings])
