"""Picks by group: counted by hand, and nowhere else than in `count_picks`."""

from __future__ import annotations

import ast
from pathlib import Path

import torch

from moe_sweeps.balancing.load import count_by_group
from moe_sweeps.paths import REPOSITORY

PACKAGE = REPOSITORY / "src" / "moe_sweeps"
IDS_BP = torch.tensor([[0, 1, 1, 2], [2, 2, 2, 0], [1, 1, 0, 0]])


def test_picks_of_groups_of_rows() -> None:
    found = count_by_group(IDS_BP, torch.tensor([1, 0, 1]), 3, 4)
    assert found.tolist() == [[1, 0, 3, 0], [3, 4, 1, 0], [0, 0, 0, 0]]
    assert found.dtype == torch.int64


def test_each_row_is_a_group() -> None:
    found = count_by_group(IDS_BP, torch.arange(3), 3, 3)
    assert found.tolist() == [torch.bincount(row, minlength=3).tolist() for row in IDS_BP]


def scatters_of_ones(path: Path) -> int:
    """Calls such as x.scatter_add_(0, ids, torch.ones_like(ids)): they count."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    texts = [ast.unparse(call) for call in calls if ast.unparse(call.func).endswith("scatter_add_")]
    return sum("torch.ones_like(ids" in text for text in texts)


def test_expert_ids_are_counted_in_one_function() -> None:
    counting = {p.relative_to(PACKAGE).as_posix(): n for p in PACKAGE.rglob("*.py") if (n := scatters_of_ones(p))}
    assert counting == {"model/router.py": 1}
