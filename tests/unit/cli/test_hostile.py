"""No folder that others wrote makes a command hang, end with a traceback, or hide other folders (docs/security.md)."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from unit.cli.hostile import PARTIAL, PREPARED, PROOF, RUNS, SEARCHES, STORED, SWEEPS, hostile_root

from moe_sweeps.cli import resume_view, track
from moe_sweeps.cli import runs as commands
from moe_sweeps.cli.manage import main
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.mirror import Mirror
from moe_sweeps.sweep.search.plan import make_search_plan
from moe_sweeps.sweep.search.record import save

Capture = pytest.CaptureFixture[str]
SECONDS = 60
PART = 35
PARTS = [dict(list(RUNS.items())[begin : begin + PART]) for begin in range(0, len(RUNS), PART)]
# Over everything; {out} is a folder of the test.
ALL = (
    "status --all", "watch", "tables --runs {runs}", "plan scale=smoke --no-probe --detect 0.01", "why scale=smoke",
    "archive {out}", "doctor", "retry", "track sync --to tensorboard", "cancel --all", "status",
)  # fmt: skip
ONE = (
    "status",
    "explain",
    "report",
    "archive {out}",
    "retry",
    "track sync --to tensorboard",
    "verify-resume",
    "cancel",
)
# What a table reads no number from, or what only infrastructure is said in.
NOT_IN_TABLES = (
    *("checkpoints", "a checkpoint", "a record of a tracker", "a request", "a lock", "a traceback", "packages"),
    *("other types in", "huge numbers in", "steps beyond", "a line without", "text from the environment"),
    *(f"metrics.jsonl is {what}" for what in ("not UTF-8", "deep", "less deep", "zeros")),
)


@contextmanager
def limit(seconds: int, what: str) -> Iterator[None]:
    """Fail instead of hanging."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what} took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(commands, "_retry_here", lambda *_: 0)
    monkeypatch.setattr(Mirror, "_start", lambda *_: None)
    monkeypatch.setattr(track, "require_tracker", lambda _: None)
    monkeypatch.setattr(resume_view, "prepared", lambda *_, **__: None)
    monkeypatch.setattr(resume_view, "verify_resume", _refuse_to_train)


def _refuse_to_train(*_: object, **__: object) -> None:
    raise MoeSweepsError("here it would be trained")


@pytest.fixture
def runs(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder, and no prepared data."""
    monkeypatch.setenv("MOE_SWEEPS_DATA", str(tmp_path / "data"))
    return folders


def run(line: str, *words: str, capsys: Capture) -> str:
    """The output of a command that must end, by itself and with a message if at all."""
    arguments = [*line.split(), *words]
    with limit(SECONDS, " ".join(arguments)):
        assert main(arguments) in (0, 1, 2), arguments
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out + captured.err


@pytest.mark.parametrize("part", range(len(PARTS)))
def test_commands_over_hostile_folders_end(runs: Path, tmp_path: Path, capsys: Capture, part: int) -> None:
    sound, damaged = hostile_root(runs, PARTS[part])
    said = {line: run(line.format(out=tmp_path / "out", runs=runs), capsys=capsys) for line in ALL}
    assert all(path.name in said["status --all"] for path in (*sound, *damaged))
    assert all((tmp_path / "out" / path.name / "summary.json").exists() for path in sound)
    for what, path in zip(PARTS[part], damaged, strict=True):
        assert path.name in said["tables --runs {runs}"] or what.startswith(NOT_IN_TABLES), what


@pytest.mark.parametrize("what", RUNS)
def test_commands_about_a_hostile_folder_end(runs: Path, tmp_path: Path, capsys: Capture, what: str) -> None:
    (sound, _), (path,) = hostile_root(runs, {what: RUNS[what]})
    for line in ONE:
        run(line.format(out=tmp_path / "out"), path.name, capsys=capsys)
    run("why", path.name, sound.name, capsys=capsys)
    assert not PROOF.exists()


def sweep_folders(root: Path, count: int) -> list[Path]:
    """Sweeps of this project, each with an id of its own, and the runs of their manifests."""
    stored = json.loads((next(p for p in sorted((STORED / "sweeps").iterdir())) / "manifest.json").read_text())
    for planned in stored["runs"].values():
        if (STORED / planned["folder"]).exists():
            shutil.copytree(STORED / planned["folder"], root / planned["folder"])
    folders = [root / "sweeps" / f"{number:012x}" for number in range(count)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(stored | {"sweep_id": folder.name}))
    return folders


def test_hostile_manifests_are_a_line_each_and_lead_nowhere(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    folders = dict(zip(SWEEPS, sweep_folders(runs, len(SWEEPS)), strict=True))
    outside = Path(
        shutil.copytree(next(p for p in runs.iterdir() if p.name != "sweeps"), runs.parent / "outside-0123456789ab")
    )
    before = sorted(p.name for p in outside.iterdir())
    for what, folder in folders.items():
        SWEEPS[what](folder)
    for line in ("status", "archive {out}/a/b/c", "tables --runs {runs}"):
        said = "".join(run(line.format(out=tmp_path / "out", runs=runs), capsys=capsys).split())
        for what, folder in folders.items():
            assert f"{folder.name}/manifest.json" in said, (line, what)
    run("plan scale=smoke --no-probe", capsys=capsys)
    run("cancel --all", capsys=capsys)
    for folder in folders.values():
        run("cancel", folder.name, capsys=capsys)
    assert sorted(p.name for p in outside.iterdir()) == before
    assert [p.name for p in (tmp_path / "out").rglob("manifest.json")] == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
def test_an_archive_holds_nothing_that_a_link_leads_to(runs: Path, tmp_path: Path, capsys: Capture, name: str) -> None:
    (sound, _), (path,) = hostile_root(runs, {"x": lambda folder: (folder / name).unlink()})
    (tmp_path / "secret").write_text('{"val_loss": 1.0, "secret": 1}\n')
    (path / name).symlink_to(tmp_path / "secret")
    said = run(f"archive {tmp_path / 'out'}", capsys=capsys)
    assert f"{name} is a link" in said
    assert (tmp_path / "out" / sound.name).is_dir()
    assert not (tmp_path / "out" / path.name).exists()


@pytest.mark.parametrize("what", SEARCHES)
def test_a_hostile_record_of_a_search_is_refused(runs: Path, capsys: Capture, what: str) -> None:
    line = ("search=random", "search.trials=3", "aux.coef=interval(0.1,0.9)", "scale=smoke")
    plan = make_search_plan(line)
    save(plan, [plan.trial(0, {"aux.coef": 0.25}, [])], "typed", {})
    assert "aux.coef" in run("plan --no-probe", *line, capsys=capsys)
    SEARCHES[what](plan.folder)
    assert f"{plan.folder / 'manifest.json'} cannot be read" in run("plan --no-probe", *line, capsys=capsys)
    for other in ("status", f"tables --runs {runs}", "cancel --all", f"cancel {plan.search_id}"):
        assert "\x1b[31m" not in run(other, capsys=capsys)
    assert not PROOF.exists()


@pytest.fixture
def prepared_text(runs: Path, tmp_path: Path, capsys: Capture) -> tuple[Path, tuple[str, ...]]:
    """A folder of prepared text, and the line that prepared it."""
    (tmp_path / "text").mkdir()
    for number in range(30):
        (tmp_path / "text" / f"{number}.txt").write_text(f"some text number {number} " * 20)
    line = ("data", "prepare", "text", f"data.files={tmp_path / 'text'}", "data.val_fraction=0.2")
    assert "fingerprint" in run("", *line, capsys=capsys)
    return next(path for path in (tmp_path / "data").iterdir() if path.is_dir()), line


@pytest.mark.parametrize("what", PREPARED)
def test_hostile_prepared_data_are_refused_or_made_again(
    prepared_text: tuple[Path, tuple[str, ...]], capsys: Capture, what: str
) -> None:
    folder, line = prepared_text
    PREPARED[what](folder)
    said = "".join(run("", *line, capsys=capsys).split())
    is_prepared = f"{folder}fingerprint" in said
    assert f"Delete{folder};" in said or is_prepared or "Deletethatfolder" in said
    assert is_prepared is (what.startswith("meta.json is") and "empty" not in what and "giga" not in what)
    run("plan --no-probe scale=smoke data=text", *line[3:], capsys=capsys)


@pytest.mark.parametrize("what", PARTIAL)
def test_a_hostile_preparation_that_was_interrupted(
    prepared_text: tuple[Path, tuple[str, ...]], capsys: Capture, what: str
) -> None:
    folder, line = prepared_text
    shutil.rmtree(folder)
    (folder.parent / "precious").write_text("mine")
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir()
    PARTIAL[what](partial)
    said = "".join(run("", *line, capsys=capsys).split())
    assert (f"{folder}fingerprint" in said) is ("digest" in what)
    assert "digest" in what or f"Delete{partial};" in said
    assert (folder.parent / "precious").read_text() == "mine"
