"""What is refused before it is read, and what is not."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import yaml

from moe_sweeps.host.reading import (
    MOST_LEVELS,
    Refused,
    appending,
    is_name,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_tail,
    read_yaml,
)


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, 2.5, "é", null, true]}')
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5, "é", None, True]}
    assert read_bytes(tmp_path / "x.json", 33) == (tmp_path / "x.json").read_bytes()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["FIFO", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    found: list[BaseException] = []

    def read() -> None:
        try:
            read_bytes(tmp_path / "x")
        except Refused as error:
            found.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert [str(error) for error in found] == ["x is not a regular file"]


def test_links_are_refused_also_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("1")
    (tmp_path / "real" / "link").symlink_to("x")
    (tmp_path / "folder").symlink_to("real")
    for path in (tmp_path / "real" / "link", tmp_path / "folder" / "x"):
        with pytest.raises(Refused, match="is a link"):
            read_bytes(path)
        assert read_bytes(path, links=True) == b"1"
    (tmp_path / "root").symlink_to(tmp_path)  # the runs folder itself may be one
    assert read_bytes(tmp_path / "root" / "real" / "x") == b"1"


def test_a_file_of_another_size_than_any_run_writes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(100 << 30)
    with pytest.raises(Refused, match="107,374,182,400 bytes"):
        read_bytes(tmp_path / "x")
    assert read_tail(tmp_path / "x", 10) == "\0" * 10


def test_what_is_missing_or_closed_is_said_as_ever(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_bytes(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "no" / "x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ('{"a": 1, "a": 2}', "a key twice"),
        ('"\\ud800"', "surrogates"),
        ("9" * 400, r"2\^64 or more"),
        ("-" + "9" * 400, r"2\^64 or more"),
        ("1" + "0" * 20, r"2\^64 or more"),
        ("1e999", "not finite"),
        ("[" * 65 + "]" * 65, "deeper than 64"),
        ("[" * 100_000, "deeper than 64"),
        ('{"a":' * 500 + "1" + "}" * 500, "deeper than 64"),
    ],
)
def test_json_that_no_run_writes_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_json(text.encode())


def test_json_that_runs_write_is_not() -> None:
    deep: object = 1
    for _ in range(MOST_LEVELS - 1):
        deep = [deep]
    for value in (deep, {"a": [[]] * 100}, 2**64 - 1, 0.00012345678901234567, 1e-300, "9" * 400, "ab" * 32, "\\ud800"):
        assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [1]\nb: *a\n", "alias"),
        ("a: &a {b: *a}\n", "alias"),
        ("a: 2026-01-01\n", "holds a date"),
        ("a: !!set {x}\n", "holds a set"),
        ("a: !!binary eA==\n", "holds a bytes"),
        ("1: 2\n", "key that is not text"),
        ("a: .inf\n", "not finite"),
        (f"a: {'9' * 400}\n", r"2\^64 or more"),
        ("a: " + "[" * 70 + "]" * 70, "deeper than 64"),
    ],
)
def test_yaml_that_no_run_writes_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_yaml(text.encode())


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError, match="constructor"):
        parse_yaml(f"a: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]".encode())
    assert not (tmp_path / "made").exists()


def test_yaml_that_runs_write_is_not_refused(tmp_path: Path) -> None:
    content = {"a": {"b": [1, 2.5, None, True, "x & y", "*", "&id001"]}, "c": "first\nsecond"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert read_yaml(tmp_path / "config.yaml") == content


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp", "a\0b", ".hidden", "x" * 300, "a\nb", None, 7])
def test_what_is_no_name(name: object) -> None:
    assert not is_name(name)
    assert is_name("proxy-aux-00b6b6bc7f63")


def test_nothing_is_appended_to_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine\n")
    (tmp_path / "log").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("log", "pipe"):
        with pytest.raises(Refused), appending(tmp_path / name):
            pass
    with appending(tmp_path / "new") as file:
        file.write(b"line\n")
    with appending(tmp_path / "new") as file:
        file.write(b"line\n")
    assert (tmp_path / "target").read_text() == "mine\n"
    assert (tmp_path / "new").read_text() == "line\nline\n"
