"""What `make gpu-hour` measures besides training steps (gpu.py), each part in a process of its own.

    python benchmarks/gpu_parts.py PART [ARGUMENT] [--device cuda] [--out FILE]

The parts: `environment`, `tests SELECTION` (of tests/gpu), `smoke` (a sweep through train.py), `doctor`, `optimizer
KIND` (its share of a talk step), `sweep N` (proxy runs, N at a time on the device), `fp8` (a product of the talk's
expert). `--device cpu` is a rehearsal at a tiny size.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from common import wait
from gpu import TINY, talk_run, vocabulary
from record import Row

from moe_sweeps.engines.build import build_engine_model
from moe_sweeps.experiment.compose import compose
from moe_sweeps.host.device_peaks import device_peaks
from moe_sweeps.host.files import write_json
from moe_sweeps.host.peak import peak_of
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.stepper import Stepper

OPTIONAL = ("triton", "megatron-core", "transformer-engine", "transformers")
PERIOD = 4  # steps between the expensive ones of Shampoo and SOAP here
# The step of a period that is: Shampoo computes roots in its multiples, SOAP bases in step 1 and a period after it.
DUE_AT = {"shampoo": 0, "soap": 1}
SWEEP_STEPS = 300
FP8, FP8_CAPABILITY = torch.float8_e4m3fn, (8, 9)


def main() -> int:
    """Run one part; print its rows, and with --out write them. Exit code 1: it failed, and the rows say how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("argument", nargs="?", default="")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = PARTS[args.part](torch.device(args.device), args.argument)
    for one in rows:
        print("  ".join(f"{key}={value}" for key, value in one.items()))
    if args.out:
        write_json(args.out, rows)
    return int(any(row.get("failed") or row.get("failed_to_run") for row in rows))


def environment(device: torch.device, _: str) -> list[Row]:
    """The device, its driver, versions, and the peak that shares are shares of."""
    found: dict[str, object] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "CUDA of torch": torch.version.cuda,
        "host": platform.platform(),
    }
    found |= _of_gpu(device) if device.type == "cuda" else {}
    found |= {package: _version(package) for package in OPTIONAL}
    sheet = device_peaks(device_name(device))
    peak = peak_of(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    found |= {f"peak, TFLOP/s ({peak.way})": round(peak.flops / 1e12, 3)}
    found |= {"peak from": sheet.sheet if sheet else "measured: no data sheet is known"}
    return [{"what": what, "value": value} for what, value in found.items()]


def _of_gpu(device: torch.device) -> dict[str, object]:
    found = torch.cuda.get_device_properties(device)
    return {
        "memory, GiB": round(found.total_memory / 2**30, 1),
        "capability": f"{found.major}.{found.minor}",
        "driver": _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "MPS installed": "yes" if shutil.which("nvidia-cuda-mps-control") else "no",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def device_name(device: torch.device) -> str:
    """The name of the device, as its files carry it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu rehearsal"


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not known: {error}"
    return done.stdout.strip() or "nothing"


# --- part 1 -----------------------------------------------------------------------------------------------------------


def tests(device: torch.device, selection: str) -> list[Row]:
    """tests/gpu, as `pytest SELECTION` selects: a file, or a file and -k words after a comma. A test that fails is a
    finding, not a failure of this part."""
    file, _, words = selection.partition(",")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += [f"tests/gpu/{file}", *(["-k", words] if words else [])]
        environ = os.environ | {"MOE_SWEEPS_TEST_DATA": str(REPOSITORY / "build" / "test_data")}
        environ |= {"MOE_SWEEPS_GPU_TESTS": "cpu"} if device.type == "cpu" else {}
        code = subprocess.run(command, cwd=REPOSITORY, env=environ, check=False).returncode
        cases = ElementTree.parse(report).getroot().iter("testcase") if report.exists() else ()
        ends = [(case.get("name", ""), _end(case)) for case in cases]
    counts = {end: sum(1 for _, found in ends if found == end) for end in ("passed", "failed", "skipped")}
    failing = [name for name, end in ends if end == "failed"]
    row = {"tests": selection, **counts, "seconds": round(time.perf_counter() - started, 1)}
    return [row | {"failing": "; ".join(failing) or None, "failed_to_run": None if ends else code or "no test"}]


def _end(case: ElementTree.Element) -> str:
    tags = {child.tag for child in case}
    return "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"


def smoke(device: torch.device, _: str) -> list[Row]:
    """The demo's sweep through train.py -m, in a folder of its own."""
    line = ["scale=smoke", "balancer=aux,lossfree", "aux.coef=0.1,0.2", f"engine.device={device.type}"]
    if device.type == "cpu":
        line += ["trainer.steps=10", "schedule.warmup_steps=2", "trainer.final_eval_sequences=16"]
    seconds, code, folders = _swept(line)
    done = sum(1 for one in folders if one.summary())
    return [{"what": " ".join(line), "runs done": done, "seconds": round(seconds, 1), "failed": code or None}]


def doctor(device: torch.device, _: str) -> list[Row]:
    """What `moe-sweeps doctor` says."""
    command = [sys.executable, "-m", "moe_sweeps", "doctor"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return [{"doctor": line.strip()} for line in done.stdout.splitlines() if line.strip()]


# --- part 3 -----------------------------------------------------------------------------------------------------------


def sweep(device: torch.device, count: str) -> list[Row]:
    """`count` proxy runs at once on the device; with CUDA MPS where it is installed. Runs an hour are those of its
    whole length, from the tokens that all of them train together in a second of the sweep."""
    number, steps = int(count), SWEEP_STEPS if device.type == "cuda" else 6
    line = [
        "scale=proxy",
        f"seed={','.join(map(str, range(number)))}",
        f"trainer.steps={steps}",
        "schedule.warmup_steps=2",
    ]
    line += [f"engine.device={device.type}", f"launch.pack={number}", f"launch.workers={number}"]
    line += ["trainer.final_eval_sequences=64", *(() if device.type == "cuda" else ("trainer.batch_size=8",))]
    seconds, code, folders = _swept(line)
    summaries = [found for one in folders if (found := one.summary())]
    whole = compose(single(["scale=proxy"])).trainer
    tokens = sum(one["tokens"] for one in summaries)
    training = max((one["train_seconds"] for one in summaries), default=0.0)
    together = tokens / training if training else 0.0
    return [
        {
            "processes": number,
            "runs done": len(summaries),
            "tokens_per_s_together": together,
            "proxy_runs_an_hour": 3600 * together / (whole.steps * whole.tokens_per_step),
            "sweep_seconds": round(seconds, 1),
            "failed": code or None,
        }
    ]


def _swept(line: list[str]) -> tuple[float, int, list[RunDir]]:
    """(seconds, exit code, run folders) of a sweep."""
    root = Path(tempfile.mkdtemp(prefix="moe_sweeps-gpu-"))
    environ = os.environ | {"MOE_SWEEPS_RUNS": str(root / "runs"), "MOE_SWEEPS_REPORTS": str(root / "reports")}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "train.py", "-m", *line], cwd=REPOSITORY, env=environ, check=False)
    return time.perf_counter() - started, done.returncode, RunDir.all(root / "runs")


def optimizer(device: torch.device, kind: str) -> list[Row]:
    """Seconds of an update of the talk's model, those with expensive work apart, and their share of a step."""
    due = DUE_AT.get(kind)
    passes, updates = _steps_of(device, kind)
    settled = [(i % PERIOD, seconds) for i, seconds in enumerate(updates, 1) if i > PERIOD]
    usual = median(seconds for at, seconds in settled if at != due)
    costly = usual if due is None else median(seconds for at, seconds in settled if at == due)
    period = getattr(compose(single(["scale=talk", f"optimizer={kind}"])).optimizer, "precondition_frequency", 1)
    mean, model = ((period - 1) * usual + costly) / period, median(passes[PERIOD:])
    return [
        {
            "optimizer": kind,
            "model_ms": model * 1e3,
            "usual_ms": usual * 1e3,
            "due_ms": None if due is None else costly * 1e3,
            "due_every": None if due is None else period,
            "share_of_step": mean / (mean + model),
        }
    ]


def _steps_of(device: torch.device, kind: str) -> tuple[list[float], list[float]]:
    """Seconds of forward and backward passes, and of updates, of three periods of the optimizer."""
    more = [f"optimizer.precondition_frequency={PERIOD}"] if kind in DUE_AT else []
    tiny = TINY if device.type == "cpu" else ()
    run = compose(single(["scale=talk", "trainer.precision=bfloat16", *tiny, f"optimizer={kind}", *more]))
    vocab, settings = vocabulary(run), run.trainer
    model = build_engine_model(run, vocab, None, device).to(device)
    stepper = Stepper(run, model)
    tokens_BS = torch.randint(vocab, (settings.micro_batch_size, settings.seq_len), device=device)
    passes, updates = [], []
    for step in range(3 * PERIOD + 1):
        passes.append(_timed(device, partial(_passes, model, tokens_BS, device, settings.micro_batches)))
        updates.append(_timed(device, partial(stepper.step, step, None)))
    return passes, updates


def _passes(model: torch.nn.Module, tokens_BS: torch.Tensor, device: torch.device, count: int) -> None:
    for _ in range(count):
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(tokens_BS, tokens_BS).loss
        (loss / count).backward()


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def fp8(device: torch.device, _: str) -> list[Row]:
    """A product of the talk's expert in float8 and in bfloat16, where the device has units for both."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        return [{"what": "fp8", "note": f"{device_name(device)} has no units for it"}]
    run = talk_run()
    rows, inner = run.trainer.micro_batch_size * run.trainer.seq_len, run.model.width
    columns = 2 * run.experts.ffn_hidden
    a, b = torch.randn(rows, inner, device=device), torch.randn(columns, inner, device=device)
    narrow, half = (a.to(FP8), b.to(FP8)), (a.bfloat16(), b.bfloat16())
    one = torch.ones((), device=device)
    scaled = partial(torch._scaled_mm, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    ways = {"fp8": partial(scaled, narrow[0], narrow[1].T), "bfloat16": partial(torch.mm, half[0], half[1].T)}
    flops = 2 * rows * inner * columns
    return [
        {"what": f"{rows} x {inner} x {columns}, {name}", "tflops": flops / _fastest(device, way) / 1e12}
        for name, way in ways.items()
    ]


def _fastest(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of one of 20 calls in a row, the best of five."""
    return min(_timed(device, lambda: [work() for _ in range(20)]) / 20 for _ in range(5))


PARTS: dict[str, Callable[[torch.device, str], list[Row]]] = {
    "environment": environment,
    "tests": tests,
    "smoke": smoke,
    "doctor": doctor,
    "optimizer": optimizer,
    "sweep": sweep,
    "fp8": fp8,
}

if __name__ == "__main__":
    sys.exit(main())
