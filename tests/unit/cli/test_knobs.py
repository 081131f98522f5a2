"""The list of all keys: complete, explained, and the page in docs/ as the code has it."""

from __future__ import annotations

import pytest
from helpers import compose_run

from moe_sweeps.cli.knobs import knobs, markdown
from moe_sweeps.cli.manage import main
from moe_sweeps.config.frozen import to_dict
from moe_sweeps.paths import REPOSITORY


def test_every_key_of_a_config_is_listed_and_explained() -> None:
    listed = {knob.key: knob for knob in knobs()}
    for line in ([], ["balancer=lossfree", "optimizer=shampoo", "launch=slurm", "lr_split=static", "tracking=wandb"]):
        groups = {group: value for group, value in to_dict(compose_run(*line)).items() if isinstance(value, dict)}
        flat = {f"{g}.{k}" for g, value in groups.items() if g != "paths" for k in value if k != "kind"}
        assert flat <= listed.keys()
    assert [knob.key for knob in listed.values() if not knob.meaning] == []


def test_what_is_said_of_a_key() -> None:
    (found,) = [knob for knob in knobs("temperature") if knob.key == "router.temperature"]
    assert (found.default, found.values, found.options) == ("1.0", "float, > 0", ())
    assert found.meaning == "logits are divided by it, in training and evaluation"
    (rate,) = [knob for knob in knobs("balancer.rate") if knob.key == "balancer.rate"]
    assert rate.options == ("lossfree", "aux_lossfree")
    (noise,) = [knob for knob in knobs("router.noise") if knob.key == "router.noise"]
    assert noise.values == "none, fixed, learned"
    assert "fixed: z + noise_std" in noise.meaning


def test_the_page_is_that_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "knobs.md").read_text()
    assert page == markdown(), "moe-sweeps knobs --markdown > docs/knobs.md"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knobs", "grad_clip"]) == 0
    assert "trainer.grad_clip=1.0  float, >= 0\n    global norm; 0 turns clipping off" in capsys.readouterr().out
    assert main(["knobs", "gradclip"]) == 1
    assert "no key has gradclip" in capsys.readouterr().out
    assert main(["knobs", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown()
