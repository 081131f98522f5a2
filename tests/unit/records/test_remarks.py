"""Notes and tags: nothing is lost, whoever writes at once, and what cannot be read is not written over."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from unit.hostile import HOSTILE

from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.host.locks import locked
from moe_sweeps.records import remarks
from moe_sweeps.records.remarks import (
    FILE,
    LOCK,
    MOST_CHARACTERS,
    MOST_NOTES,
    Remarks,
    change_remarks,
    remarks_of,
)


def add(folder: Path, text: str) -> Remarks:
    return change_remarks(folder, lambda found: found.with_note(text))


def texts(folder: Path) -> list[str]:
    return [note.text for note in remarks_of(folder).notes]


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert not remarks_of(tmp_path)
    assert remarks_of(tmp_path).line == ""
    assert not list(tmp_path.iterdir())


def test_notes_and_tags_in_their_order(tmp_path: Path) -> None:
    add(tmp_path, "first")
    change_remarks(tmp_path, lambda found: found.with_tag("best").with_tag("best").with_tag("v1.0+x"))
    add(tmp_path, "second")
    found = remarks_of(tmp_path)
    assert found.line == "#best #v1.0+x first; second"
    assert [note.by for note in found.notes] == [remarks._user()] * 2
    change_remarks(tmp_path, lambda found: found.without_note(1).without_tag("best"))
    assert remarks_of(tmp_path).line == "#v1.0+x second"


@pytest.mark.parametrize(
    "text", [*HOSTILE, "${oc.env:HOME} ${aux.coef}", "\\input{/etc/passwd} $x^2$ % #", "<script>1</script>"]
)
def test_every_text_comes_back_as_it_was_typed(tmp_path: Path, text: str) -> None:
    if not text.strip() or len(text) > MOST_CHARACTERS:
        return
    add(tmp_path, text)
    assert texts(tmp_path) == [text.encode(errors="replace").decode().strip()]
    assert (tmp_path / FILE).read_text().isascii()


@pytest.mark.parametrize("text", ["", "  \n", "x" * (MOST_CHARACTERS + 1)])
def test_a_text_that_is_no_note_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        add(tmp_path, text)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("tag", ["", "two words", "a,b", "a=b", "#a", "-x", "_x", "x" * 41, "\x1b[31m", "a\nb", "<b>"])
def test_a_tag_is_one_word(tmp_path: Path, tag: str) -> None:
    with pytest.raises(ConfigError, match="a tag is one word"):
        change_remarks(tmp_path, lambda found: found.with_tag(tag))


def test_what_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    add(tmp_path, "one")
    for number in (0, 2, -1):
        with pytest.raises(ConfigError, match="counted from 1"):
            change_remarks(tmp_path, lambda found, number=number: found.without_note(number))  # type: ignore[misc]
    with pytest.raises(ConfigError, match="the tags are: none"):
        change_remarks(tmp_path, lambda found: found.without_tag("x"))
    assert texts(tmp_path) == ["one"]


def test_there_is_a_most(tmp_path: Path) -> None:
    full = Remarks(tuple(remarks.Note("x", "t", "me") for _ in range(MOST_NOTES)))
    change_remarks(tmp_path, lambda _: full)
    with pytest.raises(ConfigError, match="is the most"):
        add(tmp_path, "one more")


def write_ten(folder: Path, who: int) -> None:
    for number in range(10):
        add(folder, f"{who}-{number}")


def test_of_several_writers_none_loses_anything(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_ten, args=(tmp_path, who)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(texts(tmp_path)) == sorted(f"{who}-{number}" for who in range(4) for number in range(10))


def test_a_writer_who_waits_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remarks, "WAIT_SECONDS", 0.0)
    with locked(tmp_path / LOCK), pytest.raises(MoeSweepsError, match="another process writes notes"):
        add(tmp_path, "x")


DAMAGED = {
    "cut": b'{"notes": [{"te',
    "a list": b"[]",
    "notes of numbers": b'{"notes": [1], "tags": []}',
    "a tag that is none": b'{"notes": [], "tags": [1]}',
    "a text that is none": b'{"notes": [{"text": 1, "time": "", "by": ""}], "tags": []}',
    "half a letter": b'{"notes": [{"text": "\\ud800", "time": "", "by": ""}], "tags": []}',
    "not UTF-8": b"\xff",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_cannot_be_read_is_said_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert remarks_of(tmp_path).line.startswith("notes.json cannot be read: ")
    with pytest.raises(MoeSweepsError, match="so nothing is added"):
        add(tmp_path, "x")
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"notes": [], "tags": ["secret"]}))
    place = tmp_path / FILE
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    found = remarks_of(tmp_path)
    assert found.tags == ()
    assert found.problem
    with pytest.raises(MoeSweepsError, match="so nothing is added"):
        add(tmp_path, "x")
    assert "secret" in secret.read_text()


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "kept")

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, "lost")
    monkeypatch.undo()
    assert texts(tmp_path) == ["kept"]
    assert {path.name for path in tmp_path.iterdir()} == {FILE, LOCK}
