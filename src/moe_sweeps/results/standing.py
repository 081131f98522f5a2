"""What stands after several looks of `decide` at one sweep.

The errors of all looks together are held within LEVEL (results/looks.py), so what one look has decided stays decided: a
later look is held against a stricter level, and may leave the same statement open with more seeds. Each statement is
counted once, with the newest look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.words import CONTRADICTED, REPRODUCED, UNDECIDED
from moe_sweeps.results.claims import judge
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.noise import Noise, is_look_of_decide
from moe_sweeps.results.runs import Runs
from moe_sweeps.results.tables import Table, ablation_table

DECIDED = (REPRODUCED, CONTRADICTED)


def is_replaced(manifest: Manifest, manifests: Sequence[Manifest]) -> bool:
    """Whether another look of `decide` at the same sweep counts in place of this one.

    That is a later one at the same arms or more. One that has just begun may name fewer arms than the look before it:
    then that one counts until it is over.
    """
    return any(_replaces(other, manifest) for other in manifests)


def standing_verdicts(table: Table, runs: Runs, noise: Noise | None) -> list[Verdict]:
    """The verdict on every claim of the sweep, where it is open that of the first look that decided it."""
    own = judge(table)
    if noise is None or not any(map(_is_open, own)):
        return own
    before = [m for m in noise.manifests if _are_looks(m, table.manifest) and m.moment < table.manifest.moment]
    for manifest in sorted(before, key=lambda other: other.moment):
        earlier = ablation_table(manifest, runs, noise=noise)
        answers = [*zip(manifest.expect, judge(earlier), strict=True)]
        for i, claim in enumerate(table.manifest.expect):
            same = [answer for other, answer in answers if other.asked() == claim.asked()]
            own[i] = _carried(same[0], earlier, own[i]) if same else own[i]
    return own


def _are_looks(one: Manifest, other: Manifest) -> bool:
    return one.name == other.name and is_look_of_decide(one) and is_look_of_decide(other)


def _replaces(other: Manifest, manifest: Manifest) -> bool:
    if not _are_looks(other, manifest) or not _arms(other) >= _arms(manifest):
        return False
    is_wider = _arms(other) > _arms(manifest) and _claims(other) == _claims(manifest)  # else the sweep was edited since
    return is_wider or other.moment > manifest.moment


def _claims(manifest: Manifest) -> list[str]:
    return [statement.claim for statement in manifest.expect]


def _arms(manifest: Manifest) -> set[str]:
    return {planned.arm for planned in manifest.runs.values()}


def _is_open(verdict: Verdict) -> bool:
    """Whether it was tested and left open; what cannot be judged today does not stand either."""
    return verdict.verdict == UNDECIDED and verdict.p is not None


def _carried(answer: Verdict, earlier: Table, verdict: Verdict) -> Verdict:
    if not _is_open(verdict) or answer.verdict not in DECIDED:
        return verdict
    why = f"{answer.why}; decided by look {earlier.looks} ({earlier.title}), which stands"
    return replace(answer, why=f"{why}; with the runs since then: {verdict.why}")
