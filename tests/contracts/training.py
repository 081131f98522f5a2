"""What training must keep whatever is trained, as functions of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import never, records, trainer, without_times

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Interrupted
from moe_sweeps.experiment.schema import RunConfig


def stopped_and_resumed_is_bit_identical(run: RunConfig, data: TokenData, folders: Path) -> None:
    """A run that is stopped after step 7 and goes on equals one that is not: numbers, lines, weights and state."""
    whole = trainer(run, data)
    whole.folder.write_summary(whole.train(never))
    expected, expected_lines = without_times(whole.folder.summary()), records(whole.folder)
    whole.folder.path.rename(folders / "elsewhere")
    stopped = trainer(run, data)
    with pytest.raises(Interrupted, match=f"stopped after step 7 of {run.trainer.steps}"):
        stopped.train(lambda: stopped.step == 7)
    resumed = trainer(run, data)
    resumed.folder.write_summary(resumed.train(never))
    assert without_times(resumed.folder.summary()) == expected
    assert records(resumed.folder) == expected_lines
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    for name, tensor in whole.balancer.state_dict().items():
        assert torch.equal(tensor, resumed.balancer.state_dict()[name]), name


def evaluation_changes_no_state(run: RunConfig, data: TokenData) -> None:
    ours = trainer(run, data)
    ours._train_step()
    before = {k: v.clone() for k, v in (ours.model.state_dict() | ours.balancer.state_dict()).items()}
    random = torch.get_rng_state()
    ours.evaluate(32)
    after = ours.model.state_dict() | ours.balancer.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(random, torch.get_rng_state())
    assert ours.model.training
