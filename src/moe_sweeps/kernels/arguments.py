"""What an operator takes: dtype, device, memory layout and shape of each tensor, checked before any memory is read.

The names in an operator's schema say it. `weight_D` has one axis, D, and every D of a call has the same size; `x_XD`
may have any number of axes X before its last one. `ids`, `place` and `targets` are int64, `ends` is int32, all others
are float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Sizes = dict[str, Any]  # axis -> its size; X -> the sizes of all axes before the last; symbolic under torch.compile
_INTEGERS = {"ids": torch.int64, "place": torch.int64, "targets": torch.int64, "ends": torch.int32}
_PLAIN = frozenset((Tensor, nn.Parameter))
_REMEMBERED = 1000  # calls that passed
_TENSOR = re.compile(r"Tensor(?:\(a!\))? (\w+)")


@dataclass(frozen=True, slots=True)
class Rule:
    """What the sizes of a call must fulfil beyond equal axes."""

    argument: str  # the one to blame
    words: str
    holds: Callable[[Sizes], bool]


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    axes: str
    leading: bool  # whether any number of axes may come before `axes`
    dtype: torch.dtype

    @classmethod
    def of(cls, name: str) -> _Argument:
        word, _, axes = name.partition("_")
        return cls(name, axes.removeprefix("X"), axes.startswith("X"), _INTEGERS.get(word, torch.float32))


class Arguments:
    """The tensors of one operator, which come before its numbers, and the rules for their sizes."""

    def __init__(self, operator: str, schema: str, *rules: Rule) -> None:
        """`schema`: what stands between the parentheses. Rules apply in order, once all axes are known."""
        self._operator, self._rules = operator, rules
        self._passed: set[tuple[Any, ...]] = set()
        self._arguments = tuple(_Argument.of(name) for name in _TENSOR.findall(schema))

    def passed(self, tensors: Sequence[Tensor]) -> bool:
        """Whether tensors like these were remembered. This is cheap, and a run repeats its shapes.

        A subclass never passes: it may have no memory of its own, and its sizes may be symbols.
        """
        return _PLAIN.issuperset(map(type, tensors)) and _likeness(tensors) in self._passed

    def remember(self, tensors: Sequence[Tensor]) -> None:
        """`tensors`, which are on the CPU, passed an examination."""
        if len(self._passed) >= _REMEMBERED:
            self._passed.clear()
        self._passed.add(_likeness(tensors))

    def examine(self, tensors: Sequence[Tensor], devices: Sequence[str] = ("cpu",)) -> None:
        """Refuse tensors that the operator cannot compute with. Sizes may be symbols, as in a trace.

        Raises:
            ValueError: it names the operator, the argument, what that is and what it has to be.
        """
        sizes: Sizes = {}
        for argument, x in zip(self._arguments, tensors, strict=True):
            if x.dtype is not argument.dtype or x.device.type not in devices or not x.is_contiguous():
                raise self._refusal(argument, x, sizes)
            if not _fits(argument, x.shape, sizes):
                raise self._refusal(argument, x, sizes)
        for rule in self._rules:
            if not rule.holds(sizes):
                self._refuse_rule(rule, tensors, sizes)

    def _refusal(self, argument: _Argument, x: Tensor, sizes: Sizes) -> ValueError:
        layout = "contiguous" if x.is_contiguous() else "not contiguous"
        axes = (*("...",) * argument.leading, *argument.axes)
        shape = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes)
        if argument.leading and "X" in sizes:
            shape = shape.replace("...", ", ".join(str(size) for size in sizes["X"]))
        return ValueError(
            f"{self._operator}: {argument.name} is {_name(x.dtype)} of shape {tuple(x.shape)} on {x.device}, {layout}; "
            f"it has to be {_name(argument.dtype)} of shape ({shape}) on cpu, contiguous"
        )

    def _refuse_rule(self, rule: Rule, tensors: Sequence[Tensor], sizes: Sizes) -> None:
        found = next(x for x, a in zip(tensors, self._arguments, strict=True) if a.name == rule.argument)
        known = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise ValueError(
            f"{self._operator}: {rule.argument} has the shape {tuple(found.shape)}; it needs {rule.words} ({known})"
        )


def _likeness(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """What decides whether they can be computed with."""
    return tuple([(x.dtype, x.shape, x.is_cpu, x.is_contiguous()) for x in tensors])


def _fits(argument: _Argument, shape: torch.Size, sizes: Sizes) -> bool:
    """Whether `shape` has the axes of `argument`, with the sizes that they have already. Notes those that are new."""
    if argument.leading:
        place = len(shape) - len(argument.axes)
        if place < 0 or sizes.setdefault("X", shape[:place]) != shape[:place]:
            return False
        shape = shape[place:]
    elif len(shape) != len(argument.axes):
        return False
    return all(sizes.setdefault(axis, size) == size for axis, size in zip(argument.axes, shape, strict=True))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
