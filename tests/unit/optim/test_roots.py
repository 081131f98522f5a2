"""Inverse roots against numpy in float64, the floor of eigenvalues, and decompositions that fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from moe_sweeps.errors import Diverged
from moe_sweeps.optim import roots
from moe_sweeps.optim.findings import Findings
from moe_sweeps.optim.roots import eigh, finite, inverse_roots


def factors(num: int, size: int, rank: int | None = None) -> Tensor:
    x = torch.randn(num, size, rank or 3 * size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x @ x.mT / size


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_power_of_the_root_gives_the_inverse(order: int) -> None:
    factor = factors(3, 6)
    found, good = inverse_roots(factor, -1 / (2 * order), 1e-8)
    assert good.all()
    for a, root in zip(factor, found, strict=True):
        inverse = np.linalg.inv(a.numpy() + 1e-8 * np.eye(6))
        np.testing.assert_allclose(np.linalg.matrix_power(root.numpy(), 2 * order), inverse, rtol=1e-9)


def test_many_are_decomposed_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = factors(7, 4)
    whole, _ = inverse_roots(factor, -0.25, 1e-8)
    monkeypatch.setattr(roots, "_CHUNK", 2 * 16)
    torch.testing.assert_close(inverse_roots(factor, -0.25, 1e-8)[0], whole, rtol=1e-12, atol=1e-15)


def test_eigenvalues_below_eps_raise_all_of_that_matrix() -> None:
    """diag(3, 1, -0.1) with eps 0.01: the lowest, -0.09, must become 0.01, so all rise by 0.1."""
    factor = torch.stack(
        [torch.diag(torch.tensor([3.0, 1.0, -0.1])), torch.diag(torch.tensor([3.0, 1.0, 0.0]))]
    ).double()
    found, good = inverse_roots(factor, -0.5, 0.01)
    assert good.all()
    np.testing.assert_allclose(found[0].diagonal(), np.array([3.11, 1.11, 0.01]) ** -0.5)
    np.testing.assert_allclose(found[1].diagonal(), np.array([3.01, 1.01, 0.01]) ** -0.5)


def test_one_failure_among_many_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = factors(4, 5)
    whole, _ = inverse_roots(factor, -0.25, 1e-8)
    fail_on(monkeypatch, factor[2, 0, 0].item() + 1e-8)
    found, good = inverse_roots(factor, -0.25, 1e-8)
    assert good.tolist() == [True, True, False, True]
    torch.testing.assert_close(found[good], whole[good])


def fail_on(monkeypatch: pytest.MonkeyPatch, corner: float) -> None:
    """Make torch's decomposition fail for any batch that has a matrix with this first entry."""
    real = torch.linalg.eigh

    def failing(matrix: Tensor) -> tuple[Tensor, Tensor]:
        if (matrix[:, 0, 0] == corner).any():
            raise torch.linalg.LinAlgError("failed to converge")  # type: ignore[attr-defined]
        values, vectors = real(matrix)
        return values, vectors

    monkeypatch.setattr(torch.linalg, "eigh", failing)


def test_torch_itself_fails_in_the_way_that_is_caught() -> None:
    """A NaN is one thing that LAPACK gives up on."""
    factor = factors(2, 3)
    factor[1] = torch.nan
    assert eigh(factor)[2].tolist() == [True, False]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_factor_that_is_not_finite_names_its_parameter(bad: float) -> None:
    factor, findings = factors(3, 4), Findings()
    assert finite(factor, lambda block: "x", findings) is factor
    factor[1, 2, 3] = bad
    with pytest.raises(Diverged, match="a preconditioner's factor of block 1 is NaN or infinite"):
        finite(factor, lambda block: f"block {block}", findings)
