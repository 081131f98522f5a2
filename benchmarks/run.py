"""All cases that need no GPU, one after the other, each in a process of its own, and then the page: `make bench`.

python benchmarks/run.py [CASE ...]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CASES = (
    "start_up",
    "at_scale",
    "always_on",
    "tracking_cost",
    "growth",
    "run_cost",
    "step_vs_mixtral",
    "vs_stock_hydra",
    "resolving_power",
)


def main() -> int:
    """Run the cases; exit code 1 when one failed. A failure does not stop the others."""
    failed, began = [], time.monotonic()
    for case in sys.argv[1:] or CASES:
        started = time.monotonic()
        script = HERE / f"{case}.py"
        save = ["--save"] if "--save" in script.read_text() else []  # the others print only
        code = subprocess.run([sys.executable, str(script), *save], check=False).returncode
        print(f"{case}: {time.monotonic() - started:.0f} s{f', exit code {code}' if code else ''}\n", flush=True)
        failed += [case] if code else []
    subprocess.run([sys.executable, str(HERE / "render.py")], check=True)
    print(f"all: {time.monotonic() - began:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
