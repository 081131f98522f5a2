"""Generated sweeps with curves, costs and claims, as a small real suite would leave them."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unit.results.folders import make_manifest

from moe_sweeps.host.files import write_json
from moe_sweeps.records.genuine import arm_of, flatten, hash_of
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.rundir import Failure, RunDir, State, Status

STEPS = 400
CONFIG: dict[str, Any] = {
    "scale": "proxy",
    "experts": {"kind": "e8", "num_experts": 8, "top_k": 2},
    "router": {"kind": "topk_softmax"},
    "balancer": {"kind": "aux"},
    "aux": {"kind": "default", "coef": 0.1},
    "lr_split": {"kind": "static", "expert": 1.0, "dense": 1.0},
    "optimizer": {"kind": "adamw", "base_lr": 0.006},
}
Settings = Mapping[str, str]


def short_hash(*parts: object) -> str:
    """Twelve hex digits: those of an arm by its settings, or with a seed of a run, are what its config gives."""
    if isinstance(parts[0], Mapping):
        seed = parts[1] if len(parts) > 1 else 0
        assert isinstance(seed, int)
        form = canonical(parts[0], seed)
        return hash_of(form) if len(parts) > 1 else arm_of(form, seed, seed)
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]


def configured(settings: Settings) -> dict[str, Any]:
    """The config of an arm."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for key, text in settings.items():
        group, _, knob = key.partition(".")
        try:
            value: Any = float(text)
        except ValueError:
            value = text
        config.setdefault(group, {})[knob or "kind"] = value
    return config


def canonical(settings: Settings, seed: int) -> dict[str, Any]:
    """A canonical form, other for other settings that mean the same."""
    return flatten(configured(settings)) | {"asked": dict(settings), "seed": seed, "data_seed": seed}


def make_suite_run(
    root: Path, settings: Settings, seed: int, *, loss: float, maxvio: float, state: str = "done",
    collapsed: bool = False, speed: float = 1.0, weights: str = "w", code: str = "c0de",
) -> RunDir:  # fmt: skip
    """One run with its curves; `loss` and `maxvio` are what it ends with."""
    config = configured(settings) | {"seed": seed, "data_seed": None}
    arm, run_id = short_hash(settings), short_hash(settings, seed)
    identity = {"version": 1, "run_id": run_id, "arm": arm, "canonical": canonical(settings, seed)}
    overrides = [*(f"{k}={v}" for k, v in settings.items()), f"seed={seed}"]
    provenance = {"source_hash": code, "data_fingerprint": "da7a", "git": {"commit": "abc123", "dirty": False},
                  "pairing": {"initial_weights": f"{weights}{seed}", "batches": f"b{seed}"}}  # fmt: skip
    run = RunDir.create(root, f"proxy-{config['balancer']['kind']}", run_id, config=config, overrides=overrides,
                        identity=identity, provenance=provenance, total_steps=STEPS)  # fmt: skip
    failure = Failure("ValueError", "no luck", "ValueError in x") if state == "failed" else None
    step = STEPS if state == "done" else 150
    run.write_status(Status(State(state), attempt=1, step=step, total_steps=STEPS, failure=failure, host="here"))
    (run.path / "metrics.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in curve(loss, maxvio, step, speed, seed))
    )
    if state == "done":
        numbers = {"val_loss": loss, "val_perplexity": math.exp(loss), "val_accuracy": 1 / loss, "tokens": STEPS * 1024,
                   "val_maxvio_global": maxvio, "train_maxvio_batch": maxvio * 1.2, "collapsed": collapsed,
                   "collapsed_at_step": 90 if collapsed else None, "train_seconds": STEPS * 0.1 * speed,
                   "seconds_per_step": 0.1 * speed}  # fmt: skip
        run.write_summary(numbers)
    return run


def curve(loss: float, maxvio: float, steps: int, speed: float, seed: int) -> list[dict[str, Any]]:
    """Records of a training that falls towards `loss`."""
    noise, records = random.Random(seed), []
    for step in range(10, steps + 1, 10):
        fall = 3 * math.exp(-step / 80)
        records.append({"step": step, "split": "train", "loss": loss + fall + noise.gauss(0, 0.05),
                        "maxvio_batch": (maxvio + math.exp(-step / 50)) * (1 + noise.gauss(0, 0.05))})  # fmt: skip
        if step % 40 == 0:
            records.append({"step": step, "split": "val", "tokens": 512, "loss": loss + fall, "maxvio_global": maxvio,
                            "train_seconds": step * 0.1 * speed})  # fmt: skip
    return records


def sweep_content(name: str, arms: Sequence[Settings], seeds: int, baseline: int = 0, **more: Any) -> dict[str, Any]:
    """A manifest of these arms, as the planner writes it."""
    requested, runs = [], {}
    for settings in arms:
        for seed in range(seeds):
            run_id, label = short_hash(settings, seed), " ".join(f"{k}={v}" for k, v in settings.items())
            folder = f"proxy-{settings.get('balancer', 'aux')}-{run_id}"
            runs[run_id] = {"folder": folder, "arm": short_hash(settings), "label": label, "seed": seed}
            runs[run_id]["settings"] = dict(settings)
            requested.append({"overrides": {**settings, "seed": str(seed)}, "run_id": run_id, "unread": {}})
    file = {"name": name, "question": f"What does {name} do?", "source": "report", "table": name}
    return {
        "version": 3, "sweep_id": short_hash(name, len(arms), seeds), "name": name,
        "created": "2026-01-02T03:04:05+00:00", "command": f"python train.py -m sweep={name}", "axes": {},
        "requested": requested, "runs": runs, "file": file, "baseline": short_hash(arms[baseline]), "expect": [],
        **more,
    }  # fmt: skip


AUX: list[Settings] = [{"balancer": "aux", "aux.coef": c} for c in ("0.01", "0.1", "0.2", "0.4", "0.6")]
AUX.append({"balancer": "lossfree"})
GRID: list[Settings] = [
    {"lr_split.dense": d, "lr_split.expert": e} for d in ("0.5", "1", "2") for e in ("0.1", "0.5", "1", "2")
]


def make_suite(root: Path, seeds: int = 3) -> list[Manifest]:
    """noise_floor, aux_coef with a clear turning point and claims, lr_split with gaps of every kind."""
    noise = random.Random(7)
    made = [make_manifest(root, sweep_content("noise_floor", [{"aux.coef": "0.1", "name": "x"}], 5))]
    for seed in range(5):
        make_suite_run(root, {"aux.coef": "0.1", "name": "x"}, seed, loss=4.5 + noise.gauss(0, 0.01), maxvio=0.3)
    losses = dict(zip(("0.01", "0.1", "0.2", "0.4", "0.6", None), (4.52, 4.50, 4.45, 4.48, 4.56, 4.47), strict=True))
    for settings in AUX:
        coef = settings.get("aux.coef")
        for seed in range(seeds):
            drift = 0.02 * seed
            maxvio = 0.1 if coef is None else 0.05 / float(coef)
            make_suite_run(root, settings, seed, loss=losses[coef] + drift + noise.gauss(0, 0.002), maxvio=maxvio,
                           speed=1.0 if coef else 1.2)  # fmt: skip
    made.append(make_manifest(root, sweep_content("aux_coef", AUX, seeds, baseline=1, expect=aux_claims())))
    for place, settings in enumerate(GRID):
        for seed in range(seeds):
            state = {(3, 1): "failed", (5, 0): "diverged", (6, 2): "running"}.get((place, seed), "done")
            if (place, seed) == (7, 1):
                continue
            miss = (
                abs(math.log2(float(settings["lr_split.expert"]))) * 0.03
                + abs(math.log2(float(settings["lr_split.dense"]))) * 0.02
            )
            make_suite_run(root, settings, seed, loss=4.5 + miss + 0.01 * seed + noise.gauss(0, 0.003), maxvio=0.3,
                           state=state, collapsed=(place, seed) == (8, 0))  # fmt: skip
    made.append(make_manifest(root, sweep_content("lr_split", GRID, seeds, baseline=6)))
    return made


def aux_claims() -> list[dict[str, Any]]:
    """Statements as the planner binds them."""
    arm = {s.get("aux.coef", "lossfree"): short_hash(s) for s in AUX}
    points = [[c, arm[c]] for c in ("0.01", "0.1", "0.2", "0.4", "0.6")]
    head = {"source": "report, fig. 8", "cannot": None, "better": "lower"}
    return [
        {"claim": "0.2 is best.", "kind": "turning_point", "metric": "val_loss", "axis": "aux.coef", "points": points,
         "at": ["0.1", "0.2", "0.4"], **head},
        {"claim": "MaxVio falls.", "kind": "falls", "metric": "val_maxvio_global", "axis": "aux.coef", "points": points,
         "at": [], **head},
        {"claim": "Loss-free is as good as 0.2.", "kind": "no_difference", "metric": "val_loss", "within": 0.003,
         "arm": arm["lossfree"], "than": arm["0.2"], **head},
        {"claim": "0.6 is better than 0.1.", "kind": "better", "metric": "val_loss", "arm": arm["0.6"],
         "than": arm["0.1"], **head},
    ]  # fmt: skip


def write_status(run: RunDir, **changes: Any) -> None:
    """Change what status.json says."""
    content = json.loads((run.path / "status.json").read_text())
    write_json(run.path / "status.json", content | changes)
