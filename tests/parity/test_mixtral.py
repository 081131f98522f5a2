"""Our model and Hugging Face's Mixtral are one function of the same weights: logits, loss and every gradient.

With QK-norm it is Hugging Face's Qwen3-MoE.
"""

from __future__ import annotations

import pytest
import torch
from helpers import make_run, with_gains
from mixtral import as_mixtral, as_qwen3_moe, mixtral_weights
from torch.testing import assert_close
from transformers import PreTrainedModel

from moe_sweeps.config.groups import EngineConfig, ExpertBackend, ModelConfig, MoEExpertsConfig, TrainerConfig
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.transformer import Transformer, build_model

VOCAB = 96


def _run(backend: ExpertBackend, top_k: int = 2, *, qk_norm: bool = False) -> RunConfig:
    return make_run(
        # Weights far larger than at the start of training, so that no part of the model is negligible.
        model=ModelConfig(layers=3, width=32, heads=4, init_std=0.3, norm_eps=1e-3, rope_theta=500.0, qk_norm=qk_norm),
        experts=MoEExpertsConfig(num_experts=4, top_k=top_k, ffn_hidden=24),
        trainer=TrainerConfig(seq_len=24),
        engine=EngineConfig(expert_backend=backend),
    )


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("backend", [ExpertBackend.grouped, ExpertBackend.loop])
def test_logits_loss_and_gradients_equal_mixtral(backend: ExpertBackend, top_k: int) -> None:
    run = _run(backend, top_k)
    ours = build_model(run, VOCAB)
    _assert_one_function(ours, as_mixtral(ours, run, VOCAB), top_k)


@pytest.mark.parametrize("backend", [ExpertBackend.auto, ExpertBackend.loop])
def test_with_qk_norm_they_equal_qwen3(backend: ExpertBackend) -> None:
    run = _run(backend, qk_norm=True)
    ours = with_gains(build_model(run, VOCAB))
    _assert_one_function(ours, as_qwen3_moe(ours, run, VOCAB), top_k=2)


def _assert_one_function(ours: Transformer, theirs: PreTrainedModel, top_k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens_BS, targets_BS = torch.randint(VOCAB, (2, 3, 24), generator=generator).unbind()

    their_logits_BSV = theirs(input_ids=tokens_BS).logits
    our_logits_BSV = ours(tokens_BS).logits_BSV
    assert our_logits_BSV is not None
    assert our_logits_BSV.std() > 0.5
    assert_close(our_logits_BSV, their_logits_BSV, rtol=1e-5, atol=2e-5)

    our_loss = ours(tokens_BS, targets_BS).loss
    assert our_loss is not None
    their_loss = torch.nn.functional.cross_entropy(their_logits_BSV.flatten(0, 1), targets_BS.flatten())
    assert_close(our_loss, their_loss)

    our_loss.backward()
    their_loss.backward()
    expected = {name: param.grad for name, param in theirs.named_parameters() if param.grad is not None}
    found = mixtral_weights({name: param.grad for name, param in ours.named_parameters() if param.grad is not None})
    assert found.keys() == expected.keys()  # the tied head is the embedding in both
    for name, grad in found.items():
        scale = expected[name].abs().max()
        if top_k == 1 and name.endswith("mlp.gate.weight"):  # the weight of a single pick is 1 whatever its logit
            assert scale < 1e-6
            assert grad.abs().max() < 1e-6
        else:
            assert scale > 1e-5, name
            assert_close(grad / scale, expected[name] / scale, rtol=0, atol=2e-5)
