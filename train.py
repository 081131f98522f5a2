"""Train one run, or with -m a sweep. `python train.py --help` shows what can be chosen."""

import sys

from moe_sweeps.cli.imports import lasting

with lasting():
    from moe_sweeps.cli.train import main

if __name__ == "__main__":
    sys.exit(main(fresh=True))
