"""The numbers that the talk and its report published, for comparison with ours (reference/talk_results.csv).

An arm of ours corresponds to a published run with the same experts, gate, balancer and its rate, optimizer and ratio of
learning rates. Learning rates are compared as multiples of the base, which is PUBLISHED_BASE_LR there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from moe_sweeps.paths import REFERENCE

PUBLISHED = REFERENCE / "talk_results.csv"
PUBLISHED_BASE_LR = 1e-3
# What published runs share, and where ours may differ.
_REPORT = (
    "The published runs have 24 layers of width 768, FineWeb-Edu with the GPT-2 tokenizer, and one seed; most likely "
    "163,840 tokens an update for 50,000 updates."
)
_MEGATRON = "The published runs were made with Megatron-LM, with one seed each."
_SCALE = "Losses of another size, text or tokenizer are on another scale: compare orders and differences, never the "
_SCALE += "numbers themselves."
# Published numbers whose definition differs from ours of the same name.
_METRIC_DIFFERS = {"train_maxvio_batch": "; published of one micro-batch on one rank"}
_GATES = {"topk_softmax": "softmax", "softmax_topk": "softmax", "sigmoid": "sigmoid"}
_LOAD_BASED = ("batch_fraction", "ideal_normalized")


@dataclass(frozen=True, slots=True)
class PublishedValue:
    """One published number; `precision` says whether it was printed, read off a chart, or derived from another."""

    metric: str
    text: str  # with the digits that were published
    source: str
    precision: str

    @property
    def value(self) -> float:
        """The published number."""
        return float(self.text)


def setting(experiments: Sequence[str]) -> str:
    """What the runs behind these experiments share."""
    megatron = all(name.startswith("megatron") for name in experiments)
    return f"{_MEGATRON if megatron else _REPORT} {_SCALE}"


@cache
def load_published(path: Path = PUBLISHED) -> pd.DataFrame:
    """The reference file: a row a number, with experiment, source and precision."""
    return pd.read_csv(path, dtype={"value": str})


def published_values(row: Mapping[str, Any], experiments: Sequence[str]) -> list[PublishedValue]:
    """The published numbers of the arm whose frozen config is in `row`; empty if no published run matches."""
    frame = load_published()
    wanted = published_key(row)
    found = frame.loc[frame["experiment"].isin(experiments)]
    for column, value in wanted.items():
        found = found.loc[[_agrees(column, theirs, value) for theirs in found[column]]]
    fields = found[["metric", "value", "source", "precision"]].to_dict("list")
    differs = _differs(row, megatron=all(name.startswith("megatron") for name in experiments))
    of_metric = [_METRIC_DIFFERS.get(metric, "") for metric in fields["metric"]]
    fields["source"] = [f"{source}{own}{differs}" for source, own in zip(fields["source"], of_metric, strict=True)]
    return [PublishedValue(*values) for values in zip(*fields.values(), strict=True)]


def _differs(row: Mapping[str, Any], *, megatron: bool) -> str:
    """How an arm departs from its published run in settings that the reference file has no column for."""
    published = _MEGATRON_SETTINGS if megatron else _talk_settings(row)
    found = [
        f"published with {key}={_spelt(theirs)}" for key, theirs in published.items() if _departs(row, key, theirs)
    ]
    if row.get("balancer") == "lossfree" and row.get("router.z_loss") and not megatron:
        found.append("published without z-loss")
    if megatron and (row.get("router"), row.get("balancer")) == ("sigmoid", "aux"):
        found.append("published with 3 experts a token, and with P from a softmax")
    return "".join(f"; {text}" for text in found)


_MEGATRON_SETTINGS: dict[str, Any] = {"aux.normalization": "megatron"}


def _talk_settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """What compat=talk sets for such an arm, but for the z-loss, whose absence is said in words."""
    always: dict[str, Any] = {"router.init": "talk", "aux.normalization": "talk", "aux.scope": "micro"}
    lossfree = {"balancer.bias_on": "logits", "balancer.update_every": "micro_step"}
    load_based = {"optimizer.decay_all": True}
    return (
        always
        | (lossfree if row.get("balancer") == "lossfree" else {})
        | (load_based if row.get("lr_split") in _LOAD_BASED else {})
    )


def _spelt(value: Any) -> str:
    """As on the command line."""
    return str(value).lower()


# Keys that some stored runs predate -> the value that those runs had.
_BEFORE_THE_KEY = {"optimizer.decay_all": False}


def _departs(row: Mapping[str, Any], key: str, published: Any) -> bool:
    if key.startswith("aux.") and row.get("balancer") != "aux":
        return False  # nothing reads it
    ours = row.get(key)
    if ours is None or pd.isna(ours):
        ours = _BEFORE_THE_KEY.get(key)
    return ours is not None and ours != published


def published_key(row: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings by the names of the reference file; None where the setting has no part in the run."""
    balancer, split = row.get("balancer"), row.get("lr_split")
    rates = {role: float(row.get(f"lr_split.{role}") or 1.0) for role in ("dense", "expert")}
    if split not in ("static", None):
        rates = {"dense": 1.0, "expert": 1.0}  # load-based: the published expert rate is the base times the ratio
    return {
        "num_experts": row.get("experts.num_experts"),
        "gating": _GATES.get(str(row.get("router"))),
        "balancer": "aux" if balancer == "none" else balancer,
        "aux_coef": {"aux": row.get("aux.coef"), "none": 0.0}.get(str(balancer)),
        "bias_update_rate": row.get("balancer.rate") if balancer == "lossfree" else None,
        "lr_scaling": _scaling(row) if split in _LOAD_BASED else "none",
        "optimizer": row.get("optimizer"),
        "lr": rates["dense"] * PUBLISHED_BASE_LR,
        "expert_lr": rates["expert"] * PUBLISHED_BASE_LR,
    }


def _scaling(row: Mapping[str, Any]) -> str:
    """The load-based split as published; one that is changed in any way, a control above all, was not published."""
    plain = {"sqrt": False, "min_ratio": 0.0, "max_ratio": None, "ema": 0.0, "control": "none", "scale_decay": True}
    own = {key: row.get(f"lr_split.{key}") for key in plain}
    changed = [key for key, value in own.items() if not pd.isna(value) and value != plain[key]]
    return f"{row['lr_split']} with {', '.join(changed)}" if changed else str(row["lr_split"])


def _agrees(column: str, theirs: Any, ours: Any) -> bool:
    if pd.isna(theirs):
        return ours is None or column == "aux_coef"  # the report leaves the coefficient of some figures open
    if ours is None:
        return False
    if isinstance(theirs, str):
        return theirs == str(ours)
    return abs(float(theirs) - float(ours)) <= 1e-9 * max(abs(float(theirs)), 1.0)
