"""Run folders and sweeps without training, for tests of what follows runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moe_sweeps.host.files import write_json
from moe_sweeps.records.rundir import RunDir, State, Status

CONFIG: dict[str, Any] = {"seed": 0, "launch": {"workers": 1, "max_attempts_without_progress": 2}}


def fake_run(root: Path, number: int = 0, state: State = State.planned, **status: Any) -> RunDir:
    """A run folder whose id is made of `number`."""
    run_id = f"{number:012x}"
    folder = RunDir.create(
        root,
        "fake",
        run_id,
        config=CONFIG,
        overrides=[],
        identity={"version": 1, "run_id": run_id, "arm": "a"},
        provenance={"source_hash": "x"},
        total_steps=100,
    )
    folder.write_status(Status(state, total_steps=100, **status))
    return folder


def fake_sweep(root: Path, folders: list[RunDir], sweep_id: str = "aaaaaaaaaaaa", name: str = "fakes") -> None:
    """A manifest over run folders, one arm each."""
    runs = {
        f.run_id: {"folder": f.path.name, "arm": f.run_id, "label": f"arm={i}", "seed": 0}
        for i, f in enumerate(folders)
    }
    asked = [{"overrides": {"arm": str(i)}, "run_id": f.run_id} for i, f in enumerate(folders)]
    path = root / "sweeps" / sweep_id / "manifest.json"
    path.parent.mkdir(parents=True)
    created = "2026-11-25T00:00:00+00:00"
    content = {"sweep_id": sweep_id, "name": name, "created": created, "command": "python train.py -m arm=..."}
    write_json(path, content | {"runs": runs, "requested": asked})
