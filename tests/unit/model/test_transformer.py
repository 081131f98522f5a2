"""The whole decoder: what it may see, what it returns, and where its first weights come from."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import make_run
from torch import Tensor
from torch.testing import assert_close

from moe_sweeps.config.groups import DenseFFNConfig, ExpertsConfig, ModelConfig, MoEExpertsConfig
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.router import RouterInit, SigmoidConfig, TopkSoftmaxConfig
from moe_sweeps.model.transformer import Transformer, build_model, weights_digest
from moe_sweeps.optim.groups import expected_roles, parameter_groups, role_of
from moe_sweeps.optim.lr_split import MatchedConfig

VOCAB = 61
EXPERTS: dict[str, ExpertsConfig] = {
    "moe": MoEExpertsConfig(num_experts=4, top_k=2, ffn_hidden=24),
    "dense": DenseFFNConfig(active_experts=2, ffn_hidden=24),
}


def _run(experts: ExpertsConfig, **overrides: object) -> RunConfig:
    # Large weights, so that every part of the model matters.
    defaults: dict[str, object] = {"model": ModelConfig(layers=2, width=32, heads=4, init_std=0.2)}
    return make_run(experts=experts, **(defaults | overrides))


def _tokens(rows: int = 3, length: int = 20) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


def _logits(model: Transformer, tokens_BS: Tensor) -> Tensor:
    logits_BSV: Tensor | None = model(tokens_BS).logits_BSV
    assert logits_BSV is not None
    return logits_BSV.detach()


@pytest.mark.parametrize("experts", EXPERTS.values(), ids=EXPERTS.keys())
def test_no_position_sees_a_later_one(experts: ExpertsConfig) -> None:
    model, tokens_BS = build_model(_run(experts), VOCAB).double(), _tokens()
    changed_BS = tokens_BS.clone()
    changed_BS[:, 12] = (changed_BS[:, 12] + 1) % VOCAB
    before, after = _logits(model, tokens_BS), _logits(model, changed_BS)
    assert_close(after[:, :12], before[:, :12], rtol=1e-12, atol=1e-12)
    assert ((after - before)[:, 12:].abs().amax(dim=-1) > 1e-6).all()


@pytest.mark.parametrize("experts", EXPERTS.values(), ids=EXPERTS.keys())
def test_positions_matter_and_sequences_do_not_mix(experts: ExpertsConfig) -> None:
    model, tokens_BS = build_model(_run(experts), VOCAB).double(), _tokens()
    assert_close(_logits(model, tokens_BS[1:2]), _logits(model, tokens_BS)[1:2], rtol=1e-12, atol=1e-12)
    swapped_BS = tokens_BS[:, [1, 0, *range(2, 20)]]
    assert (_logits(model, swapped_BS)[:, -1] - _logits(model, tokens_BS)[:, -1]).abs().max() > 1e-4


@pytest.mark.parametrize("experts", EXPERTS.values(), ids=EXPERTS.keys())
def test_losses_and_hits_are_those_of_the_logits(experts: ExpertsConfig) -> None:
    model, tokens_BS = build_model(_run(experts), VOCAB), _tokens()
    targets_BS = tokens_BS.roll(-1, dims=1)
    logits_BSV = _logits(model, tokens_BS)
    targets_BS[0] = logits_BSV[0].argmax(-1)  # some hits
    output = model(tokens_BS, targets_BS)
    expected_T = F.cross_entropy(logits_BSV.flatten(0, 1), targets_BS.flatten(), reduction="none")
    assert_close(output.token_loss_BS, expected_T.view_as(targets_BS))
    assert_close(output.loss, expected_T.mean())
    assert output.loss.dtype == torch.float32
    assert output.loss.shape == ()
    assert torch.equal(output.correct_BS, logits_BSV.argmax(-1) == targets_BS)
    assert output.logits_BSV is None
    assert model(tokens_BS).loss is None


def test_dense_model_by_hand() -> None:
    """One layer and one position, where attention passes its values through: the formula in plain matrices."""
    run = _run(EXPERTS["dense"], model=ModelConfig(layers=1, width=32, heads=4, init_std=0.2))
    model = build_model(run, VOCAB).double()
    p = {name: param.detach() for name, param in model.named_parameters()}

    def norm(x_D: Tensor) -> Tensor:
        return x_D / (x_D.square().mean() + run.model.norm_eps).sqrt()

    x_D = p["embedding.weight"][7]
    x_D = x_D + p["layers.0.attention.out_DD"] @ (p["layers.0.attention.qkv_QD"][64:] @ norm(x_D))
    gate_F, up_F = (p["layers.0.ffn.up_HD"] @ norm(x_D)).chunk(2)
    x_D = x_D + p["layers.0.ffn.down_DF"] @ (gate_F * gate_F.sigmoid() * up_F)
    expected_V = p["embedding.weight"] @ norm(x_D)
    assert_close(_logits(model, torch.tensor([[7]]))[0, 0], expected_V, rtol=1e-12, atol=1e-12)


def test_routings_and_rankings_are_numbered_by_layer() -> None:
    model, tokens_BS = build_model(_run(EXPERTS["moe"]), VOCAB), _tokens()

    def ranking(layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        wanted_E = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])[layer]
        return wanted_E.expand_as(logits_TE)

    counts = [routing.counts_E.tolist() for routing in model(tokens_BS, ranking=ranking).routings]
    assert counts == [[60, 60, 0, 0], [0, 0, 60, 60]]
    assert build_model(_run(EXPERTS["dense"]), VOCAB)(tokens_BS).routings == ()


def test_forward_changes_no_state_and_needs_no_seed() -> None:
    model, tokens_BS = build_model(_run(EXPERTS["moe"]), VOCAB), _tokens()
    before, random_state = weights_digest(model), torch.get_rng_state()
    first, second = _logits(model, tokens_BS), _logits(model, tokens_BS)
    assert torch.equal(first, second)
    assert weights_digest(model) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not list(model.buffers())


@pytest.mark.parametrize("experts", EXPERTS.values(), ids=EXPERTS.keys())
def test_bfloat16_autocast_stays_close(experts: ExpertsConfig) -> None:
    model, tokens_BS = build_model(_run(experts), VOCAB), _tokens()
    expected = model(tokens_BS, tokens_BS)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tokens_BS, tokens_BS)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert_close(output.loss, expected.loss, rtol=0.02, atol=0)
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.parameters())
    assert all(routing.logits_TE.dtype == torch.float32 for routing in output.routings)


@pytest.mark.parametrize("experts", EXPERTS.values(), ids=EXPERTS.keys())
def test_every_parameter_has_its_role(experts: ExpertsConfig) -> None:
    model = build_model(_run(experts), VOCAB)
    groups = parameter_groups(model, MatchedConfig(), expected_roles(experts.is_moe))
    assert sum(len(group.params) for group in groups) == len(list(model.parameters()))
    assert role_of("layers.0.moe.router.weight_ED").value == "router"


def _weights(**overrides: object) -> dict[str, Tensor]:
    settings: dict[str, object] = {"experts": MoEExpertsConfig(num_experts=8, ffn_hidden=24)} | overrides
    return dict(build_model(make_run(**settings), VOCAB).named_parameters())


@pytest.mark.parametrize(
    ("overrides", "differing"),
    [
        ({"experts": DenseFFNConfig(ffn_hidden=24)}, ".moe."),
        ({"router": TopkSoftmaxConfig(init=RouterInit.small)}, ".router."),
        ({"router": TopkSoftmaxConfig(init=RouterInit.talk)}, ".router."),
        ({"router": SigmoidConfig()}, "nothing"),
        ({"experts": MoEExpertsConfig(num_experts=8, top_k=4, ffn_hidden=24)}, "nothing"),
        ({"experts": MoEExpertsConfig(num_experts=16, ffn_hidden=24)}, ".moe."),
        ({"experts": MoEExpertsConfig(num_experts=8, ffn_hidden=32)}, ".experts."),
    ],
)
def test_arms_share_the_first_weights_of_the_tensors_they_share(overrides: dict[str, object], differing: str) -> None:
    ours, theirs = _weights(), _weights(**overrides)
    for name, tensor in ours.items():
        if differing not in name:
            assert torch.equal(tensor, theirs[name]), name
        elif name in theirs and "norm" not in name:
            assert tensor.shape != theirs[name].shape or not torch.equal(tensor, theirs[name]), name


def test_eight_experts_are_the_first_of_sixteen() -> None:
    eight, sixteen = _weights(), _weights(experts=MoEExpertsConfig(num_experts=16, ffn_hidden=24))
    for name in ("layers.1.moe.experts.up_EHD", "layers.1.moe.experts.down_EDF"):
        assert torch.equal(eight[name], sixteen[name][:8])
        assert len({tuple(expert.flatten()[:4].tolist()) for expert in sixteen[name]}) == 16


def test_initial_spread_of_every_tensor() -> None:
    model = build_model(make_run(model=ModelConfig(layers=8, width=64, heads=4, init_std=0.03)), 512)
    for name, param in model.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.equal(param, torch.ones_like(param)), name
            continue
        is_residual = "out_DD" in name or "down" in name
        expected = 0.03 / math.sqrt(16) if is_residual else 0.03
        assert float(param.detach().std()) == pytest.approx(expected, rel=0.15 if "router" in name else 0.05), name
        assert abs(float(param.detach().mean())) < 5 * expected / math.sqrt(param.numel()), name


def test_the_digest_tells_weights_apart() -> None:
    run = make_run()
    digests = [weights_digest(build_model(run, VOCAB)) for _ in range(2)]
    torch.manual_seed(123)
    torch.rand(7)
    digests.append(weights_digest(build_model(run, VOCAB)))
    assert len(set(digests)) == 1
    assert len(digests[0]) == 16
    assert weights_digest(build_model(make_run(seed=1), VOCAB)) != digests[0]
    nudged = build_model(run, VOCAB)
    with torch.no_grad():
        nudged.final_norm.weight[3] += 1e-6
    assert weights_digest(nudged) != digests[0]
