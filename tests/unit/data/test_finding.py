"""Which files data.files names, however it is spelled, and what is passed over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moe_sweeps.data import finding
from moe_sweeps.data.account import planned_text, sentences
from moe_sweeps.data.config import TextConfig, TextFormat
from moe_sweeps.data.finding import find_files
from moe_sweeps.errors import DataError, MoeSweepsError

READ = ["web/a.jsonl", "web/sub/b.jsonl"]


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of records with everything beside them that programs and people leave there."""
    folder = tmp_path / "web"
    beside = [".ipynb_checkpoints/a-checkpoint.jsonl", ".cache/x/a.jsonl", "__pycache__/a.jsonl", "._a.jsonl"]
    for name in [*beside, "a.jsonl", "sub/b.jsonl", "README.md", "sub/LICENSE-MIT.txt", "notes.txt", "t.csv"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": name}))
    (folder / "again.jsonl").symlink_to("a.jsonl")
    (folder / "around").symlink_to(folder)
    (folder / "nothing.jsonl").symlink_to("not there")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOE_SWEEPS_HOME", str(tmp_path))
    return folder


def below(root: Path, paths: list[Path]) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


@pytest.mark.parametrize(
    "spelling",
    [
        *("{}", "{}/", "{}/.", "{}/../web", "{}/sub/..", "web", "./web/", "~/web", "link", "~/link/", "{}/../link"),
        *("we*", "{}/*", "{}/**", "{}/**/*", "{}/**/*.jsonl", "w[e]b/**/**", "*/**/*.jsonl"),
        *("web:web", "web:{}/", "link:web", "{}/a.jsonl:web", "web/sub:web", "web/*.jsonl:web/s?b/*", ":web:"),
    ],
)
def test_every_spelling_of_a_folder_reads_the_same_files_in_the_same_order(web: Path, spelling: str) -> None:
    found = find_files(TextConfig(files=spelling.format(web)))
    assert below(web.parent, found.files) == READ


def test_what_is_passed_over_is_counted_with_its_reason(web: Path) -> None:
    found = find_files(TextConfig(files=str(web)))
    assert found.counts() == {
        finding.HIDDEN: 4,
        finding.CARDS: 2,
        finding.LINKS: 1,
        finding.TWICE: 1,
        finding.BESIDE: 1,
        finding.UNREADABLE: 1,
    }
    assert found.roots == [web]
    read, passed_over = sentences({"files": found.account})
    assert read == f"text: 2 files, 0.0 MB, from {web}"
    assert passed_over.startswith(
        "passed over: 10 files; hidden: 4 (such as ._a.jsonl), cards and licences: 2 (such as"
    )


@pytest.mark.parametrize(
    ("files", "text_format", "read"),
    [
        ("web", TextFormat.plain, ["web/notes.txt"]),
        ("web/*.txt", TextFormat.auto, ["web/notes.txt"]),
        ("web/notes.txt:web/sub", TextFormat.auto, ["web/notes.txt", "web/sub/b.jsonl"]),
        ("web/README.md", TextFormat.auto, ["web/README.md"]),
        ("web/**/README*", TextFormat.auto, ["web/README.md"]),
        ("web/.cache", TextFormat.auto, ["web/.cache/x/a.jsonl"]),  # hidden, and asked for by name
        ("web/.cache/*/*.jsonl", TextFormat.auto, ["web/.cache/x/a.jsonl"]),
    ],
)
def test_what_is_asked_for_is_read(web: Path, files: str, text_format: TextFormat, read: list[str]) -> None:
    assert below(web.parent, find_files(TextConfig(files=files, format=text_format)).files) == read


@pytest.mark.parametrize(
    ("files", "text_format", "message"),
    [
        ("nowhere", TextFormat.auto, r"/nowhere matches no file\. Formats: \.txt"),
        ("web:nowhere", TextFormat.auto, r"/nowhere matches no file"),
        ("web/*.tsv", TextFormat.auto, r"matches no file"),
        ("web/t.csv", TextFormat.auto, r"/web/t\.csv has an ending that is not read"),
        ("web/._*", TextFormat.auto, r"nothing that .* names is text \(1 hidden, such as .*/\._a\.jsonl\)"),
        ("web", TextFormat.parquet, r"6 of another format than data\.format"),
        (":".join(f"name{n}.txt" for n in range(2000)), TextFormat.auto, "matches no file"),
    ],
)
def test_a_part_that_names_no_text_is_refused(web: Path, files: str, text_format: TextFormat, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_files(TextConfig(files=files, format=text_format))


def test_a_home_of_nobody_is_refused_in_words(web: Path) -> None:
    with pytest.raises(MoeSweepsError, match="~nobody-at-all"):
        find_files(TextConfig(files="~nobody-at-all/web"))


def test_a_colon_in_the_name_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run:1"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    assert find_files(TextConfig(files=str(folder))).files == [folder / "a.txt"]


def test_parquet_is_not_compressed_again_and_endings_may_be_capitals(tmp_path: Path) -> None:
    for name in ("a.parquet.gz", "a.TXT", "b.txt.GZ", "c.zst"):
        (tmp_path / name).write_bytes(b"")
    found = find_files(TextConfig(files=str(tmp_path)))
    assert below(tmp_path, found.files) == ["a.TXT", "b.txt.GZ"]
    assert found.counts() == {finding.UNREADABLE: 2}


def test_a_folder_that_cannot_be_listed_is_said(web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.listdir

    def refuse(folder: Path) -> list[str]:
        if folder.name == "sub":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(DataError, match=r"web/sub cannot be listed \(Permission denied\)"):
        find_files(TextConfig(files=str(web)))


def test_a_plan_refuses_text_that_is_neither_here_nor_prepared(web: Path, tmp_path: Path) -> None:
    assert planned_text(TextConfig(files="web"), tmp_path / "data")[0].startswith("text: 2 files")
    assert planned_text(TextConfig(hub="owner/name"), tmp_path / "data") == []
    with pytest.raises(DataError, match="matches no file"):
        planned_text(TextConfig(files="nowhere"), tmp_path / "data")
