"""Dense products through oneDNN and in bfloat16: values and gradients against float64, use, and what a resume keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, make_run
from torch import Tensor

from moe_sweeps.config.groups import EngineConfig, KernelChoice, ModelConfig, Precision, TrainerConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.onednn import onednn_linear
from moe_sweeps.host.processor import Processor
from moe_sweeps.model import dense
from moe_sweeps.model.cross_entropy import linear_cross_entropy
from moe_sweeps.model.dense import (
    Bfloat16,
    OneDNN,
    Products,
    ProductUse,
    chosen_products,
    multiply,
    products_of,
    use_products,
)
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.transformer import Transformer, build_model

AVX512 = frozenset(("avx2", "avx512f"))
ZEN4, ZEN5 = Processor("AuthenticAMD", 25, AVX512), Processor("AuthenticAMD", 26, AVX512)
TOLERANCE = 3e-6  # of float32 sums of a few hundred terms, relative to the largest number
BFLOAT16_TOLERANCE = 2**-7  # factors and results have eight digits, and their errors add up
ALL = OneDNN(0, 0)

needs_onednn = pytest.mark.skipif(onednn_linear() is None, reason="this torch has no product by oneDNN")


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    direction = _normal(*y.shape, seed=9).to(y.dtype) if y.dim() else torch.ones((), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad((y * direction).sum(), leaves)]


def _assert_near(found: list[Tensor], wanted: list[Tensor], tolerance: float = TOLERANCE) -> None:
    for ours, oracle in zip(found, wanted, strict=True):
        assert ours.dtype is torch.float32
        assert float((ours.double() - oracle).abs().max() / oracle.abs().max()) < tolerance


def _count(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that go through oneDNN from now on, whose place torch.mm takes."""
    seen: list[tuple[int, ...]] = []

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        seen.append(tuple(weight.shape))
        return x @ weight.T

    monkeypatch.setattr(dense, "onednn_linear", lambda: linear)
    return seen


@needs_onednn
@pytest.mark.parametrize("shape", [(96, 64), (3, 32, 64), (1, 64), (64,), (2, 3, 5, 64)])
def test_values_and_gradients(shape: tuple[int, ...]) -> None:
    inputs = (_normal(*shape), _normal(48, 64, seed=1))
    found = _gradients(lambda x, w: multiply(x, w, ALL), *inputs)
    _assert_near(found, _gradients(F.linear, *(x.double() for x in inputs)))


@pytest.mark.parametrize("shape", [(96, 128), (3, 32, 128), (1, 128), (128,)])
def test_values_and_gradients_in_bfloat16(shape: tuple[int, ...]) -> None:
    inputs = (_normal(*shape), _normal(64, 128, seed=1))
    found = _gradients(lambda x, w: multiply(x, w, Bfloat16()), *inputs)
    wanted = _gradients(F.linear, *(x.double() for x in inputs))
    _assert_near(found, wanted, BFLOAT16_TOLERANCE)
    assert (found[0].double() - wanted[0]).abs().max() > 1e-4  # it is not float32


def test_bfloat16_sums_are_float32() -> None:
    """1 + 4096 * 2^-12 is 2; a sum in bfloat16 would stay 1."""
    x_TI = torch.full((1, 4097), 2.0**-12)
    x_TI[0, 0] = 1.0
    assert multiply(x_TI, torch.ones(32, 4097), Bfloat16()).tolist() == [[2.0] * 32]


def test_the_rows_at_once_decide_no_precision() -> None:
    """Micro-batches of any size compute the same."""
    x_TI, weight_OI = _normal(64, 128), _normal(64, 128, seed=1)
    whole = multiply(x_TI, weight_OI, Bfloat16())
    torch.testing.assert_close(torch.cat([multiply(x, weight_OI, Bfloat16()) for x in x_TI.split(5)]), whole)
    assert multiply(x_TI, _normal(32, 128), Bfloat16()).equal(F.linear(x_TI, _normal(32, 128)))  # a small weight


@needs_onednn
def test_rows_in_any_layout() -> None:
    x_TI, weight_OI = _normal(64, 96).T, _normal(64, 40, seed=1).T
    wanted = _gradients(F.linear, x_TI.double(), weight_OI.double())
    _assert_near(
        _gradients(lambda x, w: multiply(x.T.contiguous().T, w.T.contiguous().T, ALL), x_TI, weight_OI), wanted
    )
    expanded = _normal(1, 64).expand(96, 64)
    _assert_near([multiply(expanded, _normal(32, 64), ALL)], [F.linear(expanded.double(), _normal(32, 64).double())])


@pytest.mark.parametrize("products", [pytest.param(ALL, marks=needs_onednn), Bfloat16()])
@pytest.mark.parametrize("frozen", [0, 1])
def test_what_needs_no_gradient_gets_none(products: Products, frozen: int) -> None:
    x_TI, weight_OI = _normal(96, 64).requires_grad_(frozen != 0), _normal(128, 64).requires_grad_(frozen != 1)
    multiply(x_TI, weight_OI, products).sum().backward()
    assert [x.grad is None for x in (x_TI, weight_OI)] == [frozen == 0, frozen == 1]


@needs_onednn
def test_it_is_differentiable_once() -> None:
    x_TI = _normal(96, 64).requires_grad_()
    (dx_TI,) = torch.autograd.grad((multiply(x_TI, _normal(32, 64), ALL) ** 2).sum(), x_TI, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx_TI.sum().backward()


@needs_onednn
def test_what_is_not_a_number_stays_so() -> None:
    x_TI = _normal(64, 64)
    x_TI[3, 5], x_TI[7, 2] = float("nan"), float("inf")
    y_TO = multiply(x_TI, _normal(32, 64), ALL)
    assert y_TO.isfinite().all(dim=1).logical_not().nonzero().flatten().tolist() == [3, 7]


@needs_onednn
@pytest.mark.parametrize("tokens", [600, 1024])
def test_the_output_head(tokens: int) -> None:
    """In several blocks, the last of them shorter."""
    x_TD, weight_VD = _normal(tokens, 48), 0.3 * _normal(4096, 48, seed=1)
    targets_T = torch.randint(4096, (tokens,), generator=torch.Generator().manual_seed(2))
    losses = _gradients(lambda x, w: linear_cross_entropy(x, w, targets_T, None, ALL)[0], x_TD, weight_VD)
    _assert_near(
        losses, _gradients(lambda x, w: F.cross_entropy(x @ w.T, targets_T), x_TD.double(), weight_VD.double())
    )
    assert losses[2].is_contiguous()
    _, token_loss_T, correct_T = linear_cross_entropy(x_TD, weight_VD, targets_T, None, ALL)
    _, wanted_T, also_T = linear_cross_entropy(x_TD, weight_VD, targets_T)
    torch.testing.assert_close(token_loss_T, wanted_T, rtol=1e-5, atol=1e-5)
    assert correct_T.equal(also_T)


def test_the_output_head_in_bfloat16() -> None:
    x_TD, weight_VD = _normal(600, 48), 0.3 * _normal(4096, 48, seed=1)
    targets_T = torch.randint(4096, (600,), generator=torch.Generator().manual_seed(2))
    found = _gradients(lambda x, w: linear_cross_entropy(x, w, targets_T, None, Bfloat16())[0], x_TD, weight_VD)
    wide = (x_TD.double(), weight_VD.double())
    _assert_near(found, _gradients(lambda x, w: F.cross_entropy(x @ w.T, targets_T), *wide), 2**-6)


def test_an_evaluation_of_the_head_is_float32() -> None:
    """Logits of bfloat16 tie, and ties would count as correct."""
    x_TD, weight_VD = _normal(256, 48), _normal(512, 48, seed=1)
    targets_T = torch.randint(512, (256,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = linear_cross_entropy(x_TD, weight_VD, targets_T, None, Bfloat16())
        wanted = linear_cross_entropy(x_TD, weight_VD, targets_T)
    assert all(a.equal(b) for a, b in zip(found, wanted, strict=True))


def test_only_large_products_go_through_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _count(monkeypatch)
    products = OneDNN(2 * 64 * 64 * 96, 0)
    multiply(_normal(64, 64), _normal(96, 64), products)  # exactly as many
    multiply(_normal(63, 64), _normal(96, 64), products)
    multiply(_normal(64 * 96, 64), _normal(8, 64), products)  # a router's weight
    multiply(_normal(0, 64), _normal(96, 64), products)
    multiply(_normal(64, 64), _normal(96, 64), None)
    assert seen == [(96, 64)]


@needs_onednn
def test_small_gradients_of_weights_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _count(monkeypatch)
    products = OneDNN(0, 2 * 64 * 64 * 96)
    for rows in (63, 64):
        x_TI, weight_OI = _normal(rows, 64), _normal(96, 64, seed=1)
        found = _gradients(lambda x, w: multiply(x, w, products), x_TI, weight_OI)
        _assert_near(found, _gradients(F.linear, x_TI.double(), weight_OI.double()))
    small = [(96, 64), (64, 96)]
    assert seen == [*small, *small, (96, 64)]


@pytest.mark.parametrize("products", [ALL, Bfloat16()])
def test_other_devices_are_torchs(products: Products) -> None:
    x_TI, weight_OI = torch.empty(64, 128, device="meta"), torch.empty(128, 128, device="meta")
    assert multiply(x_TI, weight_OI, products).dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_torchs(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    seen = _count(monkeypatch)
    x_TI, weight_OI = _normal(64, 64), _normal(96, 64)
    multiply(x_TI.to(dtype), weight_OI.to(dtype), ALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert multiply(x_TI, weight_OI, ALL).dtype is torch.bfloat16
        linear_cross_entropy(x_TI, weight_OI, torch.zeros(64, dtype=torch.int64), None, ALL)
    assert seen == []


@pytest.mark.parametrize(
    ("cpu", "choice", "wanted"),
    [
        (ZEN5, KernelChoice.auto, OneDNN(2**24, 2**24)),
        (ZEN5, KernelChoice.compiled, OneDNN(2**24, 2**24)),
        (ZEN4, KernelChoice.auto, OneDNN(3 * 2**26, 2**27)),
        (Processor("AuthenticAMD", 27, AVX512), KernelChoice.auto, OneDNN(2**24, 2**24)),
        (ZEN5, KernelChoice.torch, None),
        (Processor("AuthenticAMD", 25, frozenset(("avx2",))), KernelChoice.auto, None),  # Zen 3
        (Processor("GenuineIntel", 6, AVX512), KernelChoice.auto, None),
        (Processor(), KernelChoice.auto, None),
    ],
)
def test_the_rule(monkeypatch: pytest.MonkeyPatch, cpu: Processor, choice: KernelChoice, wanted: OneDNN | None) -> None:
    _count(monkeypatch)
    monkeypatch.setattr(dense, "processor", lambda: cpu)
    assert chosen_products(choice) == wanted
    monkeypatch.setattr(dense, "onednn_linear", lambda: None)
    assert chosen_products(choice) is None


def _model(monkeypatch: pytest.MonkeyPatch, kernels: KernelChoice = KernelChoice.auto) -> Transformer:
    monkeypatch.setattr(dense, "processor", lambda: ZEN5)
    return build_model(
        make_run(model=ModelConfig(layers=2, width=64, heads=2), engine=EngineConfig(kernels=kernels)), 256
    )


def test_a_model_uses_them_in_its_projections_and_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _count(monkeypatch)
    model = _model(monkeypatch)
    assert model.products == OneDNN(2**24, 2**24)
    use_products(model, ALL)
    tokens_BS = torch.zeros(2, 32, dtype=torch.int64)
    model(tokens_BS, tokens_BS).loss.backward()
    forward = [(192, 64), (64, 64)] * 2 + [(256, 64)]
    assert seen[: len(forward)] == forward


@pytest.mark.parametrize("kernels", list(KernelChoice))
def test_mixed_precision_multiplies_in_bfloat16_whatever_the_kernels(kernels: KernelChoice) -> None:
    """It changes more than rounding, so a choice that may change between attempts has no say in it."""
    assert chosen_products(kernels, Precision.mixed) == Bfloat16()


def test_a_run_in_mixed_precision_keeps_it() -> None:
    run = make_run(
        model=ModelConfig(layers=2, width=64, heads=2),
        trainer=TrainerConfig(precision=Precision.mixed),
        engine=EngineConfig(kernels=KernelChoice.torch),
    )
    use = ProductUse(build_model(run, 256), Compute.of(Precision.mixed, CPU))
    assert (use.state_dict(), use.record()) == ("bfloat16", "bfloat16")
    use.load_state_dict("bfloat16")
    assert use.state_dict() == "bfloat16"


def test_mixed_precision_is_near_float32() -> None:
    """A whole model: its loss within bfloat16's digits, and gradients of the same direction."""
    tokens_BS = torch.randint(2048, (4, 64), generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for precision in (Precision.float32, Precision.mixed):
        run = make_run(
            model=ModelConfig(layers=2, width=64, heads=2),
            trainer=TrainerConfig(precision=precision),
            engine=EngineConfig(kernels=KernelChoice.torch),
        )
        model = build_model(run, 2048)
        loss = model(tokens_BS, tokens_BS).loss
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in model.parameters())
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert abs(losses[1] - losses[0]) < 1e-2 * losses[0]
    assert losses[1] != losses[0]
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0).item() > 0.999


def test_engine_kernels_torch_is_torchs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _count(monkeypatch)
    model = _model(monkeypatch, KernelChoice.torch)
    tokens_BS = torch.zeros(2, 32, dtype=torch.int64)
    model(tokens_BS, tokens_BS).loss.backward()
    assert (model.products, seen) == (None, [])


def test_a_resumed_run_computes_as_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    _count(monkeypatch)
    use = ProductUse(_model(monkeypatch), Compute(CPU, autocast=False))
    assert use.state_dict() == [2**24, 2**24]
    assert use.record() == "oneDNN from 16777216 FLOP (weight gradients 16777216), else torch.mm"
    use.load_state_dict([3 * 2**26, 2**27])  # begun on a Zen 4
    assert use.state_dict() == [3 * 2**26, 2**27]
    assert all(m.products == OneDNN(3 * 2**26, 2**27) for m in use.model.modules() if hasattr(m, "products"))
    use.load_state_dict(None)  # begun on another processor, or by an earlier version
    assert (use.state_dict(), use.record()) == (None, "torch.mm")
    use.load_state_dict([3 * 2**26, 2**27])
    assert use.state_dict() == [3 * 2**26, 2**27]


@pytest.mark.parametrize("state", ["float8", [1], [1, 2, 3], ["a", "b"], 5, {}])
def test_a_state_of_nothing_known_is_refused(state: Any) -> None:
    """By an error that names the checkpoint, as for any other part that does not fit."""
    with pytest.raises((TypeError, ValueError)):
        products_of(state)


def test_without_the_operator_a_run_that_began_with_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "onednn_linear", lambda: None)
    use = ProductUse(_model(monkeypatch), Compute(CPU, autocast=False))
    use.load_state_dict(None)
    with pytest.raises(ConfigError, match="the run began with products by oneDNN"):
        use.load_state_dict([2**24, 2**24])


@pytest.mark.parametrize("compute", [Compute(CPU, autocast=True), Compute(torch.device("cuda"), autocast=False)])
def test_a_checkpoint_says_what_is_used(monkeypatch: pytest.MonkeyPatch, compute: Compute) -> None:
    _count(monkeypatch)
    assert ProductUse(_model(monkeypatch), compute).state_dict() is None
