"""`moe-sweeps`, and `python -m moe_sweeps` where no console script is installed.

Nothing of it is imported before Ctrl-C is heeded.
"""

from __future__ import annotations

from typing import NoReturn

from moe_sweeps.host.program import run_program


def program() -> NoReturn:
    """The console script."""
    run_program(_main)


def _main() -> int:
    from moe_sweeps.cli.manage import main

    return main()


if __name__ == "__main__":
    program()
