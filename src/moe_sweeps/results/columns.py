"""The numbers of a table: which, in which unit, with how many digits, and which direction is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of numbers: `factor` turns the stored unit into the one of the header; `axis` is for figures."""

    column: str
    header: str
    digits: int
    factor: float = 1.0
    lower_is_better: bool = True
    axis: str = ""

    def spell(self, value: float, *, sign: bool = False) -> str:
        """`value` as the table shows it."""
        return f"{value * self.factor:{'+' if sign else ''}.{self.digits}f}"


METRICS = (
    Metric("val_loss", "val loss", 4, axis="validation loss (nats a token)"),
    Metric("val_perplexity", "perplexity", 2, axis="validation perplexity"),
    Metric("val_accuracy", "accuracy %", 2, factor=100.0, lower_is_better=False, axis="next-token accuracy (%)"),
    Metric("val_maxvio_global", "MaxVio global", 3, axis="MaxVio on validation (0 = balanced)"),
    Metric("train_maxvio_batch", "MaxVio batch", 3, axis="MaxVio of a batch, end of training (0 = balanced)"),
)
# What some tables show besides: `metrics` of their definition. Both without their coefficients.
FURTHER = (
    Metric("val_load_balancing_loss", "L_norm", 4, axis="load-balancing loss on validation (1 = balanced)"),
    Metric("val_z_loss", "z-loss", 4, axis="router z-loss on validation"),
)
PRIMARY = METRICS[0]  # the one whose differences are tested: one family of tests a table
BY_COLUMN = {metric.column: metric for metric in (*METRICS, *FURTHER)}
