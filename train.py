"""Train one run, or with -m a sweep. `python train.py --help` shows what can be chosen."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
found = find_spec("moe_sweeps")
if found is None or Path(str(found.origin)).resolve().parents[1] != SOURCES:
    # Another copy is installed, or another clone with -e. The sources beside this file count, which its reader edits,
    # here and in every process that is started from here.
    sys.path.insert(0, str(SOURCES))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))

from moe_sweeps.host.program import run_program  # noqa: E402


def main() -> int:
    """Train what the command line says; returns the exit code."""
    from moe_sweeps.host.output import open_missing

    open_missing()  # before a library opens a file that would take the place of a closed stdout
    from moe_sweeps.cli.imports import lasting
    from moe_sweeps.cli.version import print_version

    if print_version(sys.argv[1:]):
        return 0  # torch takes seconds to import
    with lasting():
        from moe_sweeps.cli.train import main as train
    return train(fresh=True)


if __name__ == "__main__":
    run_program(main)
