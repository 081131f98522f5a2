"""`moe-sweeps note`: written once, shown everywhere, as text and nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run, fake_sweep
from unit.hostile import COMMANDS, FLOATS, HOSTILE, latex_problems
from unit.results.suite import make_suite_run

from moe_sweeps.cli.manage import main
from moe_sweeps.records.remarks import MOST_CHARACTERS, change_remarks, remarks_of
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.results.archive import archive

Capture = pytest.CaptureFixture[str]
SHOWN = [text for text in HOSTILE if text.strip() and len(text) <= MOST_CHARACTERS]


@pytest.fixture
def run(folders: Path) -> RunDir:
    found = fake_run(folders, 1, State.done)
    fake_sweep(folders, [found])
    return found


def test_a_note_and_tags_on_a_run(run: RunDir, capsys: Capture) -> None:
    assert main(["note", run.run_id[:9], "looks", "odd", "--tag", "odd", "--tag", "redo"]) == 0
    assert "  1. looks odd  (" in capsys.readouterr().out
    assert main(["status"]) == 0
    assert "#odd #redo looks odd" in capsys.readouterr().out
    assert main(["status", "--where", "tag=redo"]) == 0
    assert run.path.name in capsys.readouterr().out
    assert main(["note", run.run_id, "--untag", "odd", "--remove", "1"]) == 0
    assert remarks_of(run.path).line == "#redo"


def test_a_note_on_a_sweep_by_any_of_its_names(run: RunDir, folders: Path, capsys: Capture) -> None:
    for number, word in enumerate(("fakes", "aaaa", str(folders / "sweeps" / "aaaaaaaaaaaa"))):
        assert main(["note", word, f"note {number}"]) == 0
    capsys.readouterr()
    main(["status"])
    assert "note 0; note 1; note 2" in capsys.readouterr().out
    assert not (run.path / "notes.json").exists()


def test_without_a_text_there_is_what_there_is_and_nothing_is_written(run: RunDir, capsys: Capture) -> None:
    assert main(["note", run.run_id]) == 0
    assert "no notes and no tags" in capsys.readouterr().out
    assert not (run.path / "notes.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing", "x"], "sweeps: fakes"),
        (["fake", "x"], None),
        (["fakez", "x"], "Did you mean fakes?"),
        (["{run}", "--tag", "a b"], "a tag is one word"),
        (["{run}", "--remove", "1"], "counted from 1"),
        (["{run}", "--untag", "x"], "the tags are: none"),
        (["{run}", "x" * (MOST_CHARACTERS + 1)], "a note has at most 2,000"),
    ],
)
def test_what_is_refused(run: RunDir, capsys: Capture, words: list[str], said: str | None) -> None:
    code = main(["note", *(word.format(run=run.run_id) for word in words)])
    assert code == (0 if said is None else 2)
    assert said is None or said in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_not_written_over(run: RunDir, capsys: Capture) -> None:
    (run.path / "notes.json").write_text("{")
    assert main(["note", run.run_id, "x"]) == 2
    assert "so nothing is added" in capsys.readouterr().err
    assert main(["note", run.run_id]) == 2
    assert main(["status"]) == 0
    assert "notes.json cannot be read" in capsys.readouterr().out


class Tags(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def tags(page: Path) -> Tags:
    found = Tags()
    found.feed(re.sub(r"<script.*?</script>|<style.*?</style>", "", page.read_text(), flags=re.DOTALL))
    return found


def test_hostile_texts_are_shown_as_texts_in_terminal_tables_and_page(folders: Path, capsys: Capture) -> None:
    run = make_suite_run(folders, {"aux.coef": "0.1"}, 0, loss=4.0, maxvio=0.1)
    reports = folders.parent / "reports"
    main(["note", run.run_id, "harmless"])
    main(["tables"])
    before = tags(reports / "index.html").tags
    (run.path / "notes.json").unlink()
    for text in SHOWN:
        change_remarks(run.path, lambda found, text=text: found.with_note(text))  # type: ignore[misc]
    capsys.readouterr()
    for words in (["status"], ["note", run.run_id], ["tables"]):
        assert main(words) in (0, 1)
        shown = capsys.readouterr().out
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202e]", shown)
        assert "![picture](http" in shown
    page = tags(reports / "index.html")
    assert page.tags == before
    folder = next(path.parent for path in reports.rglob("table.md"))
    markdown = (folder / "table.md").read_text()
    assert "note on " in markdown
    assert not re.search(r"(?<!\\)<script", markdown)
    found = re.sub(r"^%.*$", "", (folder / "table.tex").read_text(), flags=re.MULTILINE)
    assert latex_problems(found, COMMANDS | FLOATS) == []


def test_notes_go_on_in_an_archive(folders: Path, tmp_path: Path, capsys: Capture) -> None:
    run = make_suite_run(folders, {"aux.coef": "0.1"}, 0, loss=4.0, maxvio=0.1)
    main(["note", run.run_id, "first"])
    archive([run], [], folders, tmp_path / "archive")
    main(["note", run.run_id, "second"])
    archive([run], [], folders, tmp_path / "archive")
    assert remarks_of(tmp_path / "archive" / run.path.name).line == "first; second"
