"""Who heeds a signal, and how one process asks another."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from moe_sweeps.host.signals import ASKING, STOP_SIGNALS, asking_signal, handled


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in STOP_SIGNALS}
    yield
    for s, handler in before.items():
        signal.signal(s, handler)


class Heard(list[int]):
    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.append(signum)


def test_what_is_heeded_is_heard_and_everything_is_as_before() -> None:
    heard = Heard()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = {s: signal.getsignal(s) for s in STOP_SIGNALS}
    with handled(heard):
        for s in STOP_SIGNALS:
            os.kill(os.getpid(), s)
    assert heard == [s for s in STOP_SIGNALS if s != signal.SIGHUP]
    assert {s: signal.getsignal(s) for s in STOP_SIGNALS} == before


def test_outside_the_main_thread_nothing_changes() -> None:
    before = {s: signal.getsignal(s) for s in STOP_SIGNALS}
    found: list[object] = []

    def body() -> None:
        with handled(Heard()):
            found.append({s: signal.getsignal(s) for s in STOP_SIGNALS})

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("ignored", range(len(ASKING)))
def test_a_worker_is_asked_with_what_is_not_ignored(ignored: int) -> None:
    for s in ASKING:
        signal.signal(s, signal.SIG_DFL)
    for s in ASKING[:ignored]:
        signal.signal(s, signal.SIG_IGN)
    assert asking_signal() == ASKING[ignored]
