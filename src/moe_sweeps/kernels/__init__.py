"""Compiled CPU kernels: what a training step does between its matrix products, in one pass over memory each."""

from __future__ import annotations

import functools
import logging

from moe_sweeps.config.groups import KernelChoice
from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels.arithmetic import Arithmetic
from moe_sweeps.kernels.build import KernelsUnavailable
from moe_sweeps.kernels.calls import Kernels, load, use

log = logging.getLogger(__name__)
__all__ = ["Arithmetic", "Kernels", "KernelsUnavailable", "chosen_kernels", "load", "use"]


def chosen_kernels(choice: KernelChoice) -> Kernels | None:
    """The kernels that `engine.kernels` means on this machine; None: torch's own operations.

    Raises:
        ConfigError: they are asked for by name and cannot be had.
    """
    if choice is KernelChoice.torch:
        return None
    named = choice.value in list(Arithmetic)
    use(Arithmetic(choice.value) if named else None)
    try:
        return load()
    except KernelsUnavailable as error:
        if named or choice is KernelChoice.compiled:
            fix = "Use engine.kernels=auto, which takes what there is, or install a C++ compiler."
            raise ConfigError("engine.kernels", choice.value, str(error), fix) from error
        _say_once(str(error))
        return None


@functools.cache
def _say_once(reason: str) -> None:
    log.warning("training on CPU takes up to a third longer without compiled kernels: %s", reason)
