"""The first hour on a GPU, in three calls of at most ten minutes: `make gpu-hour PART=1|2|3`.

    python benchmarks/gpu_hour.py 1|2|3 [--device cuda] [--seconds 570]

A part is a list of stages, each a process with a time limit. What a stage found is kept at once in
benchmarks/results/gpu_CASE_DEVICE.json, which is committed; the page docs/performance.md is rendered from it. The same
command typed again goes on with the stages that are missing, those that failed last. How each stage ended is in
benchmarks/results/log/gpu_hour_DEVICE.json. Exit codes: 0 all stages are done, 1 some failed, 2 there is no device,
3 the time is over: type it again.

`--device cpu` (`make gpu-hour PART=1 DEVICE=cpu`) is a rehearsal: every stage at a tiny size, into build/gpu_hour,
which nothing renders.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import PACKAGES, RESULTS, Row, machine

from moe_sweeps.experiment.provenance import git_state
from moe_sweeps.host.files import make_folder, write_json
from moe_sweeps.paths import REPOSITORY

HERE = Path(__file__).parent
REHEARSAL = REPOSITORY / "build" / "gpu_hour"
DONE, FAILED, NO_DEVICE, TIME_IS_OVER = 0, 1, 2, 3
LEAST_SECONDS = 15.0  # a stage is not begun with less
TITLES = {
    "environment": "The device",
    "tests": "tests/gpu",
    "smoke": "A smoke sweep",
    "doctor": "What doctor says",
    "talk": "A training step of the talk's model",
    "profile": "A step of the talk's model by groups of kernels",
    "sweeps": "Proxy runs side by side on one device",
    "optimizers": "Optimizers' share of a talk step",
    "e128": "128 experts",
    "fp8": "float8 products",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One process of a part. `case`: the file that takes its rows. `most`: its seconds at the most."""

    name: str
    case: str
    command: tuple[str, ...]
    most: float = 180.0


def stages(part: int, tiny: bool) -> list[Stage]:
    """The stages of a part, those first that the others rest on."""
    if part == 1:
        return [
            _other("environment"), *_test_stages(tiny), _other("smoke"), _other("doctor"),
        ]  # fmt: skip
    if part == 2:
        return _step_stages(tiny)
    counts = (1, 2) if tiny else (1, 2, 4, 8)
    return [
        *(_other("sweep", str(n), case="sweeps") for n in counts),
        *(_other("optimizer", kind, case="optimizers") for kind in ("adamw", "muon", "shampoo", "soap")),
        _step("talk_e128", "eager", tiny, case="e128"),
        _other("fp8"),
    ]


def _other(part: str, argument: str = "", case: str = "", most: float = 180.0) -> Stage:
    name = f"{part} {argument}".strip()
    return Stage(name, case or part, ("gpu_parts.py", part, *filter(None, [argument])), most)


def _test_stages(tiny: bool) -> list[Stage]:
    balancers = ("none", "aux", "lossfree", "aux_lossfree", "quantile", "expert_choice")
    chosen = ["test_exact.py", "test_processes.py", "test_precision.py"]
    chosen += [f"test_matrix.py,{way} and -{kind}-" for kind in balancers for way in ("eager", "compiled")]
    if tiny:  # one test of each file
        chosen = ["test_exact.py,two_runs and quantile", "test_processes.py,replica", "test_matrix.py,eager-aux-adamw"]
    return [_other("tests", selection, most=400.0) for selection in chosen]


def _step_stages(tiny: bool) -> list[Stage]:
    ways = [("talk", way) for way in ("eager", "compiled", "mixtral", "loop", "megatron")]
    ways += [("talk_long", way) for way in ("eager", "compiled")]
    profiles = [_step("talk", way, tiny, case="profile", more=("--profile",)) for way in ("eager", "compiled")]
    return [*(_step(scale, way, tiny) for scale, way in ways), *profiles]


def _step(scale: str, way: str, tiny: bool, case: str = "talk", more: tuple[str, ...] = ()) -> Stage:
    steps = ("--steps", "2" if tiny else "20" if scale != "talk_long" else "5")
    name = " ".join((scale, way, *(word.strip("-") for word in more)))
    return Stage(name, case, ("gpu.py", way, "--scale", scale, *steps, *more), most=300.0)


class Record:
    """What the stages of one device found, in files that survive this process."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self._slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
        make_folder(folder / "log")

    def rows(self, case: str) -> list[Row]:
        """The rows of a case so far."""
        path = self._file(case)
        return list(json.loads(path.read_text())["rows"]) if path.exists() else []

    def has(self, stage: Stage) -> bool:
        """Whether the stage has been measured on this device, and none of its tests failed."""
        own = [row for row in self.rows(stage.case) if row["stage"] == stage.name]
        return bool(own) and not any(row.get("failing") for row in own)

    def has_failed(self, stage: Stage) -> bool:
        """Whether the stage was tried, and is not done."""
        how = self.ends().get(stage.name)
        return how is not None and not self.has(stage)

    def keep(self, stage: Stage, found: Sequence[Row]) -> None:
        """Add what a stage found to its case."""
        rows = [row for row in self.rows(stage.case) if row["stage"] != stage.name]
        rows += [{"stage": stage.name} | row for row in found]
        content = {
            "case": f"gpu_{stage.case}",
            "title": f"GPU: {TITLES[stage.case]}, {self.device}",
            "device": self.device,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine() | {"device": self.device, "commit": git_state().get("commit", "none")[:12]},
            "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
            "threads": torch.get_num_threads(),
            "rows": rows,
        }
        write_json(self._file(stage.case), content)

    def ends(self) -> dict[str, dict[str, Any]]:
        """How every stage that was tried ended last: name -> seconds, exit code, last lines."""
        path = self._log
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def end(self, stage: Stage, **how: Any) -> None:
        """Note how a stage ended."""
        write_json(self._log, self.ends() | {stage.name: {"date": time.strftime("%Y-%m-%d %H:%M")} | how})

    @property
    def _log(self) -> Path:
        return self.folder / "log" / f"gpu_hour_{self._slug}.json"

    def _file(self, case: str) -> Path:
        return self.folder / f"gpu_{case}_{self._slug}.json"


def main() -> int:
    """Run what is missing of a part, as far as the time goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", type=int, choices=(1, 2, 3))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=570.0, help="this call's time")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("make gpu-hour needs a CUDA device, and torch sees none here; DEVICE=cpu rehearses it at a tiny size.")
        return NO_DEVICE
    tiny = args.device == "cpu"
    record = Record(REHEARSAL if tiny else RESULTS, "cpu rehearsal" if tiny else _device_name())
    return run_part(stages(args.part, tiny), record, args.device, time.monotonic() + args.seconds, f"PART={args.part}")


def _device_name() -> str:
    """Asked in a process of its own: no stage shares the device with a context of this one."""
    code = "import torch; print(torch.cuda.get_device_name())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run_part(todo: Sequence[Stage], record: Record, device: str, deadline: float, name: str) -> int:
    """Run the stages that have no rows until `deadline`; those that failed before come last. Returns the exit code."""
    missing = sorted((one for one in todo if not record.has(one)), key=record.has_failed)
    print(f"{name} on {record.device}: {len(todo) - len(missing)} of {len(todo)} stages are done", flush=True)
    left = list(missing)
    while left and (seconds := deadline - time.monotonic()) > LEAST_SECONDS:
        run_stage(left.pop(0), record, device, seconds)
    still = [one.name for one in todo if not record.has(one)]
    if left:
        print(f"the time of this call is over, {len(still)} stages are missing: type it again")
        return TIME_IS_OVER
    print(f"failed: {', '.join(still)}; the same command tries them again" if still else f"{name} is done")
    return FAILED if still else DONE


def run_stage(stage: Stage, record: Record, device: str, seconds: float) -> None:
    """Run one stage, keep its rows, and note how it ended. Nothing that it does stops the next one."""
    print(f"--- {stage.name}", flush=True)
    started, limit = time.monotonic(), min(stage.most, seconds)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [
            sys.executable,
            str(HERE / stage.command[0]),
            *stage.command[1:],
            f"--device={device}",
            f"--out={out}",
        ]
        code, said = _run(command, limit)
        rows = json.loads(out.read_text()) if out.exists() else []
    if rows and not code:
        record.keep(stage, rows)
    record.end(stage, seconds=round(time.monotonic() - started, 1), exit_code=code, limit=round(limit), last=said)
    print(f"    {'exit code ' + str(code) if code else 'done'}, {time.monotonic() - started:.0f} s", flush=True)


def _run(command: Sequence[str], limit: float) -> tuple[int, list[str]]:
    """(exit code, last lines) of a command that is ended, with all that it started, after `limit` seconds: 124."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = 124
        finally:
            _end_group(process)
        output.seek(0)
        lines = output.read().splitlines()
    print("\n".join(f"    {line}" for line in lines[-12:]))
    return code, lines[-5:]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The process and all of its children, which would keep the device."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
