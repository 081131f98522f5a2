"""Time and memory of the results frame: generated run folders, all runs and all curves, each in a process of its own.

    python benchmarks/results_frame.py [--runs 1000] [--lines 500]

The bound that is held: 1,000 runs with 500 metric lines each in under 10 seconds and under 2 GB, both frames together.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.records.genuine import arm_of, hash_of

SECONDS, GIGABYTES = 10.0, 2.0


def main() -> int:
    """Generate, measure, compare with the bound; exit code 1 if it is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), arguments.runs, arguments.lines)
        command = [sys.executable, __file__, "--measure", folder]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print("  ".join(f"{name} {value:,.2f}" for name, value in found.items()))
    broken = found["seconds_all"] > SECONDS or found["gigabytes"] > GIGABYTES
    print(f"bound: {SECONDS:.0f} s, {GIGABYTES:.0f} GB: {'broken' if broken else 'held'}")
    return int(broken)


def measure(root: Path) -> dict[str, float]:
    """Seconds to import, to read all runs and all curves; the largest resident memory of this process."""
    start = time.perf_counter()
    from moe_sweeps.results import load_curves, load_runs

    imported = time.perf_counter()
    runs, problems = load_runs(root)
    rows = time.perf_counter()
    curves, damaged = load_curves(runs["folder"])
    end = time.perf_counter()
    assert not problems, problems[0]
    assert not damaged, damaged[0]
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    seconds = {"import": imported - start, "runs": rows - imported, "curves": end - rows, "all": end - imported}
    return {f"seconds_{k}": v for k, v in seconds.items()} | {
        "gigabytes": gigabytes,
        "rows": float(len(runs)),
        "records": float(len(curves)),
    }


def generate(root: Path, runs: int, lines: int) -> None:
    """Run folders as the worker leaves them, one in ten with a last line that a crash cut short."""
    for number in range(runs):
        config = _config(number)
        form = {"seed": config["seed"], "number": number // 3}
        folder = root / f"proxy-aux-{hash_of(form)}"
        folder.mkdir(parents=True)
        arm = arm_of(form, config["seed"], config["seed"])
        files: dict[str, Any] = {
            "identity.json": {"version": 1, "run_id": hash_of(form), "arm": arm, "canonical": form},
            "provenance.json": _provenance(),
            "status.json": {"state": "done", "attempt": 1, "step": lines, "total_steps": lines, "heartbeat": 1.8e9},
            "summary.json": {"val_loss": 4.5, "val_perplexity": 90.0, "val_accuracy": 0.25, "val_maxvio_global": 0.3,
                             "train_maxvio_batch": 0.4, "tokens": 2_048_000, "train_seconds": 190.0},
        }  # fmt: skip
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2))
        (folder / "config.yaml").write_text(yaml.dump(config, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
        (folder / "metrics.jsonl").write_text(curve_text(lines) + ('{"step": 99' if number % 10 == 0 else ""))


def curve_text(lines: int) -> str:
    """metrics.jsonl of a run."""
    return "".join(json.dumps(record) + "\n" for record in map(_record, range(1, lines + 1)))


def _record(step: int) -> dict[str, Any]:
    value = 4 + math.exp(-step / 100)
    if step % 10 == 0:
        return {"step": step, "split": "val", "tokens": 65_536, "loss": value, "perplexity": 2.0**value,
                "accuracy": value / 20, "maxvio_global": value / 10}  # fmt: skip
    names = ("loss", "lr", "grad_norm", "aux_loss", "z_loss", "maxvio_batch", "maxvio_micro", "cv", "gini", "n_eff",
             "dead", "token_entropy", "batch_entropy", "mutual_information", "max_prob", "logit_scale")  # fmt: skip
    return (
        {"step": step, "split": "train"}
        | {n: value / (i + 1) for i, n in enumerate(names)}
        | {"tokens_per_second": 1e4}
    )


def _config(number: int) -> dict[str, Any]:
    groups = ("model", "experts", "router", "balancer", "aux", "optimizer", "schedule", "data", "trainer", "launch")
    knobs = {f"knob{j}": 0.1 * j for j in range(8)}
    return {group: {"kind": "x"} | knobs for group in groups} | {"seed": number % 3, "scale": "proxy"}


def _provenance() -> dict[str, Any]:
    return {"source_hash": "c0de", "data_fingerprint": "da7a", "git": {"commit": "abc", "dirty": False, "diff": ""},
            "pairing": {"initial_weights": "f00", "batches": "ba7"}, "command": "python train.py"}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
