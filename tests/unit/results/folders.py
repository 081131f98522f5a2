"""Run folders and sweeps, made by hand: what the worker and the planner would have left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moe_sweeps.host.files import read_json, write_json
from moe_sweeps.records.genuine import arm_of, hash_of
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.rundir import Failure, RunDir, State, Status

NOW = 1_800_000_000.0
CODE, DATA = "c0de" * 16, "da7a" * 16
DEMO_ARMS: tuple[tuple[str, float | None], ...] = (("aux", 0.1), ("aux", 0.2), ("aux", 0.6), ("lossfree", None))


def arm_hash(balancer: str, coef: float | None) -> str:
    """Twelve hex digits, the same for all seeds."""
    return arm_of(canonical(balancer, coef, 0), 0, 0)


def run_hash(balancer: str, coef: float | None, seed: int) -> str:
    """Twelve hex digits of one run."""
    return hash_of(canonical(balancer, coef, seed))


def canonical(balancer: str, coef: float | None, seed: int) -> dict[str, Any]:
    aux = {} if coef is None else {"aux": {"kind": "default", "coef": coef}}
    return {"balancer": {"kind": balancer}, **aux, "trainer": {"steps": 200}, "seed": seed}


def summary(val_loss: float, **changes: Any) -> dict[str, Any]:
    """Final numbers that follow from `val_loss`."""
    numbers = {"val_loss": val_loss, "val_perplexity": 10 * val_loss, "val_accuracy": val_loss / 10}
    numbers |= {"val_maxvio_global": val_loss / 4, "train_maxvio_batch": val_loss / 2}
    return {**numbers, "tokens": 40_960, "wall_seconds": 9.5, "tokens_per_second": 4311.6, **changes}


def make_run(root: Path, balancer: str = "aux", coef: float | None = 0.1, seed: int = 0, *,
             state: str = "done", numbers: dict[str, Any] | None = None, heartbeat: float = NOW,
             failure: Failure | None = None, code: str | None = CODE, data: str | None = DATA) -> RunDir:  # fmt: skip
    """A run folder in `state`; one that is done has `numbers`, or a summary around 3 + seed / 10."""
    run_id, settings = run_hash(balancer, coef, seed), canonical(balancer, coef, seed)
    identity = {"version": 1, "run_id": run_id, "canonical": settings, "arm": arm_hash(balancer, coef)}
    provenance = {"source_hash": code, "data_fingerprint": data, "git": {"commit": "abc", "dirty": False}}
    provenance |= {"pairing": {"initial_weights": "f00", "batches": "ba7"}, "command": "python train.py"}
    config = settings | {"scale": "smoke", "launch": {"workers": None}}
    run = RunDir.create(root, f"smoke-{balancer}", run_id, config=config, overrides=[], identity=identity,
                        provenance=provenance, total_steps=200)  # fmt: skip
    if state == "done" and numbers is None:
        numbers = summary(3 + seed / 10)
    if numbers is not None:
        run.write_summary(numbers)
    step = 200 if state == "done" else 40
    run.write_status(Status(State(state), attempt=1, step=step, total_steps=200, failure=failure))
    write_json(run.path / "status.json", read_json(run.path / "status.json") | {"heartbeat": heartbeat})
    return run


def manifest_content(seeds: int = 3, arms: tuple[tuple[str, float | None], ...] = DEMO_ARMS) -> dict[str, Any]:
    """The demo: balancer=aux,lossfree aux.coef=0.1,0.2,0.6, of which lossfree reads no coefficient."""
    requested: list[dict[str, Any]] = []
    runs: dict[str, Any] = {}
    for balancer, coef, seed in ((b, c, s) for b, c in arms for s in range(seeds)):
        run_id, arm = run_hash(balancer, coef, seed), arm_hash(balancer, coef)
        label = f"balancer={balancer}" + (f" aux.coef={coef}" if coef is not None else "")
        runs[run_id] = {"folder": f"smoke-{balancer}-{run_id}", "arm": arm, "label": label, "seed": seed}
        unread = {"aux.coef": "balancer=aux"} if coef is None else {}
        for value in ("0.1", "0.2", "0.6") if coef is None else (str(coef),):
            overrides = {"balancer": balancer, "aux.coef": value, "seed": str(seed)}
            requested.append({"overrides": overrides, "run_id": run_id, "unread": unread})
    head = {"version": 1, "sweep_id": "5eed5eed", "name": "demo", "created": "2026-01-02T03:04:05+00:00"}
    axes = {"balancer": ["aux", "lossfree"], "aux.coef": ["0.1", "0.2", "0.6"], "seed": list(map(str, range(seeds)))}
    command = "python train.py -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6"
    return {**head, "command": command, "axes": axes, "requested": requested, "runs": runs}


def make_manifest(root: Path, content: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    """Write a sweep's manifest where the planner does, and read it back."""
    content = (content or manifest_content()) | changes
    path = root / "sweeps" / content["sweep_id"] / "manifest.json"
    path.parent.mkdir(parents=True)
    write_json(path, content)
    return Manifest.load(path)


def make_messy_sweep(root: Path) -> Manifest:
    """The demo with three seeds in which everything that can happen to a run has happened to one."""
    make_run(root, "aux", 0.1, 0)
    make_run(root, "aux", 0.1, 1, data="feed" * 16)
    make_run(root, "aux", 0.1, 2, state="failed", failure=Failure("ValueError", "no luck\nat all", "ValueError in x"))
    for seed in range(3):
        make_run(root, "aux", 0.2, seed, state="diverged", numbers=summary(99.0, diverged_at_step=37))
    make_run(root, "aux", 0.6, 0, state="running", heartbeat=NOW - 10)
    make_run(root, "aux", 0.6, 1, state="running", heartbeat=NOW - 4000)
    make_run(root, "lossfree", None, 0, numbers=summary(3.0, collapsed=True, collapsed_at_step=12))
    make_run(root, "lossfree", None, 1, state="preempted")
    (make_run(root, "lossfree", None, 2).path / "status.json").write_text("")
    return make_manifest(root)
