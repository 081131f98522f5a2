"""The pictures of one run: each function turns a History into a Figure, or raises NotRecorded."""

from moe_sweeps.reports.drawing.balance import balance, usage
from moe_sweeps.reports.drawing.routing import bias, load, saturation, specialisation
from moe_sweeps.reports.drawing.style import STYLE
from moe_sweeps.reports.drawing.training import loss, norms, rates

__all__ = ["STYLE", "balance", "bias", "load", "loss", "norms", "rates", "saturation", "specialisation", "usage"]
