"""How often the verdicts of tables err, and what they find: python benchmarks/evidence.py [--part NAME] [--save]

Simulated tables of identical arms (family-wise error: at least one arm is called different) and of one arm that differs
(power), for the test that the tables use and for its rivals; looks, promises, proposals, scorecards. Rates have their
upper 95% limit (Clopper & Pearson). `--save` writes benchmarks/results/evidence/, `--page` puts what lies there into
docs/results.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from simulated import beside, calibration, looking, page, promises, resampled, scorecards, store
from simulated.rates import Row

# What counts the rows of a part, and how many tables, programs or scorecards the page shows.
PARTS: dict[str, tuple[Callable[[int], list[Row]], int]] = {
    "calibration": (calibration.rows, 2000), "rivals": (beside.rows, 750), "looks": (looking.rows, 4000),
    "promises": (promises.rows, 1000), "resampled": (resampled.rows, 400), "scorecards": (scorecards.rows, 96),
}  # fmt: skip


def main() -> None:
    """Print the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the tables that the page shows")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--save", action="store_true", help=f"write {store.FOLDER}")
    parser.add_argument("--page", action="store_true", help=f"write {page.PAGE.name} from {store.FOLDER}")
    arguments = parser.parse_args()
    for name in [] if arguments.page else arguments.part or PARTS:
        count, tables = PARTS[name]
        began, cpu = time.perf_counter(), _cpu_seconds()
        rows = count(max(8, int(arguments.share * tables)))
        cpu = _cpu_seconds() - cpu
        print(f"## {name}\n\n" + "\n".join(page.LINES[name](rows)))
        print(f"\n({time.perf_counter() - began:.0f} s, {cpu:.0f} CPU s)\n", flush=True)
        if arguments.save:
            store.save(name, rows, round(cpu, 1))
    if arguments.page:
        page.PAGE.write_text(page.rendered(page.PAGE.read_text()))


def _cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
