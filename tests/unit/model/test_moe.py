"""The expert computation against an oracle of Python loops in float64, in every backend and corner."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from moe_sweeps.config.groups import ExpertBackend
from moe_sweeps.errors import ConfigError
from moe_sweeps.model import moe as moe_module
from moe_sweeps.model.moe import Experts, MoE, Picks, grouped_obstacle, narrow_experts, sort_picks, swiglu
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.router import Router, RouterConfig, SigmoidConfig, SoftmaxTopkConfig, TopkSoftmaxConfig

T, D, F = 17, 16, 24
SHAPES = {"talk-like": (8, 2), "one expert": (1, 1), "all experts": (4, 4), "idle experts": (64, 2), "top-1": (4, 1)}


def _moe(
    num_experts: int,
    top_k: int,
    backend: ExpertBackend,
    dtype: torch.dtype,
    width: int = D,
    hidden: int = F,
    config: RouterConfig | None = None,
) -> MoE:
    router = Router(width, num_experts, top_k, config or TopkSoftmaxConfig())
    moe = MoE(router, Experts(num_experts, width, hidden, backend))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in moe.parameters():
            param.normal_(std=0.5, generator=generator)
    return moe.to(dtype)


def _input(width: int = D, dtype: torch.dtype = torch.float64) -> Tensor:
    x_TD = torch.randn(T, width, generator=torch.Generator().manual_seed(2)).to(dtype)
    return x_TD.requires_grad_()


def _oracle(moe: MoE, x_TD: Tensor) -> Tensor:
    """Token by token and pick by pick: topk_softmax weights times the SwiGLU of the picked expert."""
    rows = []
    for x_D in x_TD:
        logits = [x_D @ row_D for row_D in moe.router.weight_ED]
        picked = sorted(range(len(logits)), key=lambda e: -float(logits[e].detach()))[: moe.router.top_k]
        total = sum(logits[e].exp() for e in picked)
        y_D = torch.zeros_like(x_D)
        for e in picked:
            gate_H, up_H = moe.experts.up_EHD[e].chunk(2)
            gate = gate_H @ x_D
            hidden = gate / (1 + (-gate).exp()) * (up_H @ x_D)
            y_D = y_D + logits[e].exp() / total * (moe.experts.down_EDF[e] @ hidden)
        rows.append(y_D)
    return torch.stack(rows)


def _with_gradients(moe: MoE, x_TD: Tensor, y_TD: Tensor) -> dict[str, Tensor]:
    """The output and the gradient of a fixed scalar of it with respect to the input and every parameter."""
    direction_TD = torch.randn(y_TD.shape, generator=torch.Generator().manual_seed(3)).to(y_TD.dtype)
    wanted = {"x": x_TD, **dict(moe.named_parameters())}
    grads = torch.autograd.grad((y_TD * direction_TD).sum(), list(wanted.values()))
    return {"y": y_TD.detach(), **dict(zip(wanted, grads, strict=True))}


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal relative to each tensor's own largest value, or to 1: with one pick the router's gradient is 0."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = (found[name].double() - tensor.double()).abs().max()
        assert error <= tolerance * tensor.abs().max().clamp(min=1.0), f"{name}: {error}"


@pytest.mark.parametrize(("num_experts", "top_k"), SHAPES.values(), ids=SHAPES.keys())
def test_loop_equals_the_oracle(num_experts: int, top_k: int) -> None:
    moe, x_TD = _moe(num_experts, top_k, ExpertBackend.loop, torch.float64), _input()
    expected = _with_gradients(moe, x_TD, _oracle(moe, x_TD))
    _assert_same(_with_gradients(moe, x_TD, moe(x_TD)[0]), expected, 1e-12)
    assert expected["y"].abs().max() > 0.1


@pytest.mark.parametrize(("num_experts", "top_k"), SHAPES.values(), ids=SHAPES.keys())
def test_grouped_equals_the_oracle_and_the_loop(num_experts: int, top_k: int) -> None:
    exact, x_TD = _moe(num_experts, top_k, ExpertBackend.loop, torch.float64), _input()
    expected = _with_gradients(exact, x_TD, _oracle(exact, x_TD))
    for backend in (ExpertBackend.grouped, ExpertBackend.loop):
        moe, x32_TD = _moe(num_experts, top_k, backend, torch.float32), _input(dtype=torch.float32)
        _assert_same(_with_gradients(moe, x32_TD, moe(x32_TD)[0]), expected, 1e-5)


@pytest.mark.parametrize("backend", [ExpertBackend.grouped, ExpertBackend.loop])
def test_an_expert_without_tokens_gets_a_zero_gradient(backend: ExpertBackend) -> None:
    moe, x_TD = _moe(64, 2, backend, torch.float32), _input(dtype=torch.float32)
    y_TD, routing = moe(x_TD)
    grads = _with_gradients(moe, x_TD, y_TD)
    idle_E = routing.counts_E == 0
    assert 20 < idle_E.sum() < 64
    for name in ("experts.up_EHD", "experts.down_EDF"):
        assert torch.equal(grads[name].abs().sum(dim=(1, 2)) == 0, idle_E), name


@pytest.mark.parametrize("backend", [ExpertBackend.grouped, ExpertBackend.loop])
def test_all_tokens_on_one_expert(backend: ExpertBackend) -> None:
    moe, x_TD = _moe(4, 1, backend, torch.float32), _input(dtype=torch.float32)
    y_TD, routing = moe(x_TD, lambda logits_TE, scores_TE: torch.tensor([0.0, 0.0, 1.0, 0.0]).expand_as(logits_TE))
    assert routing.counts_E.tolist() == [0, 0, T, 0]
    expected_TD = swiglu(x_TD @ moe.experts.up_EHD[2].T) @ moe.experts.down_EDF[2].T
    assert_close(y_TD, expected_TD)


@pytest.mark.parametrize(("width", "hidden"), [(12, 10), (10, 12), (9, 7)])
def test_widths_that_grouped_gemm_does_not_take(width: int, hidden: int) -> None:
    assert grouped_obstacle(torch.float32, width, hidden)
    with pytest.raises(ConfigError) as refusal:
        _moe(4, 2, ExpertBackend.grouped, torch.float32, width, hidden)
    for part in ("engine.expert_backend=grouped", f"({width})", f"({hidden})", "multiples of 4", "expert_backend=auto"):
        assert part in str(refusal.value)
    exact, x_TD = _moe(4, 2, ExpertBackend.auto, torch.float64, width, hidden), _input(width)
    expected = _with_gradients(exact, x_TD, _oracle(exact, x_TD))
    moe, x32_TD = _moe(4, 2, ExpertBackend.auto, torch.float32, width, hidden), _input(width, torch.float32)
    _assert_same(_with_gradients(moe, x32_TD, moe(x32_TD)[0]), expected, 1e-5)


def test_grouped_is_refused_where_only_the_dtype_forbids_it() -> None:
    moe = _moe(4, 2, ExpertBackend.grouped, torch.float64)
    with pytest.raises(ConfigError, match="not float64"):
        moe(_input())
    narrow = _moe(4, 2, ExpertBackend.grouped, torch.float32, width=12, hidden=12)
    narrow(_input(12, torch.float32))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ConfigError, match=r"bfloat16 .* multiples of 8"):
        narrow(_input(12, torch.float32))


@pytest.mark.parametrize("backend", [ExpertBackend.grouped, ExpertBackend.loop])
def test_bfloat16_autocast_routes_in_float32_and_stays_close(backend: ExpertBackend) -> None:
    moe, x_TD = _moe(8, 2, backend, torch.float32), _input(dtype=torch.float32)
    expected_TD, expected = moe(x_TD)
    largest = float(expected_TD.detach().abs().max())
    with torch.autocast("cpu", torch.bfloat16):
        y_TD, routing = moe(x_TD)
    assert torch.equal(routing.logits_TE, expected.logits_TE)
    assert torch.equal(routing.weights_TK, expected.weights_TK)
    assert not torch.equal(y_TD, expected_TD)
    assert_close(y_TD.float(), expected_TD, rtol=0, atol=0.02 * largest)
    grads = _with_gradients(moe, x_TD, y_TD)
    _assert_same(grads, _with_gradients(moe, x_TD, expected_TD), 0.05)
    assert {grad.dtype for grad in grads.values()} == {torch.float32}


@pytest.mark.parametrize("config", [SoftmaxTopkConfig(), SigmoidConfig(weight_scale=2.5)], ids=lambda c: c.kind)
def test_weights_multiply_the_experts_outputs(config: RouterConfig) -> None:
    moe, x_TD = _moe(4, 2, ExpertBackend.loop, torch.float64, config=config), _input()
    y_TD, routing = moe(x_TD)
    experts_TED = torch.stack(
        [swiglu(x_TD @ up_HD.T) @ down_DF.T for up_HD, down_DF in zip(*moe.experts.parameters(), strict=True)], dim=1
    )
    picked_TKD = torch.stack([experts_TED[t, ids_K] for t, ids_K in enumerate(routing.ids_TK)])
    assert_close(y_TD, (picked_TKD * routing.weights_TK[..., None]).sum(1), rtol=1e-12, atol=1e-12)


def test_custom_gradients_by_finite_differences() -> None:
    moe, x_TD = _moe(4, 2, ExpertBackend.loop, torch.float64, width=4, hidden=3), _input(4)
    names = [name for name, _ in moe.named_parameters()]

    def output(x_TD: Tensor, *params: Tensor) -> Tensor:
        y_TD: Tensor = torch.func.functional_call(moe, dict(zip(names, params, strict=True)), x_TD)[0]
        return y_TD

    assert torch.autograd.gradcheck(output, (x_TD, *moe.parameters()))


def test_two_passes_are_bit_identical_and_change_no_state() -> None:
    moe, x_TD = _moe(8, 2, ExpertBackend.auto, torch.float32), _input(dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in moe.state_dict().items()}
    first, second = (_with_gradients(moe, x_TD, moe(x_TD)[0]) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(before[name], tensor) for name, tensor in moe.state_dict().items())


def test_picks_are_sorted_by_expert_and_then_by_token() -> None:
    picks = sort_picks(torch.tensor([[2, 0], [1, 2], [0, 1]]), 3)
    assert picks.order_P.tolist() == [1, 4, 2, 5, 0, 3]
    assert picks.token_P.tolist() == [0, 2, 1, 2, 0, 1]
    assert picks.place_TK.tolist() == [[4, 0], [2, 5], [1, 3]]


def test_swiglu_by_hand() -> None:
    gate, up = math.log(3), 2.0  # sigmoid(ln 3) = 3/4
    y = swiglu(torch.tensor([[gate, -gate, up, up]], dtype=torch.float64))
    assert_close(y, torch.tensor([[gate * 0.75 * up, -gate * 0.25 * up]], dtype=torch.float64))


@pytest.mark.parametrize("gate", [TopkSoftmaxConfig(), SoftmaxTopkConfig(renormalize=True), SigmoidConfig()])
def test_expert_choice_equals_a_loop_over_experts_and_tokens(gate: RouterConfig) -> None:
    """Values and gradients, in float64: each expert's C best tokens, weighted as the gate weighs a token's experts."""
    torch.manual_seed(0)
    router = Router(8, 4, 1, gate, experts_choose=True).double()
    moe = MoE(router, Experts(4, 8, 8, ExpertBackend.loop)).double()
    for param in moe.parameters():
        torch.nn.init.normal_(param)
    x_TD = torch.randn(24, 8, dtype=torch.float64, requires_grad=True)
    y_TD, routing = moe(x_TD)
    assert routing.counts_E.tolist() == [6] * 4
    assert routing.top_k == 1
    scores_TE = gate.scores_TE(x_TD @ router.weight_ED.T)
    experts_of: list[list[int]] = [[] for _ in range(24)]
    for e in range(4):
        for t in scores_TE[:, e].argsort(descending=True)[:6].tolist():
            experts_of[t].append(e)
    assert {len(experts) for experts in experts_of} >= {0, 1, 2}  # one token has none
    rows = []
    for t, experts in enumerate(experts_of):
        ids_1K = torch.tensor([experts], dtype=torch.int64)
        logits_1E = x_TD[t : t + 1] @ router.weight_ED.T
        y_D = torch.zeros(8, dtype=torch.float64)
        for e, weight in zip(experts, gate.weights_TK(logits_1E, gate.scores_TE(logits_1E), ids_1K)[0], strict=True):
            y_D = y_D + weight * (moe.experts.down_EDF[e] @ swiglu(moe.experts.up_EHD[e] @ x_TD[t]))
        rows.append(y_D)
    expected_TD = torch.stack(rows)
    assert_close(y_TD, expected_TD, rtol=1e-10, atol=1e-10)
    inputs = [x_TD, *moe.parameters()]
    probe_TD = torch.randn_like(y_TD)
    found = torch.autograd.grad((y_TD * probe_TD).sum(), inputs)
    expected = torch.autograd.grad((expected_TD * probe_TD).sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_in_evaluation_tokens_choose_their_experts() -> None:
    torch.manual_seed(0)
    routers = [Router(8, 4, 2, SoftmaxTopkConfig(), experts_choose=choose).eval() for choose in (True, False)]
    torch.nn.init.normal_(routers[0].weight_ED)
    routers[1].load_state_dict(routers[0].state_dict())
    x_TD = torch.randn(10, 8)
    assert torch.equal(routers[0](x_TD).ids_TK, routers[1](x_TD).ids_TK)


# --- narrow rows, keys and weights ----------------------------------------------------------------------------------


def _picks() -> tuple[Picks, Tensor]:
    ids_TK = torch.rand(T, 8, generator=torch.Generator().manual_seed(4)).topk(2).indices
    return sort_picks(ids_TK, 8), torch.rand(T, 2, generator=torch.Generator().manual_seed(5))


def test_rows_that_are_narrowed_before_they_move_are_those_narrowed_after() -> None:
    """To the last bit, there and back: 2 bytes of a number move in place of 4."""
    picks, _ = _picks()
    x_TD = _input(dtype=torch.float32)
    x_PD = moe_module._Dispatch.apply(x_TD, picks, torch.bfloat16)  # type: ignore[no-untyped-call]
    assert torch.equal(x_PD, x_TD.index_select(0, picks.token_P).bfloat16())
    dy_PD = torch.randn(2 * T, D, generator=torch.Generator().manual_seed(6)).bfloat16()
    (found_TD,) = torch.autograd.grad(x_PD, x_TD, dy_PD)
    wanted_TD = dy_PD.float()[picks.place_TK.flatten()].view(T, 2, D).sum(dim=1)
    assert found_TD.dtype is torch.float32
    assert torch.equal(found_TD, wanted_TD)


def test_the_same_for_tokens_with_differing_numbers_of_picks() -> None:
    token_P = torch.tensor([3, 0, 3, 16, 3, 5])
    x_TD = _input(dtype=torch.float32)
    x_PD = moe_module._TakeRows.apply(x_TD, token_P, torch.bfloat16)  # type: ignore[no-untyped-call]
    assert torch.equal(x_PD, x_TD[token_P].bfloat16())
    dy_PD = torch.randn(6, D, generator=torch.Generator().manual_seed(6)).bfloat16()
    (found_TD,) = torch.autograd.grad(x_PD, x_TD, dy_PD)
    assert torch.equal(found_TD, moe_module._sum_rows_TD(dy_PD.float(), token_P, T, torch.float32))
    assert torch.equal(found_TD[3], (dy_PD[0].float() + dy_PD[2].float()) + dy_PD[4].float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_gradient_of_combined_rows_is_rounded_once(dtype: torch.dtype) -> None:
    picks, weights_TK = _picks()
    y_PD = torch.randn(2 * T, D, generator=torch.Generator().manual_seed(6)).to(dtype).requires_grad_()
    y_TD = moe_module._Combine.apply(y_PD, weights_TK.requires_grad_(), picks)  # type: ignore[no-untyped-call]
    dy_TD = torch.randn(T, D, generator=torch.Generator().manual_seed(7))
    found_PD, found_TK = torch.autograd.grad(y_TD, (y_PD, weights_TK), dy_TD)
    weights_P = weights_TK.detach().flatten()[picks.order_P]
    assert torch.equal(found_PD, (dy_TD[picks.token_P] * weights_P.unsqueeze(1)).to(dtype))
    rows_TKD = y_PD.detach().double()[picks.place_TK.flatten()].view(T, 2, D)
    assert_close(found_TK.double(), (rows_TKD * dy_TD.double().unsqueeze(1)).sum(-1), rtol=1e-5, atol=1e-5)


class _OnGpu(Tensor):
    """A tensor of the host that says that it is on a GPU."""

    is_cuda = True


@pytest.mark.parametrize("num_experts", [1, 8, 256, 257])
def test_narrow_keys_sort_alike(num_experts: int) -> None:
    ids_P = torch.randint(num_experts, (4096,), generator=torch.Generator().manual_seed(0))
    ids_P[-1] = num_experts - 1
    keys_P = moe_module._sort_keys(ids_P.as_subclass(_OnGpu), num_experts).as_subclass(Tensor)
    assert keys_P.dtype is (torch.uint8 if num_experts <= 256 else torch.int64)
    assert torch.equal(keys_P.argsort(stable=True), ids_P.argsort(stable=True))
    assert moe_module._sort_keys(ids_P, num_experts) is ids_P


GPU = Compute(torch.device("cuda"), True)  # that of a model on a GPU; the tensors below stay on the host


@pytest.mark.parametrize("backend", [ExpertBackend.grouped, ExpertBackend.loop])
def test_weights_that_are_held_in_bfloat16_change_no_bit(backend: ExpertBackend) -> None:
    moe, x_TD = _moe(8, 2, backend, torch.float32), _input(dtype=torch.float32)
    found = []
    for held in (nullcontext(), narrow_experts(moe, GPU)):
        with held, torch.autocast("cpu", torch.bfloat16):
            y_TD = moe(x_TD)[0]
            found.append(_with_gradients(moe, x_TD, y_TD))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert {tensor.dtype for tensor in found[1].values()} == {torch.float32}


def grouped_and_refused(moe: MoE) -> None:
    raise ConfigError("field", "value", "rule", "fix")


def test_weights_are_held_within_alone_and_only_where_products_are_bfloat16_on_a_gpu() -> None:
    moe = _moe(4, 2, ExpertBackend.auto, torch.float32)
    for compute in (Compute(torch.device("cpu"), True), Compute(torch.device("cuda"), False)):
        with narrow_experts(moe, compute):
            assert moe.experts.narrow is None
    with narrow_experts(moe, GPU):
        assert moe.experts.narrow is not None
        assert torch.equal(moe.experts.narrow[0], moe.experts.up_EHD.bfloat16())
    assert moe.experts.narrow is None
    with pytest.raises(ConfigError), narrow_experts(moe, GPU):
        grouped_and_refused(moe)
    assert moe.experts.narrow is None


def test_outside_autocast_held_weights_are_not_used() -> None:
    """An evaluation in float32 within, for example."""
    moe, x_TD = _moe(4, 2, ExpertBackend.auto, torch.float32), _input(dtype=torch.float32)
    expected_TD = moe(x_TD)[0]
    with narrow_experts(moe, GPU):
        assert torch.equal(moe(x_TD)[0], expected_TD)
