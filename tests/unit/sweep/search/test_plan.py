"""The plan of a search: its id, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from moe_sweeps.sweep.search.plan import make_search_plan

LINE = ("search=random", "scale=smoke_v1")  # whose ids are stored below


def search_id(*line: str) -> str:
    return make_search_plan((*LINE, *line)).search_id


@pytest.mark.parametrize(
    ("shared", "one", "other"),
    [
        (["balancer=lossfree,aux"], ["aux.coef=0.2"], ["aux.coef=0.3"]),
        (["balancer=lossfree,aux"], ["aux.coef=0.2"], []),
        (["optimizer.weight_decay=0.1,0.2"], ["router.weight_decay=0.1"], []),
        (["aux.coef=0.1,0.2"], ["router.z_loss=0.1"], ["router.z_loss=${aux.coef}"]),
        (["experts=dense,e8"], ["router=sigmoid"], []),
        ([], ["experts.top_k=range(2,6)"], ["experts.top_k=2,3,4,5"]),
        ([], ["aux.coef=interval(0.1,0.2)"], ["aux.coef=interval(0.1,0.20000001)"]),
    ],
    ids=str,
)
def test_different_searches_have_different_ids(shared: list[str], one: list[str], other: list[str]) -> None:
    assert search_id(*shared, *one) != search_id(*shared, *other)


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (["aux.coef=0.1,0.2", "balancer=aux,lossfree"], "f2d13dd0624f"),
        (["balancer=lossfree,aux"], "5a6c94486726"),
        (["balancer=lossfree,aux", "aux.coef=0.10"], "5a6c94486726"),  # the default
        (["balancer=lossfree", "aux.coef=0.3", "optimizer.base_lr=1e-3,1e-2"], "162cb6f27d48"),  # no trial reads it
        (["experts.top_k=2,3,4,5"], "49f12c1ea92c"),
        (["aux.coef=tag(log,interval(0.1,0.2))"], "43cf88e0bb83"),
        (["router.z_loss=0.1", "aux.coef=interval(0,1)"], "c3dfed42b10b"),
    ],
    ids=str,
)
def test_a_search_keeps_its_id(line: list[str], known: str) -> None:
    assert search_id(*line) == known


def test_a_spelling_is_no_other_search() -> None:
    assert len({search_id("balancer=lossfree,aux", f"aux.coef={text}") for text in ("0.2", "0.20", "2e-1")}) == 1
