"""At every width of a terminal each command says the same: no name, number or verdict is cut. And colours are no words.

What a command prints on a very wide terminal is what it has to say; on a narrow one every word of that is still there.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import pytest
from unit.results.suite import make_suite

from moe_sweeps.cli.manage import main
from moe_sweeps.records.remarks import change_remarks
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports.drawing.files import Drawn

WIDE = 400
WORDS = re.compile(r"[\w.,:;=+±×<>()\[\]/%#'\"–-]+")
COMMANDS = {
    "status": ["status", "--all"],
    "status of one": ["status", "{a}"],
    "compare": ["compare", "{a}", "{b}", "{c}"],
    "why": ["why", "{a}", "{b}"],
    "judge": ["judge", "{a}", "{b}"],
    "note": ["note", "{a}"],
    "knobs": ["knobs", "aux"],
    "explain": ["explain", "scale=smoke", "lr_split=load_based", "optimizer=shampoo"],
    "explain a cell": ["explain", "aux_coef:1,val_loss"],
    "plan": ["plan", "scale=smoke", "balancer=aux,lossfree", "aux.coef=0.1,0.2", "--no-probe"],
    "tables": ["tables", "--costs"],
    "decide": ["decide", "sweep=lossfree_vs_aux", "scale=smoke", "--budget", "1h", "--dry-run"],
    "report": ["report", "{a}"],
    "retry": ["retry"],
    "cancel": ["cancel", "{a}"],
    "archive": ["archive", "{archive}"],
    "track": ["track", "sync", "--dry-run"],
    "doctor": ["doctor"],
    "help": ["--help"],
}
_SEEN: dict[str, str] = {}
TITLES = {"settings", "command"}  # of texts that stand below their row: what they are is plain
# Columns that a narrow table leaves out, and says so.
LEFT_OUT = {"tables"}
# What they measure differs from call to call.
MEASURED = {"doctor", "decide"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("widths") / "runs"
    make_suite(found)
    runs = RunDir.all(found)
    change_remarks(runs[0].path, lambda remarks: remarks.with_note("a note of several words").with_tag("best"))
    status = runs[1].status()
    status.collapsed = status.code_changed = True
    runs[1].write_status(status)
    return found


@pytest.fixture(autouse=True)
def same_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is silent for five minutes is stale: on a slow machine that happens between two of these tests. And
    figures, which take a minute, have no words here."""
    monkeypatch.setattr("moe_sweeps.results.outcomes.STALE_AFTER", 1e9)
    monkeypatch.setattr("moe_sweeps.launch.follow.SILENT_SECONDS", 1e9)
    monkeypatch.setattr("moe_sweeps.launch.follow.SILENT_SECONDS_ELSEWHERE", 1e9)
    monkeypatch.setattr("moe_sweeps.reports.evidence.draw_files", lambda figures: Drawn({}, {}, {}))


def shown(command: str, width: int, root: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What it prints; on the wide terminal it is run once."""
    if width == WIDE and command in _SEEN:
        return _SEEN[command]
    patch.setenv("MOE_SWEEPS_RUNS", str(root))
    patch.setenv("MOE_SWEEPS_REPORTS", str(root.parent / "reports"))
    patch.setenv("COLUMNS", str(width))
    ids = dict(zip("abc", (run.run_id for run in RunDir.all(root)), strict=False))
    shutil.rmtree(archive := root.with_name("archive"), ignore_errors=True)
    with contextlib.suppress(SystemExit):  # argparse ends so
        main([word.format(**ids, archive=archive) for word in COMMANDS[command]])
    found = capsys.readouterr().out
    if width == WIDE:
        _SEEN[command] = found
    return found


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_cut(
    command: str, width: int, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = shown(command, WIDE, root, monkeypatch, capsys)
    narrow = shown(command, width, root, monkeypatch, capsys)
    assert "…" not in narrow
    words = {word for word in WORDS.findall(wide) if len(word) < width - 8 and not re.fullmatch(r"[━·]+", word)}
    if command in LEFT_OUT:
        words = {word for word in words if "=" in word or re.search(r"[a-z]{4}", word)}
        words -= {"detectable", "P(better)"}
    if command in MEASURED:
        words = {word for word in words if re.fullmatch(r"\D{4,}", word)}  # "min" here may be "s" there
    there = set(WORDS.findall(narrow))
    assert sorted(words - there - TITLES) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_colours_are_neither_words_nor_codes_where_there_are_none(
    command: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through a pipe, with NO_COLOR set and a terminal that has none."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    text = shown(command, WIDE, root, monkeypatch, capsys)
    assert "\x1b" not in text
    assert re.findall(r"(?i)\b(?:grey|gray|red|green|yellow|magenta|cyan|colou?rs?)\b", text) == []
