"""Evaluation on the validation set. It changes no state: no balancer update, no random numbers, no gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.load import LoadCounter
from moe_sweeps.metrics import maxvio
from moe_sweeps.model.transformer import LayerRanking, Transformer


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one pass over (part of) the validation set found."""

    loss: float  # mean cross-entropy in nats, no auxiliary term
    accuracy: float  # share of next tokens that were the model's first choice
    tokens: int
    load_LE: Tensor | None  # int64, picks over the whole pass; None without experts

    def metrics(self) -> dict[str, float]:
        """The numbers by the names they have in metrics.jsonl and, with "val_" before them, in summary.json."""
        values = {"loss": self.loss, "perplexity": math.exp(min(self.loss, 700.0)), "accuracy": self.accuracy}
        return values | ({} if self.load_LE is None else {"maxvio_global": maxvio(self.load_LE).item()})


@torch.no_grad()
def evaluate(
    model: Transformer,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    ranking: LayerRanking,
    device: torch.device,
    autocast: bool,
) -> Evaluation:
    """Mean over all tokens of `batches` of (inputs_BS, targets_BS)."""
    model.eval()
    load = LoadCounter()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    tokens = 0
    for inputs_BS, targets_BS in batches:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            output = model(inputs_BS.to(device), targets_BS.to(device), ranking=ranking)
        loss += output.token_loss_BS.sum(dtype=torch.float64)
        correct += output.correct_BS.sum()
        tokens += targets_BS.numel()
        load.add(output.routings)
    model.train()
    return Evaluation(loss.item() / tokens, correct.item() / tokens, tokens, load.total())
