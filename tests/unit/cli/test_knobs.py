"""The list of all keys: complete, explained, and the page in docs/ as the code has it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from helpers import compose_run

from moe_sweeps.cli import train
from moe_sweeps.cli.knobs import UNDOCUMENTED, kinds_on, knobs, markdown, own_kinds
from moe_sweeps.cli.manage import main
from moe_sweeps.config.registry import REGISTRY, doc_of, knob
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.optim import AdamWConfig
from moe_sweeps.paths import REPOSITORY


def test_every_key_of_a_config_is_listed_and_explained() -> None:
    listed = {knob.key: knob for knob in knobs()}
    for line in ([], ["balancer=lossfree", "optimizer=shampoo", "launch=slurm", "lr_split=static", "tracking=wandb"]):
        content = to_dict(compose_run(*line))
        groups = {group: value for group, value in content.items() if isinstance(value, dict)}
        flat = {f"{g}.{k}" for g, value in groups.items() for k in value if k != "kind"} | (
            content.keys() - groups.keys()
        )
        assert flat <= listed.keys()
    assert [knob.key for knob in knobs() if not knob.meaning or knob.meaning.startswith(UNDOCUMENTED)] == []


def test_what_is_said_of_a_key() -> None:
    (found,) = [knob for knob in knobs("temperature") if knob.key == "router.temperature"]
    assert (found.default, found.values, found.options) == ("1.0", "float, > 0", ())
    assert found.meaning == "logits are divided by it, in training and evaluation"
    (folder,) = [knob for knob in knobs() if knob.key == "paths.runs"]
    assert (folder.default, folder.meaning) == ("runs", "run folders; MOE_SWEEPS_RUNS sets it, too")
    (rate,) = [knob for knob in knobs("balancer.rate") if knob.key == "balancer.rate"]
    assert rate.options == ("lossfree", "aux_lossfree")
    (noise,) = [knob for knob in knobs("router.noise") if knob.key == "router.noise"]
    assert noise.values == "none, fixed, learned"
    assert "fixed: z + noise_std" in noise.meaning


def test_kinds_that_declare_a_key_differently_have_a_row_each() -> None:
    found = [knob for knob in knobs("data.vocab_size") if knob.key == "data.vocab_size"]
    assert (found[0].options, found[0].default) == (("corpus",), "2048")
    assert {knob.default for knob in found} == {"2048", "50304"}
    assert sorted(kind for knob in found for kind in knob.options) == sorted(REGISTRY["data"])


def test_a_package_that_documents_no_knob_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(slots=True)
    class SilentConfig(AdamWConfig):
        kind: str = "silent"
        horizon: int = knob(7)

    monkeypatch.setitem(REGISTRY, "optimizer", REGISTRY["optimizer"] | {"silent": SilentConfig})
    (found,) = [one for one in knobs() if one.key == "optimizer.horizon"]
    assert found.meaning == "not documented: its package declares the knob without doc=..."


def test_help_says_what_groups_and_single_keys_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    said = capsys.readouterr().out
    for field in dataclasses.fields(RunConfig):
        if field.name != "paths":
            assert f"  {field.name:<18} {doc_of(RunConfig, field.name)}\n" in said


def test_the_page_is_that_of_the_code() -> None:
    """Of the kinds that it lists: a component that somebody adds is written into it by `make format`."""
    page = (REPOSITORY / "docs" / "knobs.md").read_text()
    listed = kinds_on(page)
    assert {"aux", "lossfree", "none"} <= set(listed["balancer"])
    assert listed.keys() == own_kinds().keys()
    assert page == markdown(listed), "docs/knobs.md is not that of the code: make format"


def test_a_new_kind_leaves_the_page_true_until_it_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    page = markdown()

    @dataclass(slots=True)
    class NewConfig(AdamWConfig):
        kind: str = "new"
        horizon: int = knob(7, doc="how far it looks")

    monkeypatch.setitem(REGISTRY, "optimizer", REGISTRY["optimizer"] | {"new": NewConfig})
    assert markdown(kinds_on(page)) == page
    anew = markdown()
    assert "| `optimizer.horizon` (new) | `7` | int | how far it looks |" in anew
    assert markdown(kinds_on(anew)) == anew


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knobs", "grad_clip"]) == 0
    assert (
        "trainer.grad_clip=1.0  float, >= 0\n    maximum global norm of the gradients; 0 turns clipping off"
        in capsys.readouterr().out
    )
    assert main(["knobs", "gradclip"]) == 1
    assert "no key has gradclip" in capsys.readouterr().out
    assert main(["knobs", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown()
