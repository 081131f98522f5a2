"""Saving and loading add no more to a process's memory than its largest tensor: measured in a process of its own.

Memory that a process has to itself counts (RssAnon). What lies in a file that is mapped is the system's to drop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

MB = 1 << 20
TENSORS, EACH = 12, 8 * MB  # bytes
# What threads, buffers and imports on the way take.
SLACK = 10 * MB

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")

SETUP = """
    import json, sys, threading, time
    from pathlib import Path
    import torch
    from torch import nn
    from moe_sweeps.training.checkpoint import Checkpoints
    from moe_sweeps.distributed.sharding import load_model, part_of_optimizer_state
    from moe_sweeps.training.tensor_file import TensorFile
    from moe_sweeps.sweep.comparing import _compare, _leaves

    TENSORS, NUMBERS = {tensors}, {numbers}
    CPU, FOLDER = torch.device("cpu"), Path({folder!r})
    torch.set_num_threads(1)

    def anonymous():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    class Peak:
        def __enter__(self):
            self.before = self.most = anonymous()
            self.over = False
            self.thread = threading.Thread(target=self.watch)
            self.thread.start()
            return self

        def watch(self):
            while not self.over:
                self.most = max(self.most, anonymous())
                time.sleep(0.0005)

        def __exit__(self, *error):
            self.most = max(self.most, anonymous())
            self.over = True
            self.thread.join()
            print(json.dumps(self.most - self.before))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.params = nn.ParameterList(torch.zeros(NUMBERS) for _ in range(TENSORS))

    def state(seed=0):
        torch.manual_seed(seed)
        return {{"model": {{f"params.{{i}}": torch.randn(NUMBERS) for i in range(TENSORS)}}}}

    store = Checkpoints(FOLDER, 1)
"""


def added(folder: Path, body: str) -> int:
    """Bytes that the block `with Peak():` of `body` added at the most."""
    head = SETUP.format(tensors=TENSORS, numbers=EACH // 4, folder=str(folder))
    code = textwrap.dedent(head) + textwrap.dedent(body)
    # Freed memory goes back at once: what an allocator keeps for later would hide a copy, or look like one.
    env = os.environ | {
        "MIMALLOC_PURGE_DELAY": "0",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 16),
        "MALLOC_TRIM_THRESHOLD_": "0",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout.splitlines()[-1]))


def test_the_measure_sees_a_copy_of_the_whole_state(tmp_path: Path) -> None:
    copying = "import io\nwhole, kept = state(), io.BytesIO()\nwith Peak():\n    torch.save(whole, kept)\n"
    assert added(tmp_path, copying) > TENSORS * EACH


def test_saving(tmp_path: Path) -> None:
    assert added(tmp_path, "whole = state()\nwith Peak():\n    store.save(1, whole)\n") < EACH + SLACK


def test_loading_into_a_model(tmp_path: Path) -> None:
    body = """
        store.save(1, state())
        model = Model()
        with Peak():
            load_model(model, store.load_latest(CPU)[1]["model"])
        assert torch.equal(model.params[3], state()["model"]["params.3"])
    """
    assert added(tmp_path, body) < EACH + SLACK


def test_loading_into_an_optimizer_takes_what_its_state_takes(tmp_path: Path) -> None:
    body = """
        model = Model()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
        optimizer.zero_grad()
        store.save(1, optimizer.state_dict())
        optimizer.state.clear()
        with Peak():
            optimizer.load_state_dict(part_of_optimizer_state(store.load_latest(CPU)[1], optimizer))
        kept = [tensor for of_param in optimizer.state.values() for tensor in of_param.values()]
        assert len(kept) == 3 * TENSORS
    """
    # What was freed before may be used again, so that less may be added than the two moments have.
    assert added(tmp_path, body) < 2 * TENSORS * EACH + EACH + SLACK


def test_comparing_two_checkpoints_that_differ(tmp_path: Path) -> None:
    body = """
        other = Checkpoints(FOLDER / "other", 1)
        other.folder.mkdir()
        store.save(1, state(0))
        other.save(1, state(1))
        with Peak():
            pair = [dict(_leaves(s.load_latest(CPU)[1]["model"])) for s in (store, other)]
            assert len(_compare(*pair).differences) == TENSORS
    """
    assert added(tmp_path, body) < EACH + 3 * SLACK


def test_a_tensor_file_takes_one_tensor_after_another(tmp_path: Path) -> None:
    body = """
        one = torch.zeros(NUMBERS)  # which gives way to the next: what is freed, the allocator would keep for a while
        with Peak():
            with TensorFile(FOLDER) as file:
                whole = {"model": {str(i): file.keep(one.fill_(i)) for i in range(TENSORS)}}
            assert not list(FOLDER.iterdir())
            store.save(1, whole)
        found = store.load_latest(CPU)[1]["model"]
        assert all(torch.equal(found[str(i)], torch.full((NUMBERS,), float(i))) for i in range(TENSORS))
    """
    assert added(tmp_path, body) < 2 * EACH + SLACK
