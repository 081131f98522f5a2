"""What stands around a table."""

from __future__ import annotations

from pathlib import Path

from unit.results.folders import make_manifest, make_run, manifest_content, summary

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.reports.notes import caption, legend
from moe_sweeps.reports.suite import COMMITTED
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

ARMS = (("aux", 0.1), ("lossfree", None))


def table_of(root: Path, *kernels: str | None) -> Table:
    """One seed of each of two arms, computed with these kernels."""
    for (balancer, coef), name in zip(ARMS, kernels, strict=True):
        run = make_run(root, balancer, coef, numbers=summary(3.0))
        if name is not None:
            run.update_provenance(arithmetic={"kernels": name, "products": "torch.mm"})
    return ablation_table(make_manifest(root, manifest_content(1, ARMS)), read_runs(root))


def test_runs_of_another_arithmetic_are_said(tmp_path: Path) -> None:
    [line] = [line for line in legend(table_of(tmp_path, "avx2", "avx512")) if line.startswith("arithmetic")]
    assert line.startswith("arithmetic: avx2, torch.mm (1 run); avx512, torch.mm (1 run). The recipes are the same;")


def test_runs_of_one_arithmetic_and_old_ones_that_name_none_say_nothing(tmp_path: Path) -> None:
    for place, kernels in {"same": ("avx2", "avx2"), "old": (None, None), "one": (None, "avx2")}.items():
        assert not any("arithmetic" in line for line in legend(table_of(tmp_path / place, *kernels)))


def test_one_seed_is_judged_by_what_alike_runs_lend() -> None:
    """A caption that denies what the column of findings says."""
    runs, (manifests, _) = read_runs(COMMITTED), load_manifests(COMMITTED)
    noise = Noise.of(runs, manifests)
    [one] = [m for m in manifests if m.table == "shampoo"]
    assert caption(ablation_table(one, runs, noise=noise)).startswith(
        "One seed per arm: there is no spread, and differences are judged by the spread of alike runs"
    )
    assert "cannot be told from seed noise" in caption(ablation_table(one, runs))
