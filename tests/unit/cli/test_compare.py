"""`moe-sweeps compare`: settings, numbers and curves of runs side by side, on generated runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from unit.hostile import HOSTILE
from unit.results.suite import CONFIG, make_suite_run

from moe_sweeps.cli.manage import main
from moe_sweeps.records.rundir import RunDir

Capture = pytest.CaptureFixture[str]
A, B = {"aux.coef": "0.1"}, {"aux.coef": "0.2"}
FREE = {"balancer": "lossfree", "balancer.rate": "0.001"}


@pytest.fixture
def runs(folders: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    monkeypatch.setenv("COLUMNS", "140")
    return [
        make_suite_run(folders, A, 0, loss=4.0, maxvio=0.1),
        make_suite_run(folders, B, 0, loss=4.125, maxvio=0.2),
        make_suite_run(folders, B, 1, loss=4.25, maxvio=0.2),
    ]


def test_differences_numbers_and_the_picture(runs: list[RunDir], folders: Path, capsys: Capture) -> None:
    assert main(["compare", runs[0].run_id, runs[1].run_id[:6]]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "aux.coef 0.1 0.2" in lines
    assert not any(line.startswith(("optimizer", "seed", "scale")) for line in lines)
    assert "val loss 4.0000 4.1250 +0.1250" in lines
    assert f"one run each: is it more than a seed does? moe-sweeps judge {runs[1].run_id} {runs[0].run_id}" in lines
    paths = [Path(line.removeprefix("curves: ")) for line in lines if line.startswith("curves: ")]
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert paths[0].is_relative_to(folders.parent / "reports" / "compare")


def test_the_first_is_what_the_others_are_held_against(runs: list[RunDir], capsys: Capture) -> None:
    assert main(["compare", *(run.run_id for run in reversed(runs)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    [loss] = [number for number in found["numbers"] if number["metric"] == "val_loss"]
    assert loss["values"] == [4.25, 4.125, 4.0]
    assert loss["differences"] == [0.0, -0.125, -0.25]
    assert loss["better"] == "lower"
    assert {s["key"] for s in found["settings"]} == {"aux.coef", "asked.aux.coef", "seed", "data_seed"}
    assert [Path(path).suffix for path in found["pictures"]] == [".png", ".svg"]
    assert any("seeds differ" in remark for remark in found["remarks"])


def test_times_of_single_runs_are_shown_and_never_subtracted(runs: list[RunDir], capsys: Capture) -> None:
    main(["compare", runs[0].run_id, runs[1].run_id, "--json"])
    found = json.loads(capsys.readouterr().out)
    times = [n for n in found["numbers"] if n["metric"] in ("wall_seconds", "tokens_per_second", "train_seconds")]
    assert times
    assert all(n["differences"] == [None, None] and None not in n["values"] for n in times)
    assert any("shown and not subtracted" in remark for remark in found["remarks"])


def test_what_a_run_does_not_read_is_no_setting_of_it(folders: Path, capsys: Capture) -> None:
    one = make_suite_run(folders, A, 0, loss=4.0, maxvio=0.1)
    other = make_suite_run(folders, FREE, 0, loss=4.0, maxvio=0.1)
    identity = other.identity()
    canonical = {k: v for k, v in identity["canonical"].items() if not k.startswith("aux")}
    other.write_identity(identity | {"canonical": canonical})
    main(["compare", one.run_id, other.run_id, "--json"])
    found = json.loads(capsys.readouterr().out)
    [coef] = [s for s in found["settings"] if s["key"] == "aux.coef"]
    assert coef["values"] == ["0.1", None]
    assert coef["counts"]
    assert other.config()["aux"]["coef"] == 0.1
    main(["compare", one.run_id, other.run_id])
    assert "–: not read, or not known to the code that froze it" in capsys.readouterr().out


def test_a_key_that_cannot_change_a_result_is_said_to_be_one(
    folders: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_suite_run(folders, A, 0, loss=4.0, maxvio=0.1)
    other = make_suite_run(folders, B, 0, loss=4.0, maxvio=0.1)
    for run, workers in ((one, 1), (other, 2)):
        run.write_config(run.config() | {"launch": {"workers": workers}})
    main(["compare", one.run_id, other.run_id, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [s["counts"] for s in found["settings"] if s["key"] == "launch.workers"] == [False]


def test_runs_without_a_result_and_of_other_code_or_data_are_said(folders: Path, capsys: Capture) -> None:
    done = make_suite_run(folders, A, 0, loss=4.0, maxvio=0.1)
    failed = make_suite_run(folders, B, 0, loss=4.0, maxvio=0.1, state="failed")
    other = make_suite_run(folders, B, 1, loss=4.0, maxvio=0.1, code="0ther")
    provenance = other.provenance() | {"data_fingerprint": "x"}
    other.write_provenance(provenance)
    assert main(["compare", done.run_id, failed.run_id, other.run_id]) == 0
    shown = capsys.readouterr().out
    assert "is failed: ValueError: no luck" in shown
    assert "versions of the code that differ" in shown
    assert "saw different data" in shown


def test_an_edited_run_has_no_numbers(runs: list[RunDir], capsys: Capture) -> None:
    config = runs[1].config()
    config["aux"]["coef"] = 0.7
    runs[1].write_config(config)
    assert main(["compare", runs[0].run_id, runs[1].run_id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][1]["state"] == "edited"
    assert all(number["values"][1] is None for number in found["numbers"])


def test_any_number_of_metrics_jsonl_is_drawn_or_the_reason_said(runs: list[RunDir], capsys: Capture) -> None:
    ids = [run.run_id for run in runs[:2]]
    assert main(["compare", *ids, "--metric", "maxvio_batch"]) == 0
    assert "maxvio_batch.png" in capsys.readouterr().out
    assert main(["compare", *ids, "--metric", "../../nothing"]) == 0
    assert "no curves: no run has recorded ../../nothing in metrics.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{a}"], "two runs or more"),
        (["{a}", "{a}"], "two runs or more"),
        (["{a}", "nothing"], "no run in"),
        (["{a}", "proxy"], "means 3 runs"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: list[RunDir], capsys: Capture, words: list[str], said: str) -> None:
    assert main(["compare", *(word.format(a=runs[0].run_id) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_more_runs_than_lines_can_be_told_apart_are_refused(folders: Path, capsys: Capture) -> None:
    ids = [make_suite_run(folders, A, seed, loss=4.0, maxvio=0.1).run_id for seed in range(9)]
    assert main(["compare", *ids]) == 2
    assert "these are 9 runs, and 8 can be told apart" in capsys.readouterr().err


def test_folders_that_do_not_log_alike_and_hostile_texts(
    folders: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text for text in HOSTILE if "\ud800" not in text]
    ids = []
    for number, text in enumerate(texts):
        monkeypatch.setitem(CONFIG, "note", {"kind": text})
        run = make_suite_run(folders, {"aux.coef": f"0.{number + 3}"}, 0, loss=4.0, maxvio=0.1)
        (run.path / "overrides.yaml").write_text(yaml.safe_dump([f"note={text}"]))
        (run.path / "metrics.jsonl").write_text(f'{{"step": {number}, "split": "val", "loss": 4.0}}\n')
        ids.append(run.run_id)
    for begin in range(0, len(ids) - 1, 8):
        assert main(["compare", *ids[begin : begin + 8]]) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert "curves: " in shown
