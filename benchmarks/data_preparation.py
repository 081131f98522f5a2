"""What preparing FineWeb-Edu costs: tokens/s by number of workers, peak memory, and the time of the full sample.

Parquet files with the Hub's schema are made of the built-in corpus, and read through `datasets` as the Hub's would be.
Each number of workers has a process of its own, so that its peak memory is its own.

    python benchmarks/data_preparation.py --megabytes 200 --workers 1 2
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from moe_sweeps.data import corpus
from moe_sweeps.data.config import FineWebEduConfig
from moe_sweeps.data.prepare import prepared

FULL_SAMPLE = 9_949_090_040 + 4_899_304
CHARACTERS = 4700  # of a document, about the sample's mean


def write_parquet(folder: Path, megabytes: int, files: int = 2) -> None:
    """Documents cut from the corpus at random places, so that the text does not repeat in the same rhythm."""
    text, draw = "\n".join(d.text for d in corpus.documents()), random.Random(0)
    count = megabytes * 1_000_000 // CHARACTERS // files
    for number in range(files):
        starts = [draw.randrange(len(text) - CHARACTERS) for _ in range(count)]
        texts = [text[s : s + CHARACTERS] for s in starts]
        columns = {"text": texts, "id": [str(s) for s in starts], "token_count": [CHARACTERS // 4] * count}
        parquet.write_table(pa.table(columns), folder / f"{number:03d}_00000.parquet", row_group_size=1000)


def measure(source: str, root: Path, workers: int) -> None:
    """Prepare once in this process, and print what it took."""
    config = FineWebEduConfig(source=source, train_tokens=None, val_tokens=None, workers=workers)
    started = time.perf_counter()
    data = prepared(config, root, progress=False, asked_for=True)
    seconds = time.perf_counter() - started
    tokens = len(data.train) + len(data.val)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    hours = FULL_SAMPLE / (tokens / seconds) / 3600
    print(
        f"{workers} workers: {tokens:,} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s, "
        f"peak memory {peak:.2f} GiB; the full sample would take {hours:.1f} h; {data.fingerprint[:12]}"
    )


def main() -> None:
    """Measure each number of workers in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--measure", nargs=3, metavar=("SOURCE", "ROOT", "WORKERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        source, root, workers = arguments.measure
        measure(source, Path(root), int(workers))
        return
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        source.mkdir()
        write_parquet(source, arguments.megabytes)
        for repeat, workers in itertools.product(range(arguments.repeats), arguments.workers):
            root = Path(temporary) / f"{repeat}-{workers}"
            command = [sys.executable, __file__, "--measure", str(source), str(root), str(workers)]
            subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


if __name__ == "__main__":
    main()
