"""wandb and TensorBoard: what they write, and what they read back from earlier attempts."""

from __future__ import annotations

import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from unit.hostile import HOSTILE

from moe_sweeps.host.plain import plain
from moe_sweeps.records.mirror import Record
from moe_sweeps.records.rundir import State
from moe_sweeps.results.history import History
from moe_sweeps.tracking import wandb as wandb_tracker
from moe_sweeps.tracking.results import experts_table, summary_table
from moe_sweeps.tracking.rows import Row
from moe_sweeps.tracking.tensorboard import TensorBoardTracker
from moe_sweeps.tracking.tracker import Facts, Results


def png(path: Path) -> Path:
    """A grey picture of 3 x 2."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(8))) + chunk(b"IEND", b"")
    )
    return path


def events(folder: Path) -> list[tuple[int, str, Any]]:
    """(step, tag, value) of all event files, in their order, as TensorBoard's own reader finds them."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = []
    for path in sorted(folder.glob("tensorboard/*tfevents*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                tensor = value.tensor
                found.append((event.step, value.tag, tensor.float_val[0] if tensor.float_val else tensor.string_val))
    return found


def test_tensorboard_holds_each_step_once_over_attempts(tmp_path: Path) -> None:
    facts = Facts("id", "name", None, {"aux": {"coef": 0.1}}, tmp_path)
    first = TensorBoardTracker()
    assert first.begin(facts) == 0
    for step in (4, 8, 12):
        first.log(Row(step, {"train/loss": step / 2, "lr/expert": 0.5}))
    first.end(None)
    (path,) = tmp_path.glob("tensorboard/*tfevents*")
    path.write_bytes(path.read_bytes()[:-5])  # a kill cuts the last step short

    second = TensorBoardTracker()
    assert second.begin(facts) == 8
    second.log(Row(12, {"train/loss": 6.0, "lr/expert": 0.5}))
    table = (["name", "value"], [["val_loss", "1.5"]])
    results = Results({"val_loss": 1.5}, {"summary": table}, {"load": png(tmp_path / "load.png")})
    second.add_results(Row(16, {"train/loss": 8.0}), results)
    second.end(State.done)

    found = events(tmp_path)
    assert [(s, v) for s, tag, v in found if tag == "train/loss"] == [(4, 2.0), (8, 4.0), (12, 6.0), (16, 8.0)]
    texts = {tag: v[0].decode() for _, tag, v in found if tag in ("config", "summary")}
    assert "aux:\n  coef: 0.1" in texts["config"]
    assert texts["summary"] == "| name | value |\n| --- | --- |\n| val&#95;loss | 1.5 |"
    (picture,) = [v for step, tag, v in found if tag == "pictures/load" and step == 16]
    assert list(picture) == [b"3", b"2", (tmp_path / "load.png").read_bytes()]
    assert [tag for _, tag, _ in found].count("config") == 1

    third = TensorBoardTracker()
    assert third.begin(facts) == 16
    third.add_results(None, results)
    third.end(State.done)
    assert events(tmp_path) == found


class Page(HTMLParser):
    """The tags with their attributes, and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.shape: list[object] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.shape.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(folder: Path, text: str) -> dict[str, Page]:
    """What TensorBoard makes of its text panels where `text` stands in a config and in both places of a table."""
    from tensorboard.plugin_util import markdown_to_safe_html

    tracker = TensorBoardTracker()
    tracker.begin(Facts("id", "name", None, {"note": text, "lines": f"a\n{text}\n```\n\n# {text}"}, folder))
    tracker.add_results(Row(4, {"train/loss": 1.0}), Results({}, {"summary": (["name", text], [[text, "1.5"]])}))
    tracker.end(State.done)
    return {tag: Page(markdown_to_safe_html(v[0])) for _, tag, v in events(folder) if tag in ("config", "summary")}


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated")  # TensorBoard's
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_tensorboard_shows_texts_of_a_run_as_text(tmp_path: Path, number: int) -> None:
    """By its own renderer of Markdown: no markup, link or picture comes from a run folder."""
    text = HOSTILE[number].encode(errors="replace").decode()
    found, harmless = shown(tmp_path / "hostile", text), shown(tmp_path / "harmless", "word")
    assert set(found) == {"config", "summary"}
    assert {tag: page.shape for tag, page in found.items()} == {tag: page.shape for tag, page in harmless.items()}
    assert found["summary"].text.count(plain(text).strip()) == 2


def records(*steps: int, ended: bool = True) -> list[dict[str, Any]]:
    """What wandb's reader finds in the file of an attempt."""
    rows: list[dict[str, Any]] = [{"type": "history", "history": {"item": {"_step": step}}} for step in steps]
    return [{"type": "run"}, *rows, *([{"type": "exit"}] if ended else [])]


@pytest.mark.parametrize(
    ("in_files", "recorded", "last", "expected", "left"),
    [
        ([], [], 0, 0, []),
        ([records(20), records(40)], ["a0", "a1"], 44, 40, ["a0", "a1"]),  # the last rows never reached the file
        ([records(20), records(40, ended=False)], ["a0", "a1"], 44, 20, ["a0"]),  # cut short
        ([records(ended=False)], ["a0"], 12, 0, []),
        ([records(20), records()], ["a0", "a1"], 24, 20, ["a0", "a1"]),  # a second attempt that logged nothing
        ([], ["a0"], 44, 44, []),  # somebody has removed it: it was sent
        ([records(60)], ["a0", "a1"], 44, 60, ["a1"]),
        ([records()], ["a0", "a1"], 44, 44, ["a1"]),
    ],
)
def test_files_say_what_wandb_holds_and_the_record_what_removed_ones_held(
    in_files: list[list[dict[str, Any]]],
    recorded: list[str],
    last: int,
    expected: int,
    left: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = len(recorded) - len(in_files)  # the oldest are removed
    files = [tmp_path / f"a{first + i}" / "run-x.wandb" for i in range(len(in_files))]
    for path in files:
        path.parent.mkdir()
    monkeypatch.setattr(wandb_tracker, "inspect", dict(zip(files, in_files, strict=True)).__getitem__)
    assert wandb_tracker.steps_held(files, Record("wandb-offline", last_step=last, files=recorded)) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == left


def test_a_file_that_was_sent_stays_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run-x.wandb"
    path.with_name("run-x.wandb.synced").touch()
    monkeypatch.setattr(wandb_tracker, "inspect", lambda path: records(40, ended=False))
    assert wandb_tracker.steps_held([path], Record("wandb-offline", last_step=44)) == 40


def test_a_file_that_is_not_wandbs(tmp_path: Path) -> None:
    path = tmp_path / "offline-run-1-x" / "run-x.wandb"
    path.parent.mkdir()
    path.write_text("nonsense")
    with pytest.raises(RuntimeError, match="wandb cannot read"):
        wandb_tracker.inspect(path)


def test_tables() -> None:
    record = {"step": 8, "load_LE": [[3, 1]], "domain_load": {"web": [[0, 2]], "code": [[0, 0]]}}
    history = History("name", {}, 0, {("routing.jsonl", "val"): [record]})
    columns, rows = experts_table(history)
    assert columns == ["layer", "expert", "share", "share of web", "share of code"]
    assert rows == [[0, 0, 0.75, 0.0, 0.0], [0, 1, 0.25, 1.0, 0.0]]
    assert summary_table({"val_loss": 1.5, "last_good": {"train_loss": 2}})[1] == [
        ["val_loss", "1.5"],
        ["last_good.train_loss", "2"],
    ]
