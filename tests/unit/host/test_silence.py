"""What is printed in a silenced block is dropped; what is printed around it is not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from moe_sweeps.host.silence import silenced


def test_nothing_of_the_block_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with silenced():
        print("inside")
        print("inside", file=sys.stderr)
        os.write(1, b"inside")
        os.write(2, b"inside")
        assert os.read(0, 1) == b""
    print("after")
    os.write(2, b"after")
    assert capfd.readouterr() == ("before\nafter\n", "after")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_streams_and_descriptors_come_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    before, descriptors = sys.stdout, _descriptors()
    with pytest.raises(KeyboardInterrupt), silenced():
        raise KeyboardInterrupt
    assert sys.stdout is before
    assert _descriptors() == descriptors
    print("heard")
    assert capfd.readouterr().out == "heard\n"


def test_a_stream_that_was_kept_passes_on_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced():
        kept = sys.stdout
        kept.write("inside")
    kept.write("later")
    kept.flush()
    assert capfd.readouterr().out == "later"
