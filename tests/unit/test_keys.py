"""Keys of other services stay out of everything that is written."""

from __future__ import annotations

import pytest
from helpers import compose_run

from moe_sweeps.errors import ConfigError
from moe_sweeps.keys import without_keys
from moe_sweeps.provenance import command_line

KEY = "0123456789abcdef0123456789abcdef01234567"


def test_values_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "on")  # too short to be one
    assert without_keys(f"login with {KEY} went on") == "login with *** went on"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("launch.setup=['export WANDB_API_KEY=abc']", "launch.setup=['export WANDB_API_KEY=***']"),
        ("HF_TOKEN=abc python train.py seed=1", "HF_TOKEN=*** python train.py seed=1"),
        ("data.tokenizer=bpe trainer.tokens=3", "data.tokenizer=bpe trainer.tokens=3"),
    ],
)
def test_assignments_are_hidden(text: str, hidden: str) -> None:
    assert without_keys(text) == hidden


def test_the_command_in_provenance_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "seed=1", f"launch.setup=[export WANDB_API_KEY={KEY}]"])
    assert command_line() == "python train.py seed=1 launch.setup=[export WANDB_API_KEY=***]"


def test_an_override_with_a_key_is_refused_and_the_message_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"launch\.setup=\*\*\* is refused: it holds an API key") as refused:
        compose_run("launch=slurm", f"launch.setup=['export WANDB_API_KEY={KEY}']")
    assert KEY not in str(refused.value)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(ConfigError, match="Export the key"):
        compose_run("tracking=wandb", f"tracking.entity={KEY}")
