"""`--version` of both commands: at once, from one source, with the folder that the sources are in."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

import moe_sweeps
from moe_sweeps.cli.manage import main as manage
from moe_sweeps.cli.train import main as train
from moe_sweeps.paths import REPOSITORY

SAID = f"moe_sweeps {moe_sweeps.__version__} from {REPOSITORY / 'src' / 'moe_sweeps'}\n"
COMMANDS = (["train.py"], ["-m", "moe_sweeps"], ["-m", "moe_sweeps", "train"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_version_is_printed_without_torch(command: list[str]) -> None:
    line = [sys.executable, "-X", "importtime", *command, "--version"]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == (SAID, 0)
    assert not re.search(r"\| +(torch|pandas|hydra)$", done.stderr, re.MULTILINE)
    assert re.search(r"\| +moe_sweeps$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(("main", "words"), [(manage, ["--version"]), (train, ["--version", "seed=1"])])
def test_beside_other_words_too(main: object, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(words)
    assert " ".join(capsys.readouterr().out.split()) == SAID.strip()


def test_one_source_says_the_version_and_the_licence_is_named() -> None:
    said = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project = said["project"]
    assert ("version" in project, project["dynamic"]) == (False, ["version"])
    assert said["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "moe_sweeps.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", moe_sweeps.__version__)
    assert (project["license"], project["license-files"]) == ("MIT", ["LICENSE"])
    assert (
        (REPOSITORY / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) 2026 moe_sweeps contributors\n")
    )
