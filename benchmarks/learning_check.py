"""Does a proxy run use more context than the last token? Its validation loss beside those of count models.

    python benchmarks/learning_check.py RUN_FOLDER

The count models are trained on the run's own training tokens and judged on the same validation windows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from moe_sweeps.data.baselines import count_baselines
from moe_sweeps.data.batches import window_count
from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.frozen import from_dict
from moe_sweeps.paths import resolve
from moe_sweeps.records.rundir import RunDir


def main() -> None:
    """Print the run's loss, the count models' and the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path)
    folder = RunDir(parser.parse_args().run_folder)
    summary, run = folder.summary(), from_dict(folder.config())
    if summary is None or "val_loss" not in summary:
        raise SystemExit(f"{folder.path} has no final validation loss yet")
    data = prepared(run.data, resolve(run.paths.data))
    judged = data.val[: window_count(data.val, run.trainer.seq_len) * run.trainer.seq_len + 1]
    counts = count_baselines(data.train, judged, data.vocab_size)
    print(f"run {folder.path.name}: {summary['val_loss']:.4f} nats")
    for name, loss in (("unigram", counts.unigram), ("interpolated bigram", counts.bigram)):
        print(f"{name}: {loss:.4f} nats; the run is {loss - summary['val_loss']:+.4f} below")


if __name__ == "__main__":
    main()
