"""Every command with --json: one document on stdout, as declared, whatever lies in the run folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from unit.cli.fake_runs import fake_run
from unit.hostile import HOSTILE
from unit.results.folders import make_manifest, make_run, manifest_content, summary
from unit.results.suite import make_suite_run, short_hash

from moe_sweeps.cli.documents.document import Part
from moe_sweeps.cli.documents.page import COMMANDS
from moe_sweeps.cli.manage import main
from moe_sweeps.cli.tables import main as tables_main
from moe_sweeps.records.rundir import Failure, State

DECLARED = {cls.SCHEMA: cls for cls in COMMANDS}
HEAD = {"schema", "schema_version", "program"}
A, B = {"aux.coef": "0.1"}, {"aux.coef": "0.2"}


def document(capsys: pytest.CaptureFixture[str], *words: str, schema: str, code: int = 0) -> dict[str, Any]:
    """What the command printed, held to its declaration."""
    capsys.readouterr()
    assert main([*words, "--json"]) == code, capsys.readouterr().err
    return held(capsys.readouterr().out, schema)


def held(printed: str, schema: str) -> dict[str, Any]:
    assert printed.isascii()
    content: dict[str, Any] = json.loads(printed, parse_constant=pytest.fail)
    assert content["schema"] == schema
    cls = DECLARED[schema]
    assert content.keys() == HEAD | get_type_hints(cls).keys() - {"SCHEMA", "VERSION"}
    hold_part(cls, {k: v for k, v in content.items() if k not in HEAD})
    return content


def hold_part(cls: type[Part], content: dict[str, Any]) -> None:
    hints = {k: v for k, v in get_type_hints(cls).items() if k not in ("SCHEMA", "VERSION")}
    assert list(content) == list(hints), cls
    for name, hint in hints.items():
        assert fits(content[name], hint), (cls, name, content[name])


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the declared type, which a program may rely on."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(fits(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, parts[1]) for item in value.values())
    if isinstance(hint, type) and issubclass(hint, Part):
        if isinstance(value, dict):
            hold_part(hint, value)
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint if hint is not NoneType else NoneType) and isinstance(value, bool) is (hint is bool)


def suite(root: Path) -> None:
    for seed, (a, b) in enumerate([(4.0, 4.1), (4.003, 4.104), (3.998, 4.101)]):
        make_suite_run(root, A, seed, loss=a, maxvio=0.1)
        make_suite_run(root, B, seed, loss=b, maxvio=0.2)


def test_status(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run(folders, 1, State.done, attempt=1, step=100, loss=3.25)
    fake_run(folders, 2, State.failed, attempt=2, failure=Failure("OSError", "no \x1b[31m", "OSError in x"))
    found = document(capsys, "status", schema="moe-sweeps/status", code=1)
    assert found["states"] == {"done": 1, "failed": 1}
    done, failed = found["runs"]
    assert (done["run_id"], done["state"], done["step"], done["loss"]) == (f"{1:012x}", "done", 100, 3.25)
    assert failed["failure"] == {"type": "OSError", "message": "no \x1b[31m", "signature": "OSError in x"}
    assert done["failure"] is None


def test_status_of_one_sweep_says_what_never_started(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(folders, "aux", 0.1, 0)
    make_manifest(folders, manifest_content(1))
    found = document(capsys, "status", "demo", schema="moe-sweeps/status")
    assert found["never_started"] == 3
    assert [(s["sweep_id"], s["name"], s["runs"]) for s in found["sweeps"]] == [("5eed5eed", "demo", 4)]


def test_plan(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "scale=smoke", "balancer=aux,lossfree", "aux.coef=0.1,0.2", "--no-probe"]
    found = document(capsys, *words, "--detect", "0.01", schema="moe-sweeps/plan")
    assert found["requested"] == 4
    assert found["axes"] == {"balancer": ["aux", "lossfree"], "aux.coef": ["0.1", "0.2"]}
    assert [run["settings"] for run in found["runs"]] == [
        {"balancer": "aux", "aux.coef": "0.1"}, {"balancer": "aux", "aux.coef": "0.2"}, {"balancer": "lossfree"},
    ]  # fmt: skip
    [unread] = found["unread"]
    assert (unread["key"], unread["combinations"]) == ("aux.coef", 2)
    assert found["cost"]["runs"] == 3
    assert found["cost"]["flop"] == sum(run["cost"]["flop"] for run in found["runs"])
    assert found["detect"] == {"difference": 0.01, **dict.fromkeys(("sd", "freedom", "seeds", "power"))}
    assert not list(folders.glob("*"))
    again = document(capsys, "plan", *found["runs"][1]["overrides"], "--no-probe", schema="moe-sweeps/plan")
    assert [run["run_id"] for run in again["runs"]] == [found["runs"][1]["run_id"]]


def test_why(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "why", "scale=smoke", "seed=3", schema="moe-sweeps/why", code=1)
    assert (found["same"], found["a"]["name"], found["b"]) == (False, "scale=smoke seed=3", None)


def test_explain_and_knobs(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(
        capsys, "explain", "scale=smoke", "lr_split=static", "lr_split.expert=0.5", schema="moe-sweeps/explain"
    )
    [experts] = [group for group in found["groups"] if group["role"] == "expert"]
    assert experts["lr_multiplier"] == 0.5
    assert experts["peak_lr"] == 0.5 * found["base_lr"]
    found = document(capsys, "knobs", "aux.coef", schema="moe-sweeps/knobs")
    assert "aux.coef" in {knob["key"] for knob in found["knobs"]}
    assert document(capsys, "knobs", "xyzzy", schema="moe-sweeps/knobs", code=1)["knobs"] == []


def test_tables_and_a_cell(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for coef, base in ((0.1, 3.0), (0.2, 3.1)):
        for seed in range(3):
            loss = base + 0.01 * seed + 0.002 * (seed == 1) * (coef == 0.1)
            make_run(folders, "aux", coef, seed, numbers=summary(loss, seconds_per_step=5 * coef))
    make_manifest(folders, manifest_content(3, (("aux", 0.1), ("aux", 0.2))))
    found = document(capsys, "tables", schema="moe-sweeps/tables")
    [table] = found["tables"]
    assert found["final"]
    assert Path(found["page"]).is_file()
    first, second = table["arms"]
    assert first["metrics"]["val_loss"]["n"] == 3
    assert first["metrics"]["val_loss"]["mean"] == pytest.approx(3.01 + 0.002 / 3, abs=1e-12)
    [loss] = [d for d in table["differences"] if d["metric"] == "val_loss"]
    assert (loss["arm"], loss["verdict"], loss["n_arm"]) == (second["arm"], "worse", 3)
    assert loss["difference"] == pytest.approx(0.1 - 0.002 / 3, abs=1e-12)
    assert loss["low"] < loss["difference"] < loss["high"]
    assert loss["probability_better"] == pytest.approx(loss["p"] / 2)  # two arms: Welch
    costs = table["costs"]
    assert costs["baseline"] == table["baseline"]
    assert [arm["arm"] for arm in costs["arms"]] == [arm["arm"] for arm in table["arms"]]
    assert costs["arms"][1]["costs"]["relative"]["mean"] == pytest.approx(2.0)
    assert costs["arms"][0]["costs"]["seconds_per_step"] == {"n": 3, "mean": 0.5, "sd": 0.0, "half_width": 0.0}
    assert costs["notes"]
    cell = document(capsys, "explain", "demo:1,val_loss", schema="moe-sweeps/cell")
    assert sorted(cell["values"].values()) == pytest.approx([3.0, 3.012, 3.02])
    assert cell["estimate"] == first["metrics"]["val_loss"]


def test_judge(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite(folders)
    found = document(capsys, "judge", "aux.coef=0.1", "aux.coef=0.2", schema="moe-sweeps/judge")
    assert (found["verdict"], found["n"], found["next"]) == ("better", {"a": 3, "b": 3}, None)
    assert sorted(found["runs"]["a"]) == sorted(short_hash(A, seed) for seed in range(3))


def test_compare(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite(folders)
    ids = [short_hash(settings, 0) for settings in (A, B)]
    found = document(capsys, "compare", *ids, schema="moe-sweeps/compare")
    assert [run["run_id"] for run in found["runs"]] == ids
    [loss] = [number for number in found["numbers"] if number["metric"] == "val_loss"]
    assert loss["differences"] == [0.0, pytest.approx(0.1)]
    assert (len(found["pictures"]), found["no_picture"]) == (2, None)


def test_decide(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tests/unit/cli/test_decide.py holds the documents of decisions that were made."""
    words = ["decide", "scale=smoke", "balancer=aux,lossfree", "--budget", "1h", "--max-seeds", "3", "--dry-run"]
    found = document(capsys, *words, schema="moe-sweeps/decide", code=12)
    assert len(found["next"]["runs"]) == 6
    assert [q["fate"] for q in found["open"]] == ["unseen"] * 2


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["plan", "aux.coef=-1"], "aux.coef"),
        (["plan", "aux.coeff=1"], "aux.coeff"),
        (["plan", "scale=smoke", "--check"], "--check"),
        (["plan", "scale=smoke", "--no-probe", "--detect", "-1"], "--detect"),
        (["explain", "aux.coef=x"], "aux.coef"),
        (["why", "nowhere"], None),
        (["status", "nowhere"], None),
        (["judge", "aux.coef=1", "aux.coef=2"], None),
        (["explain", "nowhere:1,val_loss"], None),
        (["tables"], None),
    ],
)
def test_a_refusal_is_a_document_too(
    folders: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], field: str | None
) -> None:
    assert main([*words, "--json"]) == 2
    seen = capsys.readouterr()
    found = held(seen.out, "moe-sweeps/error")
    assert (found["field"], found["exit_code"]) == (field, 2)
    assert found["message"].splitlines()[0] in seen.err
    assert (found["fix"] is None) == (field is None)


def test_hostile_folders_are_data(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what cannot be read is a problem, not the end."""
    for number, text in enumerate(HOSTILE):
        failure = Failure(text, text, text)
        fake_run(folders, number, State.failed, attempt=1, failure=failure, host=text, tracking=text)
    found = document(capsys, "status", schema="moe-sweeps/status", code=1)
    shown = [run["failure"] and run["failure"]["message"] for run in found["runs"]]
    # A status with half a character is no text, and counts as lost.
    assert shown == [None if "\ud800" in text else text for text in HOSTILE]
    (folders / "sweeps" / "bad").mkdir(parents=True)
    (folders / "sweeps" / "bad" / "manifest.json").write_text("{")
    make_run(folders, "aux", 0.1, 0, numbers=summary(3.0) | {"val_maxvio_global": None})
    found = document(capsys, "tables", schema="moe-sweeps/tables", code=1)
    assert [Path(problem["path"]).name for problem in found["problems"]] == ["manifest.json", f"fake-{22:012x}"]
    assert not found["final"]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_any_terminal_and_a_reader_that_goes_away(folders: Path, encoding: str) -> None:
    fake_run(folders, 1, State.failed, failure=Failure("É", "\x1b[2J", "数"))
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "moe_sweeps", "status", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert held(done.stdout.decode("ascii"), "moe-sweeps/status")["runs"][0]["failure"]["signature"] == "数"
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read()


def test_the_module_of_tables_has_it_too(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(folders)
    make_manifest(folders, manifest_content(1, (("aux", 0.1),)))
    assert tables_main(["--json"]) == 0
    held(capsys.readouterr().out, "moe-sweeps/tables")


def test_every_kind_of_document_was_held() -> None:
    """One that is declared and printed by no test above is a promise that nobody checks."""
    source = Path(__file__).read_text()
    assert all(f'"{cls.SCHEMA}"' in source for cls in COMMANDS)
