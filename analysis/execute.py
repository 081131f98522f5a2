"""Execute the notebooks of this folder in place: `make notebooks`.

They read $MOE_SWEEPS_RUNS, or the runs that are committed under results/. `--check` writes nothing and fails where a
notebook's committed text is not what it prints now; pictures are left out of that, since fonts differ.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
SECONDS_A_CELL = 120


def notebooks() -> list[Path]:
    """Every notebook here, in order."""
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path, runs: Path | None = None) -> Any:
    """The notebook with fresh outputs; `runs` is the folder that it reads.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the message has its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    # A kernel starts from this process's environment: one thread is enough for pandas, and SVG needs no display.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    environment |= {"MOE_SWEEPS_RUNS": str(runs)} if runs else {}
    client = NotebookClient(notebook, timeout=SECONDS_A_CELL, resources={"metadata": {"path": str(FOLDER)}})
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.clear()  # times of execution, which change every time
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    return notebook


def texts(notebook: Any) -> list[str]:
    """What the cells print and show, pictures left out.

    A kernel sends what a cell prints in as many messages as its load allows; pieces that follow each other are one.
    """
    found = []
    for cell in notebook.cells:
        outputs = cell.outputs if cell.cell_type == "code" else []
        for kind, pieces in itertools.groupby(outputs, key=lambda output: (output.output_type, output.get("name"))):
            shown = [_text(output) for output in pieces]
            found += ["".join(shown)] if kind[0] == "stream" else shown
    return found


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    data = output.get("data", {})
    return str(data.get("text/markdown") or data.get("text/plain") or output.get("evalue", ""))


def main() -> int:
    """Execute all notebooks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where committed outputs are stale")
    parser.add_argument("names", nargs="*", help="beginnings of notebook names; default: all")
    arguments = parser.parse_args()
    stale = []
    for path in notebooks():
        if arguments.names and not path.name.startswith(tuple(arguments.names)):
            continue
        fresh = execute(path)
        if not arguments.check:
            nbformat.write(fresh, path)
        elif texts(fresh) != texts(nbformat.read(path, as_version=4)):
            stale.append(path.name)
        print(f"{path.name}: {'stale' if path.name in stale else 'executed'}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
