"""engine=megatron against engine=native: one config, one set of weights, the same numbers to float32 rounding.

Axes: L MoE layers, T tokens, E experts, K picks per token.
"""

from __future__ import annotations

import math

import pytest
import torch
from helpers import TINY, compose_run, trainer, with_gains
from megatron_helpers import VOCAB, batch, both, needs_megatron
from torch import Tensor

from moe_sweeps.balancing import Balancer, LossFree, balance_loss, z_loss
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.engines.megatron.model import MegatronTransformer
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.router import Routing
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import ModelOutput, Transformer, weights_digest
from moe_sweeps.optim.groups import expected_roles, parameter_groups
from moe_sweeps.optim.lr_split import Role

pytestmark = needs_megatron
ROUNDING = 2e-6  # relative, of the norm of a gradient; float32 has 1.2e-7, and sums run in another order
QK_NORM = "model.qk_norm=true"
ARMS = [
    ["router=topk_softmax", "balancer=aux"],
    ["router=softmax_topk", "balancer=aux", "aux.normalization=switch", "aux.scope=sequence"],
    ["router=softmax_topk", "router.renormalize=true", "balancer=none"],
    ["router=softmax_topk", "experts.top_k=1", "balancer=aux"],
    ["router=sigmoid", "balancer=aux", "aux.normalization=megatron", "router.z_loss=0"],
    ["router=sigmoid", "router.weight_scale=2.5", "balancer=lossfree"],
    ["router=topk_softmax", "data.mask_documents=true", "balancer=aux", "aux.coef=0"],
    ["experts=dense", "model.norm_eps=1e-3", "model.rope_theta=500"],
    [QK_NORM, "router=topk_softmax", "balancer=aux"],
    [QK_NORM, "router=sigmoid", "balancer=lossfree", "data.mask_documents=true", "model.norm_eps=1e-2"],
    [QK_NORM, "experts=dense", "model.heads=1", "model.rope_theta=500"],
]


def loss_terms(run: RunConfig, output: ModelOutput, balancer: Balancer) -> dict[str, Tensor]:
    """As `gradients.py` adds them up."""
    assert output.loss is not None
    terms = {"loss": output.loss}
    if output.routings:
        aux = balancer.loss(output.routings, num_sequences=4)
        terms |= {} if aux is None else {"aux_loss": aux}
        terms["z_loss"] = run.router.z_loss * z_loss(output.routings)
    return terms


@pytest.mark.parametrize("arm", ARMS, ids=" ".join)
def test_one_step_is_the_same(arm: list[str]) -> None:
    inputs_BS, targets_BS = batch()
    found: dict[str, tuple[dict[str, Tensor], ModelOutput, ModelOutput, Tensor]] = {}
    grads: dict[str, dict[str, Tensor]] = {}
    for engine, (run, model, balancer) in both("scale=smoke", "aux.coef=0.5", *arm).items():
        if isinstance(balancer, LossFree):
            balancer.bias_LE.copy_(torch.linspace(-0.1, 0.1, 16).view(2, 8).flip(1))
        with_gains(model)
        output = model(inputs_BS, targets_BS, ranking=balancer.ranking_TE)
        terms = loss_terms(run, output, balancer)
        (torch.stack(list(terms.values())).sum() / 4).backward()
        grads[engine] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        model.eval()
        with torch.no_grad():
            evaluated = model(inputs_BS, targets_BS, ranking=balancer.ranking_TE)
            logits_BSV = model(inputs_BS, ranking=balancer.ranking_TE).logits_BSV
        found[engine] = terms, output, evaluated, logits_BSV
    (terms, output, evaluated, logits_BSV), ours = found["megatron"], found["native"]
    torch.testing.assert_close(logits_BSV, ours[3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms, ours[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(evaluated.correct_BS, ours[2].correct_BS)  # type: ignore[arg-type]
    for a, b in ((output, ours[1]), (evaluated, ours[2])):
        torch.testing.assert_close(a.token_loss_BS, b.token_loss_BS, rtol=1e-5, atol=1e-6)
        for theirs, native in zip(a.routings, b.routings, strict=True):
            check_routing(theirs, native)
    assert grads["megatron"].keys() == grads["native"].keys()
    for name, grad in grads["native"].items():
        assert (grads["megatron"][name] - grad).norm() <= ROUNDING * grad.norm(), name


def check_routing(theirs: Routing, native: Routing) -> None:
    torch.testing.assert_close(theirs.logits_TE, native.logits_TE, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(theirs.probs_TE, native.probs_TE, rtol=1e-5, atol=1e-6)
    assert torch.equal(theirs.counts_E, native.counts_E)
    (a, order_a), (b, order_b) = theirs.ids_TK.sort(), native.ids_TK.sort()
    assert torch.equal(a, b)
    weights = theirs.weights_TK.gather(1, order_a), native.weights_TK.gather(1, order_b)
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arm", [[], [QK_NORM]], ids=" ".join)
def test_weights_are_those_of_the_native_engine(arm: list[str]) -> None:
    """By name, shape and value, so that they are copied by load_state_dict and paired by their digest."""
    models = {engine: model for engine, (_, model, _) in both("scale=smoke", "seed=3", *arm).items()}
    assert weights_digest(models["megatron"]) == weights_digest(models["native"])
    moved = {name: tensor + 1 for name, tensor in models["native"].state_dict().items()}
    models["megatron"].load_state_dict(moved)
    assert weights_digest(models["megatron"]) != weights_digest(models["native"])
    models["native"].load_state_dict(models["megatron"].state_dict())
    assert weights_digest(models["megatron"]) == weights_digest(models["native"])


def test_gains_of_qk_norm_are_counted_and_grouped_as_the_native_engine_does() -> None:
    groups = {}
    for engine, (run, model, _) in both("scale=smoke", QK_NORM, "lr_split=batch_fraction").items():
        assert sizes(run, VOCAB).params_total == sum(p.numel() for p in model.parameters())
        found = parameter_groups(model, run.lr_split, expected_roles(is_moe=True))
        groups[engine] = [(g.role, g.names, g.as_torch(1.0, 0.1)["weight_decay"]) for g in found]
    assert groups["megatron"] == groups["native"]
    norms = next(names for role, names, decay in groups["megatron"] if role is Role.norm and decay == 0)
    assert sum("qk_norm" in name for name in norms) == 4  # queries' and keys', in two layers


TWENTY = [
    ["router=sigmoid", "balancer=lossfree", "balancer.rate=1e-2"],
    ["router=topk_softmax", "balancer=aux", "lr_split=batch_fraction"],
    ["router=topk_softmax", "balancer=aux", "optimizer=muon"],
    [QK_NORM, "router=sigmoid", "balancer=lossfree", "balancer.rate=1e-2"],
    [QK_NORM, "router=topk_softmax", "balancer=aux", "lr_split=batch_fraction"],
    [QK_NORM, "router=topk_softmax", "balancer=aux", "optimizer=muon"],
]


@pytest.mark.parametrize("arm", TWENTY, ids=" ".join)
def test_twenty_steps_end_alike(folders: object, real_data: TokenData, arm: list[str]) -> None:
    """Two micro-batches a step, so the auxiliary losses must be scaled with the loss. Loads are equal integers."""
    pair = [trainer(compose_run(*TINY, f"engine={e}", *arm), real_data) for e in ("native", "megatron")]
    for _ in range(20):
        native, megatron = (t._train_step() for t in pair)
        assert native.keys() == megatron.keys()
        for name in native:
            torch.testing.assert_close(megatron[name], native[name], rtol=1e-4, atol=1e-4, msg=name)
        for t in pair:
            t.step += 1
    ours, theirs = (t.balancer for t in pair)
    if isinstance(ours, LossFree) and isinstance(theirs, LossFree):
        assert ours.bias_LE.abs().max() > 0
        assert torch.equal(ours.bias_LE, theirs.bias_LE)
    for native_gain, megatron_gain in zip(*(gains(t.model) for t in pair), strict=True):
        assert (native_gain - 1).abs().max() > 1e-3
        torch.testing.assert_close(megatron_gain, native_gain, rtol=1e-4, atol=1e-4)
    evaluations = [t.evaluate(16) for t in pair]
    assert evaluations[1].loss == pytest.approx(evaluations[0].loss, rel=1e-4)
    assert evaluations[1].accuracy == pytest.approx(evaluations[0].accuracy, abs=0.01)


def gains(model: Transformer) -> list[Tensor]:
    return [p.detach() for name, p in model.named_parameters() if "qk_norm" in name]


def tracked(name: str) -> Tensor | None:
    """What Megatron logs by that name, one value a layer, summed since it was last cleared."""
    from megatron.core.transformer.moe import moe_utils

    if hasattr(moe_utils, "get_moe_metrics_tracker"):
        entry = moe_utils.get_moe_metrics_tracker().metrics.get(name)
        return None if entry is None else entry.values
    found = moe_utils.get_moe_layer_wise_logging_tracker().get(name)
    return None if found is None else found["values"]


def step_with_tracker(model: Transformer, balancer: Balancer) -> tuple[tuple[Routing, ...], dict[str, Tensor]]:
    for name in ("load_balancing_loss", "z_loss"):
        values = tracked(name)
        if values is not None:
            values.zero_()
    routings = model(*batch(), ranking=balancer.ranking_TE).routings
    found = {name: tracked(name) for name in ("load_balancing_loss", "z_loss")}
    return routings, {name: values for name, values in found.items() if values is not None}


@pytest.mark.parametrize("router", ["topk_softmax", "sigmoid"])
def test_our_values_are_what_megatron_s_tracker_logs(router: str) -> None:
    _, model, balancer = both("scale=smoke", f"router={router}", "balancer=aux")["megatron"]
    routings, logged = step_with_tracker(model, balancer)
    ours_L = torch.stack([balance_loss(counts_E=r.counts_E, probs_TE=r.probs_TE) for r in routings])
    torch.testing.assert_close(logged["load_balancing_loss"], ours_L, rtol=1e-6, atol=0)
    z_L = torch.stack([z_loss([r]) for r in routings])
    torch.testing.assert_close(logged["z_loss"], z_L, rtol=1e-6, atol=0)


def test_beside_a_bias_megatron_s_auxiliary_loss_counts_picks_without_it() -> None:
    """docs/megatron.md: the loads of balancer=aux_lossfree's loss are those of the scores alone."""
    _, model, balancer = both("scale=smoke", "router=sigmoid", "balancer=aux_lossfree")["megatron"]
    assert isinstance(balancer, LossFree)
    balancer.bias_LE[:, 0] = 1.0  # every token now picks the first expert
    routings, logged = step_with_tracker(model, balancer)
    assert all(r.counts_E[0] == len(r.logits_TE) for r in routings)
    for value, routing in zip(logged["load_balancing_loss"], routings, strict=True):
        ids_TK = routing.logits_TE.topk(2).indices
        unbiased_E = torch.bincount(ids_TK.flatten(), minlength=8)
        expected = balance_loss(counts_E=unbiased_E, probs_TE=routing.probs_TE)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


def test_the_bias_moves_as_megatron_moves_it() -> None:
    from megatron.core.transformer.moe.moe_utils import get_updated_expert_bias

    _, model, balancer = both("scale=smoke", "router=sigmoid", "balancer=lossfree")["megatron"]
    assert isinstance(balancer, LossFree)
    theirs_LE = torch.zeros(2, 8)
    for seed in range(5):
        load_LE = torch.stack([r.counts_E for r in model(*batch(seed), ranking=balancer.ranking_TE).routings])
        balancer.update(load_LE)
        for bias_E, load_E in zip(theirs_LE, load_LE, strict=True):
            bias_E.copy_(get_updated_expert_bias(load_E.float(), bias_E, 1e-3))
    assert theirs_LE.abs().max() > 0
    assert torch.equal(balancer.bias_LE, theirs_LE)


def test_evaluation_changes_no_state_and_draws_no_random_number() -> None:
    line = ["scale=smoke", "router=sigmoid", "balancer=lossfree", "router.input_jitter=0.3"]
    _, model, balancer = both(*line)["megatron"]
    assert isinstance(model, MegatronTransformer)
    skeleton = model._skeletons[1]
    random, buffers = torch.get_rng_state(), {n: b.clone() for n, b in skeleton.gpt.named_buffers()}
    model.eval()
    with torch.no_grad():
        first, again = (model(*batch(), ranking=balancer.ranking_TE).loss for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(random, torch.get_rng_state())
    model.train()
    trained = [model(*batch(), ranking=balancer.ranking_TE).loss for _ in range(2)]
    assert not torch.equal(trained[0], trained[1])  # the jitter
    assert all(torch.equal(b, buffers[n]) for n, b in skeleton.gpt.named_buffers())


@pytest.mark.parametrize("arm", [[], [QK_NORM]], ids=" ".join)
def test_bfloat16_routes_in_float32(arm: list[str]) -> None:
    losses = {}
    for engine, (_, model, balancer) in both("scale=smoke", "trainer.precision=bfloat16", *arm).items():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(*batch(), ranking=balancer.ranking_TE)
        output.loss.backward()
        losses[engine] = output.loss.item()
        assert all(r.logits_TE.dtype is torch.float32 for r in output.routings)
        # A product of bfloat16 has 8 bits, so nearly all of its logits would be numbers of 8 bits.
        logits_TE = output.routings[0].logits_TE
        assert (logits_TE == logits_TE.bfloat16().float()).float().mean() < 0.1
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses["megatron"] == pytest.approx(losses["native"], rel=2e-3)
    assert losses["native"] == pytest.approx(math.log(VOCAB), rel=0.05)
