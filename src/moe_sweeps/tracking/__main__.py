"""The process that mirrors one run: `python -m moe_sweeps.tracking FOLDER SETTINGS`."""

import sys

from moe_sweeps.tracking.process import main

main(sys.argv[1], sys.argv[2])
