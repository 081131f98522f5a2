"""Does this working tree train to the same bits as another commit? For changes that must not change a result.

    python benchmarks/same_bits.py COMMIT

Both trees are copied into a temporary folder, and each trains the same short runs, one `train.py -m` a tree: every
option of GROUPS once, beside the defaults of the others. Compared to the last digit are the run ids, every number of
metrics.jsonl and summary.json that is not a time, and a hash of the final weights. It prints one line a run and exits
with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from moe_sweeps.kernels.arithmetic import is_x86

REPOSITORY = Path(__file__).resolve().parents[1]
GROUPS = ("balancer", "optimizer", "lr_split", "router", "schedule")
SWEEP = "same_bits"
# Two micro-batches a step, so that what happens once a step and what happens once a micro-batch are told apart.
LINE = ["scale=smoke", "trainer.steps=12", "trainer.micro_batch_size=4", "trainer.log_every=1", "trainer.eval_every=6"]
LINE += ["trainer.eval_sequences=8", "trainer.final_eval_sequences=8", "schedule.warmup_steps=3"]
LINE += ["launch.workers=1", "launch.threads=1"]
# What older trees mean by scale=smoke.
LINE += ["model.qk_norm=false", "model.init_std=0.02", "optimizer.base_lr=6e-3", "trainer.grad_clip=1"]
# What an option needs besides its name to do anything within so few steps.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {("optimizer", "shampoo"): {"optimizer.precondition_frequency": 4}}
# Names of numbers that measure the machine and not the run.
OF_THE_MACHINE = ("seconds", "tokens_per_second", "peak")


def main() -> int:
    """Train in both trees and compare; 1 where anything differs or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="the commit to compare this working tree with")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory() as name:
        then, now = Path(name) / "then", Path(name) / "now"
        copy_commit(commit, then)
        copy_working_tree(now)
        grid = union(then / "conf", now / "conf")
        found = [_results(tree, grid, told) for tree, told in alike(then, now).items()]
        return compare(*found)


def alike(*trees: Path) -> dict[Path, list[str]]:
    """What each tree is told, so that all compute alike: code from before there was a choice has AVX2 alone."""
    choose = [tree for tree in trees if (tree / "src" / "moe_sweeps" / "kernels" / "arithmetic.py").exists()]
    told = ["engine.kernels=avx2"] if is_x86() and len(choose) < len(trees) else []
    return {tree: told if tree in choose else [] for tree in trees}


def copy_commit(commit: str, tree: Path) -> None:
    """The files of `commit`, without history. Raises CalledProcessError where there is no such commit."""
    tree.mkdir()
    packed = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "--extract", "--directory", str(tree)], input=packed, check=True)


def copy_working_tree(tree: Path) -> None:
    """The files of this working tree as they are now, committed or not, without what git ignores."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout.decode().split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():  # one that was deleted is still listed
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, tree / name)


def union(*confs: Path) -> list[dict[str, Any]]:
    """The grid of the sweep: one block for each option that all of `confs` have."""
    options = [(group, sorted(set.intersection(*(_options(conf / group) for conf in confs)))) for group in GROUPS]
    return [{group: kind} | BESIDE.get((group, kind), {}) for group, kinds in options for kind in kinds]


def _options(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.yaml")}


def _results(tree: Path, grid: list[dict[str, Any]], told: list[str]) -> dict[str, dict[str, Any]]:
    """Train `grid` with the code of `tree`, which is `told` more; what each run folder says, by its name."""
    baseline = grid[0]
    claim = {"claim": "None.", "kind": "spread_at_most", "metric": "val_loss", "arm": baseline, "bound": 1}
    sweep = {"question": "Same bits?", "source": "none", "baseline": baseline, "seeds": [0], "expect": [claim]}
    (tree / "sweeps" / f"{SWEEP}.yaml").write_text(yaml.safe_dump(sweep | {"grid": grid}))
    folders = {name: str(tree / name) for name in ("runs", "data", "reports")}
    environment = os.environ | {f"MOE_SWEEPS_{name.upper()}": folder for name, folder in folders.items()}
    environment["PYTHONPATH"] = str(tree / "src")  # an older train.py takes the package that is installed
    command = [sys.executable, "train.py", "-m", f"sweep={SWEEP}", *LINE, *told]
    subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)
    return {setting_of(path.parent): numbers_of(path.parent) for path in (tree / "runs").glob("*/config.yaml")}


def setting_of(folder: Path) -> str:
    """What the run was asked for, as far as it is of GROUPS, and its name with its id, which must not change either."""
    asked = yaml.safe_load((folder / "overrides.yaml").read_text())
    return f"{' '.join(s for s in asked if s.split('=')[0] in GROUPS):<28} {folder.name}"


def numbers_of(folder: Path) -> dict[str, Any]:
    """Every number of a finished run that must not change, by a name that says where it stands."""
    numbers = {f"summary {key}": value for key, value in json.loads((folder / "summary.json").read_text()).items()}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        place = f"{record.pop('split')} step {record.pop('step')}"
        numbers |= {f"{place} {key}": value for key, value in record.items()}
    kept = {name: value for name, value in numbers.items() if not any(part in name for part in OF_THE_MACHINE)}
    return kept | {"weights": weights_of(folder)}


def weights_of(folder: Path) -> str:
    """A hash over names, shapes, types and bytes of the weights in the last checkpoint."""
    last = max((folder / "checkpoints").glob("step-*.pt"))
    digest = hashlib.sha256()
    for name, weight in sorted(torch.load(last, map_location="cpu", weights_only=True)["model"].items()):
        digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        digest.update(weight.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def compare(then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> int:
    """Print one line a run, and what differs first; 1 where anything does."""
    differing = 0
    for name in sorted(then.keys() | now.keys()):
        before, after = then.get(name, {}), now.get(name, {})
        differences = [key for key in before | after if before.get(key) != after.get(key)]
        differing += bool(differences)
        verdict = f"{len(differences)} of {len(before | after)} numbers differ" if differences else "same"
        weights = after.get("weights", "no such run now")
        print(f"{name:<60} {len(after):>4} numbers, weights {weights}  {verdict}")
        for key in differences[:3]:
            print(f"    {key}: {before.get(key)} then, {after.get(key)} now")
    print(f"{differing} of {len(then.keys() | now.keys())} runs differ")
    return 1 if differing or not now else 0


if __name__ == "__main__":
    sys.exit(main())
