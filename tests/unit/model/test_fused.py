"""The compiled kernels against torch's operations in float64: values, gradients, corners, and any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers import make_run
from torch import Tensor
from torch.testing import assert_close

from moe_sweeps.config.groups import EngineConfig, ExpertBackend, KernelChoice, ModelConfig, MoEExpertsConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import Arithmetic, Kernels, KernelsUnavailable, calls, load, use
from moe_sweeps.kernels.arithmetic import before_there_were_several
from moe_sweeps.model import fused
from moe_sweeps.model.cross_entropy import linear_cross_entropy
from moe_sweeps.model.moe import Experts, MoE, swiglu
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.router import Router, TopkSoftmaxConfig
from moe_sweeps.model.transformer import Transformer, build_model, rotary_tables, rotate

# Far below what a wrong term would change, and above what float32 sums of a few hundred terms lose.
TOLERANCE = 3e-6


@pytest.fixture(params=[a for a in Arithmetic if a.obstacle() is None])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """The kernels in each arithmetic that this processor has."""
    use(request.param)
    try:
        yield load()
    except KernelsUnavailable as error:
        pytest.skip(str(error))
    finally:
        use(None)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def _threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many threads in the kernels alone: torch's own would take longer than all the rest on a busy machine."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)


def _normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The value, and the gradient of a fixed scalar of it with respect to each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    direction = _normal(*y.shape or (1,), seed=9).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * direction).sum(), leaves)]


def _assert_agree(
    ours: Callable[..., Tensor], oracle: Callable[..., Tensor], inputs: Sequence[Tensor], tolerance: float = TOLERANCE
) -> None:
    """float32 against the oracle's float64, relative to the largest number of each tensor."""
    for found, wanted in zip(_gradients(ours, inputs), _gradients(oracle, [x.double() for x in inputs]), strict=True):
        assert found.dtype is torch.float32
        scale = wanted.abs().max()
        assert scale > 1e-3
        assert float((found.double() - wanted).abs().max() / scale) < tolerance


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("width", [1, 7, 8, 16, 20, 64])
def test_rms_norm(kernels: Kernels, width: int) -> None:
    inputs = (_normal(3, 97, width), _normal(width, seed=1))
    _assert_agree(lambda x, w: fused.rms_norm(x, w, 1e-3), lambda x, w: F.rms_norm(x, (width,), w, 1e-3), inputs, 1e-5)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("hidden", [1, 8, 21])
def test_swiglu(kernels: Kernels, hidden: int) -> None:
    _assert_agree(lambda h: fused.swiglu(h), swiglu, (_normal(5, 13, 2 * hidden, scale=4),))


def test_swiglu_of_extreme_gates(kernels: Kernels) -> None:
    gates = torch.tensor([-1e4, -200.0, -88.0, -87.0, -17.0, -1e-3, 0.0, 1e-3, 17.0, 88.0, 1e4])
    h_PH = torch.stack([gates, torch.ones_like(gates)], dim=1)
    assert_close(fused.swiglu(h_PH), swiglu(h_PH.double()).float(), rtol=1e-6, atol=1e-34)
    nan = torch.tensor([[float("nan"), 1.0], [1.0, float("nan")]])
    assert fused.swiglu(nan).isnan().all()


def _attention(qkv_BSQ: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotation, softmax below the diagonal and weighted sum, written out."""
    batch, seq_len, _ = qkv_BSQ.shape
    head_dim = rotary[0].shape[1]
    q, k, v = (part.view(batch, seq_len, -1, head_dim).transpose(1, 2) for part in qkv_BSQ.chunk(3, dim=-1))
    wide = (rotary[0].to(q.dtype), rotary[1].to(q.dtype))
    scores = rotate(q, wide) @ rotate(k, wide).mT / head_dim**0.5
    future = torch.ones(seq_len, seq_len, dtype=torch.bool).triu(1)
    mixed: Tensor = scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ v
    return mixed.transpose(1, 2).flatten(2)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("head_dim", [2, 6, 16, 24, 40, 48])
@pytest.mark.parametrize("seq_len", [1, 5, 37])
def test_rotary_attention(kernels: Kernels, seq_len: int, head_dim: int) -> None:
    rotary = rotary_tables(seq_len, ModelConfig(width=3 * head_dim, heads=3), torch.empty(0))
    inputs = (_normal(2, seq_len, 9 * head_dim, scale=1.5),)
    _assert_agree(lambda x: fused.rotary_attention(x, rotary), lambda x: _attention(x, rotary), inputs)


@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["ordinary", "huge logits"])
def test_cross_entropy(kernels: Kernels, scale: float) -> None:
    inputs, targets_T = (_normal(23, 8, scale=scale), _normal(31, 8, seed=1)), torch.arange(23)
    _assert_agree(
        lambda x, w: linear_cross_entropy(x, w, targets_T, kernels)[0],
        lambda x, w: F.cross_entropy(x @ w.T, targets_T),
        inputs,
        1e-5,
    )
    _, token_loss_T, correct_T = linear_cross_entropy(*inputs, targets_T, kernels)
    logits_TV = inputs[0].double() @ inputs[1].double().T
    assert_close(token_loss_T.double(), F.cross_entropy(logits_TV, targets_T, reduction="none"), rtol=1e-5, atol=1e-5)
    assert torch.equal(correct_T, logits_TV.argmax(1) == targets_T)


def test_a_logit_that_is_no_number_shows_in_the_loss(kernels: Kernels) -> None:
    for bad in (float("nan"), float("inf")):
        x_TD = _normal(3, 4)
        x_TD[1, 2] = bad
        token_loss_T = linear_cross_entropy(x_TD, _normal(19, 4, seed=1), torch.arange(3), kernels)[1]
        assert token_loss_T.isfinite().tolist() == [True, False, True]


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (1, 1), (3, 3), (64, 2)])
@pytest.mark.parametrize(("width", "hidden"), [(16, 24), (9, 7), (33, 40)])
def test_moe(kernels: Kernels, experts: int, top_k: int, width: int, hidden: int) -> None:
    """77 tokens: with 64 experts some are idle, with one it has more rows than are worked on at a time."""
    tokens = 77 if experts > 1 else 600
    ids_TK = _normal(tokens, experts, seed=5).topk(top_k).indices
    inputs = (
        _normal(tokens, width),
        _normal(tokens, top_k, seed=1),
        _normal(experts, 2 * hidden, width, seed=2, scale=0.5),
        _normal(experts, width, hidden, seed=3, scale=0.5),
    )

    def oracle(x_TD: Tensor, weights_TK: Tensor, up_EHD: Tensor, down_EDF: Tensor) -> Tensor:
        all_TED = torch.stack([swiglu(x_TD @ up.T) @ down.T for up, down in zip(up_EHD, down_EDF, strict=True)], dim=1)
        picked_TKD = all_TED.gather(1, ids_TK.unsqueeze(-1).expand(-1, -1, width))
        return (picked_TKD * weights_TK.unsqueeze(-1)).sum(dim=1)

    def ours(x_TD: Tensor, weights_TK: Tensor, up_EHD: Tensor, down_EDF: Tensor) -> Tensor:
        return fused.moe(x_TD, weights_TK, up_EHD, down_EDF, ids_TK)

    _assert_agree(ours, oracle, inputs, 1e-5)


def test_results_do_not_depend_on_the_number_of_threads(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = _model(_choice(kernels)), []
    tokens_BS = torch.randint(96, (3, 100), generator=torch.Generator().manual_seed(0))
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        loss = model(tokens_BS, tokens_BS.roll(-1)).loss
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def _choice(kernels: Kernels) -> KernelChoice:
    """The setting that means these kernels, and no other."""
    return KernelChoice.compiled if kernels.arithmetic is Arithmetic.plain else KernelChoice(kernels.arithmetic.value)


def _model(choice: KernelChoice, backend: ExpertBackend = ExpertBackend.auto) -> Transformer:
    run = make_run(
        model=ModelConfig(layers=2, width=32, heads=4, init_std=0.2),
        experts=MoEExpertsConfig(num_experts=4, top_k=2, ffn_hidden=24),
        engine=EngineConfig(kernels=choice, expert_backend=backend),
    )
    return build_model(run, 96)


def test_a_model_with_kernels_agrees_with_one_without(kernels: Kernels) -> None:
    with_, without = _model(_choice(kernels)), _model(KernelChoice.torch)
    assert with_.kernels is kernels
    assert without.kernels is None
    tokens_BS = torch.randint(96, (2, 48), generator=torch.Generator().manual_seed(0))
    losses = [model(tokens_BS, tokens_BS.roll(-1)).loss for model in (with_, without)]
    assert_close(*losses, rtol=1e-6, atol=0)
    for loss in losses:
        loss.backward()
    name = "layers.0.moe.experts.up_EHD"
    changed, plain = (model.get_parameter(name).grad for model in (with_, without))
    assert changed is not None
    assert plain is not None
    assert not torch.equal(changed, plain)  # else one of them did not do what its name says
    for (name, ours), theirs in zip(with_.named_parameters(), without.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5 * float(theirs.grad.abs().max()), msg=name)


@pytest.mark.parametrize(
    "prepare",
    [lambda model: model.double(), lambda model: fused.use_kernels(model, None)],
    ids=["float64", "without"],
)
def test_kernels_step_aside_for_what_they_cannot_compute(
    kernels: Kernels, prepare: Callable[[Transformer], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens_BS = _model(_choice(kernels)), torch.zeros(1, 8, dtype=torch.int64)
    prepare(model)
    monkeypatch.setattr(Kernels, "_call", lambda *_: pytest.fail("a kernel was called"))
    assert model(tokens_BS, tokens_BS).loss.isfinite()
    with torch.autocast("cpu", torch.bfloat16):
        assert _model(_choice(kernels))(tokens_BS, tokens_BS).loss.isfinite()


def test_an_expert_backend_that_was_asked_for_is_used(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernels, "experts", lambda *_: pytest.fail("the kernel computed the experts"))
    tokens_BS = torch.zeros(1, 8, dtype=torch.int64)
    for backend in (ExpertBackend.grouped, ExpertBackend.loop):
        assert _model(_choice(kernels), backend)(tokens_BS, tokens_BS).loss.isfinite()


def test_a_run_keeps_the_arithmetic_that_it_began_with(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    began, compute = _model(_choice(kernels)), Compute(torch.device("cpu"), autocast=False)
    state = fused.KernelUse(began, compute).state_dict()
    assert state == kernels.arithmetic.value
    resumed = _model(KernelChoice.torch)
    fused.KernelUse(resumed, compute).load_state_dict(state)
    assert resumed.kernels is kernels
    assert fused.KernelUse(resumed, compute).record() == kernels.arithmetic.value
    monkeypatch.setattr(Arithmetic, "obstacle", lambda _: "the processor is another")
    calls._loaded.cache_clear()
    with pytest.raises(
        ConfigError, match=rf"began with kernels for {kernels.arithmetic}, .*; the processor is another"
    ):
        fused.KernelUse(resumed, compute).load_state_dict(state)


def test_a_checkpoint_of_a_time_with_one_arithmetic_means_that_one(kernels: Kernels) -> None:
    """Its word is True or False."""
    model, compute = _model(_choice(kernels)), Compute(torch.device("cpu"), autocast=False)
    fused.KernelUse(model, compute).load_state_dict(True)
    assert model.kernels is not None
    assert model.kernels.arithmetic is before_there_were_several()
    fused.KernelUse(model, compute).load_state_dict(False)
    assert model.kernels is None


@pytest.mark.parametrize(
    "elsewhere", [Compute(torch.device("cpu"), autocast=True), Compute(torch.device("meta"), False)]
)
def test_a_run_that_began_with_kernels_is_refused_where_they_are_not_used(kernels: Kernels, elsewhere: Compute) -> None:
    with pytest.raises(ConfigError, match=f"began with kernels for {kernels.arithmetic}, .* computes without kernels"):
        fused.KernelUse(_model(_choice(kernels)), elsewhere).load_state_dict(kernels.arithmetic.value)


@pytest.mark.parametrize("said", ["avx1024", "", "AVX2", "../avx2"])
def test_a_checkpoint_of_an_arithmetic_that_is_not_known_is_refused(said: str) -> None:
    """One from a later version, or one that somebody wrote."""
    model = _model(KernelChoice.torch)
    with pytest.raises(ConfigError, match=r"is not a valid Arithmetic.* Resume on a machine like the one"):
        fused.KernelUse(model, Compute(torch.device("cpu"), autocast=False)).load_state_dict(said)
    assert model.kernels is None


def test_picks_of_one_expert_stay_in_token_order(kernels: Kernels) -> None:
    order_P, place_TK, ends_E = kernels.sort_picks(torch.tensor([[2, 0], [1, 2], [0, 1]]), 4)
    assert order_P.tolist() == [1, 4, 2, 5, 0, 3]
    assert place_TK.tolist() == [[4, 0], [2, 5], [1, 3]]
    assert ends_E.tolist() == [2, 4, 6, 6]


def test_a_pick_without_gradient_reaches_the_router(kernels: Kernels) -> None:
    """The weights' gradient goes to the router, and idle experts get zeros, not what memory held."""
    moe = MoE(Router(8, 16, 1, TopkSoftmaxConfig()), Experts(16, 8, 8, ExpertBackend.auto))
    for param in moe.parameters():
        torch.nn.init.normal_(param, generator=torch.Generator().manual_seed(1))
    fused.use_kernels(moe, kernels)
    y_TD, routing = moe(_normal(4, 8))
    y_TD.square().sum().backward()
    grad_EHD = moe.experts.up_EHD.grad
    assert grad_EHD is not None
    assert torch.equal(grad_EHD.abs().sum(dim=(1, 2)) == 0, routing.counts_E == 0)
    assert int((routing.counts_E == 0).sum()) >= 12
