"""What an optimizer step finds out about its numbers and must act on, read together: reading waits for a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Report = Callable[[list[int]], None]


class Findings:
    """Numbers on the device, each with the function that acts on them: it warns, or it ends the run.

    On a CPU nothing waits, and it acts at once. On a GPU it acts when `read` is called, at the end of the step.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[Tensor, Report]] = []

    def add(self, found_N: Tensor, report: Report) -> None:
        """Let `report` have the integers or flags `found_N` (N,)."""
        if found_N.device.type == "cpu":
            report([int(number) for number in found_N.tolist()])
        else:
            self._unread.append((found_N.to(torch.int64), report))

    def read(self) -> None:
        """Report what was added, in order. Synchronises with the device once, and not at all where nothing was."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        numbers = torch.cat([found_N for found_N, _ in unread]).cpu()
        for part_N, (_, report) in zip(numbers.split([len(found_N) for found_N, _ in unread]), unread, strict=True):
            report(part_N.tolist())
