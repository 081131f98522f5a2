"""Inverse roots of symmetric positive semi-definite factors.

Axes: N factors of one stack, D their size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from moe_sweeps.errors import Diverged

# Numbers that are decomposed at a time: a decomposition needs several times its input.
_CHUNK = 2**24


def inverse_roots(factor_NDD: Tensor, exponent: float, eps: float) -> tuple[Tensor, Tensor]:
    """(A + eps I)^exponent of every symmetric A, and which of the N decompositions succeeded, bool (N,).

    Where the smallest eigenvalue of A + eps I is below eps, all of that matrix are raised so that it equals eps
    (arXiv 2309.06497, as its package does). The root of a failed decomposition is undefined.
    """
    roots_NDD, good_N = torch.empty_like(factor_NDD), factor_NDD.new_zeros(len(factor_NDD), dtype=torch.bool)
    size = max(1, _CHUNK // factor_NDD[0].numel()) if len(factor_NDD) else 1
    for start in range(0, len(factor_NDD), size):
        chunk = slice(start, start + size)
        roots_NDD[chunk], good_N[chunk] = _chunk_roots(factor_NDD[chunk], exponent, eps)
    return roots_NDD, good_N


def _chunk_roots(factor_NDD: Tensor, exponent: float, eps: float) -> tuple[Tensor, Tensor]:
    values_ND, vectors_NDD, good_N = eigh(factor_NDD + eps * torch.eye(factor_NDD.shape[-1]).to(factor_NDD))
    lowest_N1 = values_ND[:, :1]
    values_ND = values_ND - (lowest_N1 - eps).clamp(max=0)
    roots_NDD = (vectors_NDD * values_ND.pow(exponent).unsqueeze(1)) @ vectors_NDD.mT
    return roots_NDD, good_N & roots_NDD.isfinite().all(dim=(1, 2))


def eigh(factor_NDD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (N, D) upwards, eigenvectors (N, D, D) in columns, and which succeeded, bool (N,).

    One failure among many costs the others nothing: they are decomposed again one by one.
    """
    try:
        values_ND, vectors_NDD = torch.linalg.eigh(factor_NDD)
        return values_ND, vectors_NDD, values_ND.isfinite().all(dim=1)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # torch does not export it for type checkers
        if len(factor_NDD) == 1:
            nothing = factor_NDD.new_zeros(1, dtype=torch.bool)
            return factor_NDD.new_ones(factor_NDD.shape[:2]), torch.zeros_like(factor_NDD), nothing
    alone = [eigh(factor_NDD[i : i + 1]) for i in range(len(factor_NDD))]
    values, vectors, good = (torch.cat(column) for column in zip(*alone, strict=True))
    return values, vectors, good


def require_finite(factor_NDD: Tensor, owner: Callable[[int], str]) -> None:
    """Refuse NaN and infinity, which one bad gradient leaves in a factor for good.

    Raises:
        Diverged: names the parameter.
    """
    bad_N = ~factor_NDD.isfinite().all(dim=(1, 2))
    if bad_N.any():
        name = owner(int(bad_N.nonzero()[0]))
        raise Diverged(f"a preconditioner's factor of {name} is NaN or infinite: so was a gradient before it")
