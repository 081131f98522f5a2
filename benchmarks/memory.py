"""Peak memory of runs on a CPU, measured and as training/memory.py estimates it.

python benchmarks/memory.py [KEY=VALUE ...]     the built-in cases, or one run
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

PROXY = ("scale=proxy",)
MIDDLE = ("scale=talk", "data=corpus", "model.layers=4", "trainer.batch_size=8", "trainer.micro_batch_size=4")
CASES = [
    ("scale=smoke",),
    PROXY,
    (*PROXY, "trainer.batch_size=32", "trainer.micro_batch_size=32"),
    (*PROXY, "experts=dense"),
    *(
        (*PROXY, "model.width=256", "experts.ffn_hidden=704", f"optimizer={o}")
        for o in ("adamw", "muon", "shampoo", "soap")
    ),
    MIDDLE,
    (*MIDDLE, "engine.kernels=torch"),
    (*MIDDLE, "trainer.precision=bfloat16"),
    (*MIDDLE, "trainer.micro_batch_size=8"),
    (*MIDDLE, "optimizer=muon"),
    (*MIDDLE, "lr_split=batch_fraction"),
]
STEPS = 2


def measure(overrides: list[str]) -> tuple[int, int]:
    """(estimate, measured) in bytes, of STEPS steps and a checkpoint in this process."""
    from moe_sweeps.experiment.compose import compose
    from moe_sweeps.host.hardware import peak_memory
    from moe_sweeps.host.peak import CPU
    from moe_sweeps.launch.probe import random_tokens
    from moe_sweeps.sweep.grid import single
    from moe_sweeps.training.memory import run_memory
    from moe_sweeps.training.rehearsal import rehearse

    run = compose(single([*overrides, "engine.device=cpu"]))
    rehearse(run, random_tokens(run), STEPS, threads=1)
    return run_memory(run).estimate, peak_memory(CPU)


def main(overrides: list[str]) -> None:
    """Each case in a process of its own."""
    for case in [overrides] if overrides else CASES:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--measure", *case]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=folder)
        if done.returncode:
            print("failed", " ".join(case), flush=True)
            continue
        estimate, measured = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{estimate / 1e9:7.2f} GB  {measured / 1e9:7.2f} GB  {estimate / measured - 1:+6.0%}  {' '.join(case)}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2:])))
    else:
        print("  estimated     measured   error", flush=True)
        main(sys.argv[1:])
