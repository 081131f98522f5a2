"""How often does a table of forks call one of several identical arms better? Real runs: python benchmarks/aa_forks.py

Three arms whose aux.coef differs in the seventh digit continue from shared trunks: the same recipe for all purposes,
but no two runs are equal bit for bit. Each table has trunks and replicates of its own, and is the product's own:
planned, trained, read and judged as one that is typed. Type the line again with `--runs` and it goes on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from aa_experiment import COEFS, SMALL

from moe_sweeps.cli.train import main as train
from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

FORK_AT = 20  # of 60 steps
TRUNKS_A_TABLE, REPLICATES = 4, 2
FOUND = ("better", "worse")


def main() -> None:
    """Train what is missing, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=40)
    parser.add_argument("--runs", type=Path, help="keep the runs here; default: a folder that is removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = (arguments.runs or Path(folder) / "runs").resolve()
        os.environ |= {"MOE_SWEEPS_RUNS": str(root), "MOE_SWEEPS_REPORTS": str(Path(folder) / "reports")}
        train(line(arguments.tables))
        tables = list(sliced(root, arguments.tables))
    print(f"{sum(len(arm.runs) for table in tables for arm in table.arms)} forks in {len(tables)} tables")
    for metric, called in findings(tables).items():
        print(f"  {metric}: a finding in {called} of {len(tables)} tables")


def line(tables: int) -> list[str]:
    """The sweep that all tables are cut from."""
    coefs, seeds = ",".join(map(str, COEFS)), f"range(0,{tables * TRUNKS_A_TABLE})"
    forks = [f"fork.step={FORK_AT}", f"fork.replicates={REPLICATES}"]
    return ["-m", *SMALL, f"aux.coef={coefs}", f"seed={seeds}", *forks]


def sliced(root: Path, tables: int) -> Iterator[Table]:
    """The tables, each of its own seeds."""
    manifests, problems = load_manifests(root)
    assert not problems, problems
    whole = max(manifests, key=lambda manifest: len(manifest.runs))
    runs = read_runs(root)
    for number in range(tables):
        seeds = range(number * TRUNKS_A_TABLE, (number + 1) * TRUNKS_A_TABLE)
        yield ablation_table(_of_seeds(whole, seeds), runs)


def _of_seeds(whole: Manifest, seeds: range) -> Manifest:
    return replace(whole, runs={run_id: record for run_id, record in whole.runs.items() if record.seed in seeds})


def findings(tables: list[Table]) -> Counter[str]:
    """Metric -> tables in which an arm is called better or worse; each metric is a family of tests."""
    found: Counter[str] = Counter()
    for table in tables:
        for metric, comparisons in {PRIMARY.column: table.differences, **table.others}.items():
            found[metric] += any(comparison.verdict in FOUND for comparison in comparisons.values())
    return found


if __name__ == "__main__":
    main()
