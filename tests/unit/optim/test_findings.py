"""What a step found out is acted on at once on a CPU, and together on any other device."""

from __future__ import annotations

import pytest
import torch

from moe_sweeps.errors import Diverged
from moe_sweeps.optim.findings import Findings
from moe_sweeps.optim.roots import finite


def test_on_a_cpu_it_acts_at_once() -> None:
    seen: list[list[int]] = []
    findings = Findings()
    findings.add(torch.tensor([0.0, 2.0, 1.0]), seen.append)
    findings.add(torch.tensor([True, False]), seen.append)
    assert seen == [[0, 2, 1], [1, 0]]
    findings.read()
    assert len(seen) == 2


class Elsewhere(torch.Tensor):
    """A tensor that says that it is not on the CPU."""

    device = torch.device("cuda")


def elsewhere(*values: float) -> torch.Tensor:
    return torch.tensor(values).as_subclass(Elsewhere)


def test_elsewhere_it_acts_when_read_in_order_and_once() -> None:
    seen: list[tuple[str, list[int]]] = []
    findings = Findings()
    findings.add(elsewhere(0, 3), lambda numbers: seen.append(("first", numbers)))
    findings.add(elsewhere(1), lambda numbers: seen.append(("second", numbers)))
    assert seen == []
    findings.read()
    assert seen == [("first", [0, 3]), ("second", [1])]
    findings.read()
    assert len(seen) == 2


def test_elsewhere_zeros_stand_for_what_is_not_finite_until_it_is_refused() -> None:
    factor_NDD = torch.eye(3).repeat(2, 1, 1)
    factor_NDD[1, 0, 0] = torch.nan
    findings = Findings()
    sound_NDD = finite(factor_NDD.as_subclass(Elsewhere), lambda block: f"block {block}", findings)
    assert sound_NDD.tolist() == [torch.eye(3).tolist(), torch.zeros(3, 3).tolist()]
    with pytest.raises(Diverged, match="factor of block 1 is NaN"):
        findings.read()


def test_nothing_is_read_where_nothing_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "cat")
    Findings().read()
