"""The same bits: twice, after a stop and a resume, from a checkpoint, and for a model filled on the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from on_device import DEVICE, MARKS, STEPS, deterministic, differing, ids, state_of, trainer, without_waiting

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Interrupted
from moe_sweeps.model.transformer import build_model, weights_digest

pytestmark = MARKS
# Each balancer and each optimizer once, and what else has state.
LINES = [
    ("balancer=aux", "optimizer=adamw"),
    ("balancer=lossfree", "optimizer=muon"),
    ("balancer=aux_lossfree", "optimizer=shampoo"),
    ("balancer=quantile", "optimizer=soap"),
    ("balancer=expert_choice", "optimizer=adamw"),
    ("balancer=none", "lr_split=batch_fraction"),
    ("balancer=aux", "router.noise=fixed"),
    ("balancer=lossfree", "data.mask_documents=true"),
]
CASES = pytest.mark.parametrize("line", LINES, ids=ids(LINES))


@CASES
def test_two_runs_are_the_same_bit_for_bit(folders: Path, real_data: TokenData, line: tuple[str, ...]) -> None:
    with deterministic():
        pair = [trainer(real_data, folders / name, DEVICE, *line) for name in ("one", "two")]
        for one in pair:
            one.train(lambda: False)
    assert differing(*map(state_of, pair)) == []


@CASES
def test_a_run_goes_on_where_it_stopped(folders: Path, real_data: TokenData, line: tuple[str, ...]) -> None:
    with deterministic():
        whole = trainer(real_data, folders / "whole", DEVICE, *line)
        whole.train(lambda: False)
        stopped = trainer(real_data, folders / "parts", DEVICE, *line)
        with pytest.raises(Interrupted):
            stopped.train(lambda: stopped.step == 7)
        resumed = trainer(real_data, folders / "parts", DEVICE, *line)
        resumed.train(lambda: False)
    assert resumed.step == STEPS
    assert differing(state_of(whole), state_of(resumed)) == []
    steps = [record["step"] for record in resumed.journal.metrics.records() if record["split"] == "train"]
    assert steps == list(range(1, STEPS + 1))


@CASES
def test_weights_on_the_device_are_those_of_the_cpu(folders: Path, real_data: TokenData, line: tuple[str, ...]) -> None:
    one = trainer(real_data, folders, DEVICE, *line)
    assert {param.device.type for param in one.model.parameters()} == {DEVICE.type}
    assert weights_digest(one.model) == weights_digest(
        build_model(one.run, real_data.vocab_size, real_data.end_of_text_id)
    )


@CASES
def test_a_step_does_not_wait_for_the_device(folders: Path, real_data: TokenData, line: tuple[str, ...]) -> None:
    """Between two logged steps; the first ones allocate and tune."""
    one = trainer(real_data, folders, DEVICE, *line, "trainer.log_every=20")
    for _ in range(5):
        one._train_step()
        one.step += 1
    with without_waiting():
        for _ in range(4):
            one._train_step()
            one.step += 1


def test_a_checkpoint_of_the_device_is_read_on_it_alone(folders: Path, real_data: TokenData) -> None:
    """In float32 it could be resumed anywhere; bfloat16 of a GPU is refused on the CPU."""
    one = trainer(real_data, folders, DEVICE)
    one.train(lambda: False)
    found = one.saver.checkpoints.load_latest(torch.device("cpu"))
    assert found is not None
    step, state = found
    assert (step, state["autocast"]) == (STEPS, DEVICE.type == "cuda")
    assert {value.device.type for value in state["model"].values()} == {"cpu"}
