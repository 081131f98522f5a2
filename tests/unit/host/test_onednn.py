"""The guard around the private operator: right products, or None for every torch that lacks it or changed it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from moe_sweeps.host import onednn
from moe_sweeps.host.onednn import onednn_linear

needs_onednn = pytest.mark.skipif(onednn_linear() is None, reason="this torch has no product by oneDNN")
KNOWN = "mkldnn::_linear_pointwise" + onednn.SCHEMA


def right(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x @ weight.T


def fake(monkeypatch: pytest.MonkeyPatch, compute: Callable[..., Tensor], schema: str = KNOWN) -> None:
    """Another torch, whose operator computes so and has such a schema."""

    class Overload:
        _schema = schema

        def __call__(self, *given: Any) -> Tensor:
            return compute(*given)

    operators = SimpleNamespace(_linear_pointwise=SimpleNamespace(default=Overload()))
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


@needs_onednn
def test_this_torch_has_it() -> None:
    linear = onednn_linear.__wrapped__()
    assert linear is not None
    draw = torch.Generator().manual_seed(1)
    x_TI, weight_OI = torch.randn(96, 64, generator=draw), torch.randn(160, 64, generator=draw)
    for weight in (weight_OI, weight_OI.T.contiguous().T):
        found = linear(x_TI, weight)
        assert found.is_contiguous()
        assert found.dtype is torch.float32
        torch.testing.assert_close(found.double(), x_TI.double() @ weight_OI.double().T, rtol=0, atol=2e-5)


@needs_onednn
def test_what_the_caller_set_changes_no_answer() -> None:
    with torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        torch.set_default_dtype(torch.float64)
        try:
            assert onednn_linear.__wrapped__() is not None
        finally:
            torch.set_default_dtype(torch.float32)


def test_an_operator_as_known_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, right)
    linear = onednn_linear.__wrapped__()
    assert linear is not None
    assert linear(torch.ones(1, 2), torch.ones(3, 2)).tolist() == [[2.0, 2.0, 2.0]]


def _raise(error: Exception) -> Callable[..., Tensor]:
    def compute(*_: Any) -> Tensor:
        raise error

    return compute


@pytest.mark.parametrize(
    ("compute", "schema"),
    [
        (right, KNOWN.replace("Tensor? B, ", "")),
        (right, KNOWN.replace("str? algorithm", "str? algorithm, bool packed=False")),
        (right, KNOWN.replace("Tensor Y", "Tensor(a!) Y")),
        (lambda x, weight, *_: x @ weight.T + 1, KNOWN),
        (lambda x, weight, *_: (x.bfloat16() @ weight.bfloat16().T).float(), KNOWN),
        (lambda x, weight, *_: x @ weight.contiguous().view(40, -1), KNOWN),
        (lambda x, weight, *_: (x @ weight.T)[:1], KNOWN),
        (_raise(RuntimeError("could not create a primitive")), KNOWN),
        (_raise(NotImplementedError("no kernel for CPU")), KNOWN),
        (_raise(TypeError("takes 5 arguments")), KNOWN),
    ],
    ids=["fewer", "more", "in place", "bias", "bfloat16", "layout", "shape", "runtime", "backend", "type"],
)
def test_another_operator_of_that_name_is_not(
    monkeypatch: pytest.MonkeyPatch, compute: Callable[..., Tensor], schema: str
) -> None:
    fake(monkeypatch, compute, schema)
    assert onednn_linear.__wrapped__() is None


@pytest.mark.parametrize("there", [SimpleNamespace(), SimpleNamespace(_linear_pointwise=SimpleNamespace())])
def test_a_torch_without_it(monkeypatch: pytest.MonkeyPatch, there: SimpleNamespace) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", there)
    assert onednn_linear.__wrapped__() is None


def test_a_torch_built_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, right)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert onednn_linear.__wrapped__() is None
