"""Document masking: what stands in one document changes nothing in the next."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import make_run
from torch import Tensor

from moe_sweeps.config.groups import DenseFFNConfig, ExpertsConfig, ModelConfig, MoEExpertsConfig
from moe_sweeps.data.config import CorpusConfig
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.model.transformer import Transformer, build_model, document_mask

VOCAB, END = 40, 0
EXPERTS = [MoEExpertsConfig(ffn_hidden=16), DenseFFNConfig(ffn_hidden=16)]


def model(experts: ExpertsConfig, *, masked: bool) -> Transformer:
    sizes = ModelConfig(width=16, heads=2, layers=2)
    run = make_run(model=sizes, experts=experts, data=CorpusConfig(mask_documents=masked))
    return build_model(run, VOCAB, END).double()


def logits(ours: Transformer, tokens_BS: Tensor) -> Tensor:
    found = ours(tokens_BS).logits_BSV
    assert isinstance(found, Tensor)
    return found


def test_mask_equals_a_slow_oracle() -> None:
    tokens = [[5, 0, 7, 8, 0, 0, 3], [1, 2, 3, 4, 5, 6, 7]]
    mask_BSS = document_mask(torch.tensor(tokens), END)
    for b, row in enumerate(tokens):
        for s in range(7):
            for t in range(7):
                assert mask_BSS[b, s, t].item() == (t <= s and END not in row[t:s])


@pytest.mark.parametrize("experts", EXPERTS, ids=["moe", "dense"])
def test_logits_do_not_change_with_the_document_before(experts: ExpertsConfig) -> None:
    torch.manual_seed(0)
    first, other, own = (torch.randint(1, VOCAB, (2, 6)) for _ in range(3))
    end = torch.full((2, 1), END)
    a, b = torch.cat([first, end, own], dim=1), torch.cat([other, end, own], dim=1)
    masked, open_ = model(experts, masked=True), model(experts, masked=False)
    # To rounding: an expert's matrix product rounds differently when it has other tokens beside these.
    torch.testing.assert_close(logits(masked, a)[:, 7:], logits(masked, b)[:, 7:], rtol=0, atol=1e-14)
    assert (logits(open_, a)[:, 7:] - logits(open_, b)[:, 7:]).abs().max() > 1e-6


@pytest.mark.parametrize("experts", EXPERTS, ids=["moe", "dense"])
def test_logits_equal_those_of_the_document_alone(experts: ExpertsConfig) -> None:
    torch.manual_seed(1)
    first, own = torch.randint(1, VOCAB, (2, 5)), torch.randint(1, VOCAB, (2, 9))
    joined = torch.cat([first, torch.full((2, 1), END), own], dim=1)
    alone = logits(model(experts, masked=False), own)
    # Rotary angles are float32, so equal differences of positions agree to its rounding, times weights of 0.02.
    torch.testing.assert_close(logits(model(experts, masked=True), joined)[:, 6:], alone, rtol=0, atol=1e-10)


def test_masking_is_part_of_the_identity_and_off_is_what_was_before() -> None:
    off, on = make_run(), make_run(data=CorpusConfig(mask_documents=True))
    assert run_id(off) != run_id(on)
    assert run_id(dataclasses.replace(off, data=CorpusConfig(mask_documents=False))) == run_id(off)


def test_masking_needs_to_know_the_end() -> None:
    with pytest.raises(ValueError, match=r"data\.mask_documents"):
        build_model(make_run(data=CorpusConfig(mask_documents=True)), VOCAB)
