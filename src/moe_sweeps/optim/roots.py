"""Inverse roots of symmetric positive semi-definite factors.

Axes: N factors of one stack, D their size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from moe_sweeps.errors import Diverged
from moe_sweeps.optim.findings import Findings

# Numbers that are decomposed at a time, because a decomposition needs several times the memory of its input.
_CHUNK = 2**24


def inverse_roots(factor_NDD: Tensor, exponent: float, eps: float) -> tuple[Tensor, Tensor]:
    """(A + eps I)^exponent of every symmetric A, (N, D, D), and which decompositions succeeded, bool (N,).

    If the smallest eigenvalue of A + eps I is below eps, all eigenvalues of that matrix are raised so that it equals
    eps, as in the package of arXiv 2309.06497. The root of a failed decomposition is undefined.
    """
    roots_NDD, good_N = torch.empty_like(factor_NDD), factor_NDD.new_zeros(len(factor_NDD), dtype=torch.bool)
    size = max(1, _CHUNK // factor_NDD[0].numel()) if len(factor_NDD) else 1
    for start in range(0, len(factor_NDD), size):
        chunk = slice(start, start + size)
        roots_NDD[chunk], good_N[chunk] = _chunk_roots(factor_NDD[chunk], exponent, eps)
    return roots_NDD, good_N


def _chunk_roots(factor_NDD: Tensor, exponent: float, eps: float) -> tuple[Tensor, Tensor]:
    eye_DD = torch.eye(factor_NDD.shape[-1], dtype=factor_NDD.dtype, device=factor_NDD.device)
    values_ND, vectors_NDD, good_N = eigh(factor_NDD + eps * eye_DD)
    lowest_N1 = values_ND[:, :1]
    values_ND = values_ND - (lowest_N1 - eps).clamp(max=0)
    roots_NDD = (vectors_NDD * values_ND.pow(exponent).unsqueeze(1)) @ vectors_NDD.mT
    return roots_NDD, good_N & roots_NDD.isfinite().all(dim=(1, 2))


def eigh(factor_NDD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (N, D) in ascending order, eigenvectors (N, D, D) in columns, and which succeeded, bool (N,).

    If one decomposition fails, all are repeated one by one, so that the others succeed. torch reads from a GPU whether
    one did, which synchronises with it.
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


def finite(factor_NDD: Tensor, owner: Callable[[int], str], findings: Findings) -> Tensor:
    """`factor_NDD`, once NaN and infinity are refused. A factor never recovers from one gradient that had them.

    On a GPU they are refused at the end of the step, and 0 stands for such a factor until then.

    Raises:
        Diverged: a factor is not finite. The message names the parameter, from `owner` of the factor's number.
    """
    bad_N = ~factor_NDD.isfinite().all(dim=(1, 2))
    findings.add(bad_N, partial(_refuse, owner))
    return factor_NDD if factor_NDD.device.type == "cpu" else factor_NDD.masked_fill(bad_N.view(-1, 1, 1), 0.0)


def _refuse(owner: Callable[[int], str], bad_N: list[int]) -> None:
    if any(bad_N):
        name = owner(bad_N.index(1))
        raise Diverged(f"a preconditioner's factor of {name} is NaN or infinite: so was a gradient before it")
