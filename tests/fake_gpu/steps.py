"""Steps of the real trainer on a GPU that computes nothing: fake tensors on `cuda`, of which only shapes exist.

    python tests/fake_gpu/steps.py LIBRARY CASES

Started by test_steps.py in a process of its own, because the device of device.cpp (compiled to LIBRARY) must be there
before torch is. CASES is JSON: command lines by name. It prints what `watching.Watch` saw in the last of a few steps of
each, or the error that ended it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import tempfile
import traceback
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

STEPS = 2  # Shampoo computes roots in the second, and SOAP changes its bases


def main() -> None:
    library, cases = sys.argv[1:]
    add_device(Path(library))
    found = {name: outcome(line) for name, line in json.loads(cases).items()}
    print(json.dumps(found))


def add_device(library: Path) -> None:
    """Let torch believe that it was built with CUDA, and that there is one GPU."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(Path(spec.origin).parent / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library))


def outcome(line: list[str]) -> dict[str, Any]:
    """What one step of the run of this command line does, or its error."""
    try:
        return step(line)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def step(line: list[str]) -> dict[str, Any]:
    """Waits, operations and bytes of step number STEPS; where the model is compiled, its graphs.

    Raises what the step raises.
    """
    import torch
    from helpers import Silent, compose_run
    from torch._subclasses import FakeTensorMode
    from watching import Watch, tokens

    from moe_sweeps.records.rundir import RunDir
    from moe_sweeps.training.trainer import Trainer

    _stand_in_for_cuda()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    run = compose_run(*line)
    with tempfile.TemporaryDirectory() as folder, FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):  # a fake module cannot be moved, so it is built where it belongs
            trainer = Trainer(run, RunDir(Path(folder)), tokens(run), torch.device("cuda"), Silent())
        if run.engine.compile:  # it is not compiled, and its reads have values where a mode watches alone
            trainer.balancer.update = lambda *_, **__: None  # type: ignore[method-assign]
        for _ in range(STEPS):
            watch = Watch("cuda")
            with nullcontext() if run.engine.compile else watch:  # torch traces nothing while a mode watches
                trainer._after_step(trainer._timed_step())
        return {
            "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"],
            "waits": dict(watch.waits),
            "operations": watch.operations.total(),
            "bytes": watch.bytes.total(),
            "by_operation": {name: [count, watch.bytes[name]] for name, count in watch.operations.most_common()},
        }


def _stand_in_for_cuda() -> None:
    """What torch asks of a CUDA build in Python."""
    import torch

    from moe_sweeps.training import gradients, trainer
    from moe_sweeps.training.routing_samples import RoutingSamples

    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, while it traces
    # Without a GPU and Triton the compiler's back end cannot run; the graph, its gradient and their shapes are traced.
    traced = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
    setattr(gradients, "compiled", traced)  # noqa: B010
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]
    # A fake module cannot be given memory in its place either.
    setattr(trainer, "is_filled_in_place", lambda *_: False)  # noqa: B010
    RoutingSamples.write = lambda *_: None  # type: ignore[method-assign]  # a file of numbers, which there are none of
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_: True
    torch.cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8, device="cpu")
    torch.cuda.set_rng_state = lambda *_: None
    torch.nn.Module.to = lambda self, *_, **__: self  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
