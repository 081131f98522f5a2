"""Printed commands come out of a real shell as the words that they were made of."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from moe_sweeps.host.shell import command, pip_command, quoted, tool_command, train_command
from moe_sweeps.paths import TRAIN

ECHO = "import json, os, sys; print(json.dumps([os.fsencode(w).hex() for w in sys.argv[1:]]))"
WORDS = (
    "optimizer.base_lr=tag(log,interval(1e-3,3e-2))",
    "aux.coef=0.1,0.2,0.6",
    "data.domains=[a,b]",
    'name=it\'s "quoted"',
    "name=$HOME `id` $(id) ${aux.coef} !! \\",
    "a b  c",
    "",
    "*?[x]{a,b}~#;&|<>",
    "line\nbreak\tand\x1b[31m red",
    "\u202eturned\u200b",
    "--help",
    "Ωmega 数",
    "\udcff bytes",
)


def through(shell: str, line: str) -> list[str]:
    done = subprocess.run([shell, "-c", line], capture_output=True, check=True)
    return [bytes.fromhex(word).decode(errors="surrogateescape") for word in json.loads(done.stdout)]


def test_bash_reads_back_every_word() -> None:
    line = command(sys.executable, "-c", ECHO, *WORDS)
    assert "\n" not in line
    assert "\x1b" not in line
    assert through("bash", line) == list(WORDS)


@pytest.mark.parametrize("word", [word for word in WORDS if word.isprintable()])
def test_what_can_be_shown_needs_no_more_than_a_plain_shell(word: str) -> None:
    assert through("sh", command(sys.executable, "-c", ECHO, word)) == [word]


def test_plain_words_stay_as_they_are_typed() -> None:
    assert quoted("aux.coef=0.1,0.2") == "aux.coef=0.1,0.2"
    assert tool_command("status", "abc") == "moe-sweeps status abc"
    assert train_command(["seed=0,1"], several=True) == f"{TRAIN} -m seed=0,1"
    assert train_command(["lr=tag(log,interval(1,2))"]) == f"{TRAIN} 'lr=tag(log,interval(1,2))'"


def test_a_line_of_pip_pastes_where_python_lies_in_a_folder_with_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/a clone/.venv/bin/python")
    line = pip_command("-e", ".[tensorboard]")
    assert line == "'/a clone/.venv/bin/python' -m pip install -e '.[tensorboard]'"
    assert shlex.split(line) == ["/a clone/.venv/bin/python", "-m", "pip", "install", "-e", ".[tensorboard]"]
