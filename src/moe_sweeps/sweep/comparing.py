"""Compare two folders of one run to the last bit: their last checkpoints and their logs.

What depends on the clock, and so differs from run to run, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.reading import LOG_BYTES, read_text
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.checkpoint import Checkpoints

LOGS = ("metrics.jsonl", "routing.jsonl")
# Parts of a checkpoint, and beginnings of a record's keys, that depend on the clock and not on the arithmetic.
CLOCK_PARTS = ("clock", "timer")
PIECE = 1 << 20  # values
CLOCK_KEYS = (
    *("wall_seconds", "train_seconds", "seconds_", "tokens_per_second"),
    *("peak_gflops", "share_of_peak", "gemm_peak_gflops", "share_of_gemm_peak", "peak_memory"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a checkpoint, or one log: how many values it has, and which of them differ by how much."""

    values: int
    differences: tuple[str, ...]


def compare_folders(one: RunDir, other: RunDir) -> dict[str, Part]:
    """Name -> comparison, of every part of the last checkpoints and of every log.

    Raises:
        MoeSweepsError: a folder has no intact checkpoint.
    """
    return {name: _compare(*pair) for name, pair in _parts(one, other).items()}


def _compare(one: dict[str, Any], other: dict[str, Any]) -> Part:
    names = dict.fromkeys([*one, *other])
    apart = [name for name in names if not same(one.get(name), other.get(name))]
    return Part(len(names), tuple(f"{name} {_how_far(one.get(name), other.get(name))}".strip() for name in apart))


def _parts(first: RunDir, second: RunDir) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Part of a checkpoint, or log -> its values in both runs, by name."""
    one, other = _last_state(first), _last_state(second)
    parts = {
        part: (dict(_leaves(one.get(part))), dict(_leaves(other.get(part))))
        for part in dict.fromkeys([*one, *other])
        if part not in CLOCK_PARTS
    }
    return parts | {name: (_lines(first.path / name), _lines(second.path / name)) for name in LOGS}


def _last_state(folder: RunDir) -> dict[str, Any]:
    found = Checkpoints(folder.checkpoints, 1).load_latest(torch.device("cpu"))
    if found is None:
        raise MoeSweepsError(f"{folder.path} ended without an intact checkpoint")
    return found[1]


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything in nested containers."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            yield from _leaves(value, f"{name}.{place}" if name else str(place))
    else:
        yield name, tree


def _lines(path: Path) -> dict[str, Any]:
    """The records of a log by their place, without what depends on the clock."""
    lines = read_text(path, LOG_BYTES).splitlines() if path.exists() else []
    return {f"line {place}": without_clock(json.loads(line)) for place, line in enumerate(lines, start=1)}


def without_clock(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of a run's logs or its summary without what depends on the clock."""
    return {key: value for key, value in record.items() if not key.startswith(CLOCK_KEYS)}


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal to the last bit; a NaN equals itself."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(_bits(one), _bits(other))
    return type(one) is type(other) and repr(one) == repr(other)


def _bits(tensor: Tensor) -> Tensor:
    """(number of values, bytes of one)."""
    return tensor.detach().contiguous().reshape(-1, 1).view(torch.uint8)


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """The values in pieces, so that comparing takes little memory."""
    return torch.split(tensor.detach().reshape(-1), PIECE)


def _how_far(one: Any, other: Any) -> str:
    """How far apart two values are."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape):
        pieces = [(a, b) for a, b in zip(_pieces(one), _pieces(other), strict=True)]
        count = sum(int((_bits(a) != _bits(b)).any(dim=1).sum()) for a, b in pieces)
        far = max((a.double() - b.double()).abs().nan_to_num(nan=0.0).max().item() for a, b in pieces)
        return f"({count} of {one.numel()}, by up to {far:.3g})"
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one.keys() | other.keys() if not same(one.get(key), other.get(key))]
        return f"({', '.join(sorted(keys))})"
    return f"({_short(one)} and {_short(other)})"


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:40]
