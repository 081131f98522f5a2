"""Blocks: merged and cut by hand-computed shapes, views that cover each number once, seams where the model's are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import make_run
from torch import Tensor

from moe_sweeps.config.groups import DenseFFNConfig, MoEExpertsConfig
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.model.moe import swiglu
from moe_sweeps.model.transformer import Transformer, build_model
from moe_sweeps.optim import blocks
from moe_sweeps.optim.blocks import Stacks, cut_blocks, flat, merged
from moe_sweeps.optim.groups import matrices


@pytest.mark.parametrize(
    ("shape", "limit", "expected"),
    [
        ((64, 64), 768, (64, 64)),
        ((8, 64), 768, (512,)),
        ((8, 96), 768, (768,)),
        ((8, 97), 768, (8, 97)),
        ((768,), 768, (768,)),
        ((50304, 768), 768, (50304, 768)),
        ((4, 5, 6), 20, (20, 6)),
        ((4, 5, 6), 30, (20, 6)),  # left to right: 5 and 6 would fit, too
        ((6, 7, 2, 3), 14, (6, 14, 3)),
        ((1, 5000), 768, (5000,)),
        ((1, 1), 768, (1,)),
    ],
)
def test_dimensions_are_merged_from_the_left_within_the_limit(
    shape: tuple[int, ...], limit: int, expected: tuple[int, ...]
) -> None:
    assert merged(shape, limit) == expected


def test_every_dimension_is_cut_into_pieces_of_at_most_the_limit() -> None:
    found = [tuple(block.shape) for block in cut_blocks(torch.empty(3, 1600, 1000), 768)]
    assert found == [(3, 768, 768), (3, 768, 232), (3, 768, 768), (3, 768, 232), (3, 64, 768), (3, 64, 232)]


@pytest.mark.parametrize("shape", [(5, 12, 7), (1, 30), (2, 3, 4), (1, 2, 3, 4)])
def test_blocks_are_views_that_cover_every_number_once(shape: tuple[int, ...]) -> None:
    stack = torch.zeros(shape)
    for block in cut_blocks(stack, 5):
        block += 1
        assert max(block.shape[1:]) <= 5
    assert torch.equal(stack, torch.ones(shape))


def test_stacks_join_blocks_of_one_shape_and_know_their_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a", "b", "c")
    params = [torch.zeros(4, 6), torch.zeros(4, 6), torch.zeros(2, 6)]
    stacks = Stacks(names, params, matrices)
    assert stacks.shapes == [(2, 4, 6), (1, 2, 6)]
    assert [stacks.owner(0, 0), stacks.owner(0, 1), stacks.owner(1, 0)] == ["a", "b", "c"]
    for views in stacks.views(params):
        for view in views:
            view += 1
    assert all(torch.equal(param, torch.ones_like(param)) for param in params)
    monkeypatch.setattr(blocks, "STACK_LIMIT", 30)  # 24 numbers fit, 48 do not
    assert Stacks(names, params, matrices).shapes == [(1, 4, 6), (1, 4, 6), (1, 2, 6)]
    assert Stacks(names, params, flat).shapes == [(24,), (24,), (12,)]


def test_experts_gates_and_queries_are_matrices_of_their_own() -> None:
    shapes = {
        "layers.0.moe.experts.up_EHD": ((8, 20, 6), [(8, 10, 6)] * 2),
        "layers.0.moe.experts.down_EDF": ((8, 6, 10), [(8, 6, 10)]),
        "layers.0.ffn.up_HD": ((20, 6), [(1, 10, 6)] * 2),
        "layers.0.attention.qkv_QD": ((18, 6), [(1, 6, 6)] * 3),
        "layers.0.attention.out_DD": ((6, 6), [(1, 6, 6)]),
        "layers.0.moe.router.weight_ED": ((8, 6), [(1, 8, 6)]),
        "embedding.weight": ((30, 6), [(1, 30, 6)]),
        "final_norm.weight": ((6,), [(1, 6)]),
    }
    for name, (shape, expected) in shapes.items():
        assert [tuple(m.shape) for m in matrices(name, torch.empty(shape))] == expected, name
    with pytest.raises(MoeSweepsError, match=r"mystery of shape \(2, 3, 4\) is neither a matrix nor a stack"):
        matrices("mystery", torch.empty(2, 3, 4))


@pytest.mark.parametrize(
    "experts", [MoEExpertsConfig(ffn_hidden=24), DenseFFNConfig(ffn_hidden=24)], ids=["moe", "dense"]
)
def test_the_matrices_of_a_model_are_all_of_it(experts: Any) -> None:
    run = make_run(experts=experts)
    model = build_model(run, 512)
    found = {name: matrices(name, param) for name, param in model.named_parameters()}
    for name, param in model.named_parameters():
        assert sum(m.numel() for m in found[name]) == param.numel()
    wide = sum(len(m) for ms in found.values() for m in ms if m.dim() == 3)
    feed_forward = 8 * 3 + 1 if experts.is_moe else 3  # gate, up, down of each expert, and the router
    assert wide == run.model.layers * (4 + feed_forward) + 1


def test_the_seams_are_where_the_model_cuts() -> None:
    """Attention's and an expert's own forward pass, written with the separate matrices."""
    torch.manual_seed(0)
    model: Transformer = build_model(make_run(), 512)
    layer = model.layers[0]
    x_TD = torch.randn(5, 64)
    up, down = (dict(layer.named_parameters())[f"moe.experts.{n}"] for n in ("up_EHD", "down_EDF"))
    gates_EFD, ups_EFD = matrices("moe.experts.up_EHD", up)
    for e in range(8):
        whole = F.linear(swiglu(F.linear(x_TD, up[e])), down[e])
        apart = (F.silu(x_TD @ gates_EFD[e].T) * (x_TD @ ups_EFD[e].T)) @ down[e].T
        torch.testing.assert_close(apart, whole)
    qkv = dict(layer.named_parameters())["attention.qkv_QD"]
    pieces = matrices("attention.qkv_QD", qkv)
    assert _attention_uses(layer.attention, pieces)


def _attention_uses(attention: Any, pieces: list[Tensor]) -> bool:
    """Whether zeroing the last piece, the values, silences attention, and zeroing the first makes it uniform."""
    x_BSD = torch.randn(1, 4, 64)
    rotary = (torch.ones(4, 16), torch.zeros(4, 16))  # no rotation
    with torch.no_grad():
        kept = attention.qkv_QD.clone()
        pieces[2].zero_()
        silent = bool((attention(x_BSD, rotary) == 0).all())
        attention.qkv_QD.copy_(kept)
        pieces[0].zero_()
        means = F.linear(F.linear(x_BSD, pieces[2][0]).cumsum(1) / torch.arange(1, 5).view(1, 4, 1), attention.out_DD)
        uniform = torch.allclose(attention(x_BSD, rotary), means, atol=1e-6)
    return silent and uniform
