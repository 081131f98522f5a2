"""Files under reports/ and the exit codes of `make tables`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from unit.results.folders import DEMO_ARMS, make_manifest, make_messy_sweep, make_run, manifest_content
from unit.results.suite import make_suite

from moe_sweeps.cli.tables import main
from moe_sweeps.reports.write import NothingToRead, write_tables

ONE_ARM = DEMO_ARMS[:1]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder, which the command finds through the environment."""
    monkeypatch.delenv("ALLOW_PARTIAL", raising=False)
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MOE_SWEEPS_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "runs"


def make_clean_sweep(runs: Path) -> None:
    make_manifest(runs, manifest_content(1, ONE_ARM))
    make_run(runs)


def test_a_clean_sweep_is_written_shown_and_ends_with_zero(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clean_sweep(runs)
    assert main([]) == 0
    reports = runs.parent / "reports"
    files = sorted(str(p.relative_to(reports)) for p in reports.rglob("*") if p.is_file())
    tables = [f"demo-5eed5eed/table.{suffix}" for suffix in ("csv", "md", "tex")]
    figures = ["demo-5eed5eed/tradeoff.png", "demo-5eed5eed/tradeoff.svg"]  # no run of it has logged a curve
    assert files == [*tables, *figures, "index.html", "runs.csv"]
    shown = capsys.readouterr().out
    assert "demo (5eed5eed)" in shown
    assert f"all on one page: {reports / 'index.html'}" in shown


def test_runs_csv_is_the_whole_frame(runs: Path) -> None:
    make_clean_sweep(runs)
    make_run(runs, "lossfree", None, 4)
    write_tables(runs, runs.parent / "reports", only="demo")
    frame = pd.read_csv(runs.parent / "reports" / "runs.csv")
    assert sorted(frame["balancer"]) == ["aux", "lossfree"]
    assert sorted(frame["val_loss"]) == [3.0, 3.4]
    assert sorted(frame["folder"]) == sorted(f"../{folder.relative_to(runs.parent)}" for folder in runs.glob("smoke-*"))


def test_partial_results_are_written_and_end_with_one_unless_allowed(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_messy_sweep(runs)
    assert main([]) == 1
    assert "ALLOW_PARTIAL=1" in capsys.readouterr().out
    table = runs.parent / "reports" / "demo-5eed5eed" / "table.md"
    assert "NOT FINAL" in table.read_text()
    monkeypatch.setenv("ALLOW_PARTIAL", "1")
    assert main([]) == 0
    assert "NOT FINAL" in table.read_text()


def test_mixed_code_ends_with_one(runs: Path) -> None:
    make_manifest(runs, manifest_content(2, ONE_ARM))
    make_run(runs, seed=0)
    make_run(runs, seed=1, code="other")
    assert main([]) == 1


def test_a_diverged_run_is_an_outcome(runs: Path) -> None:
    make_manifest(runs, manifest_content(1, ONE_ARM))
    make_run(runs, state="diverged")
    assert main([]) == 0


def test_nothing_to_read_ends_with_two_and_says_what_to_do(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    error = capsys.readouterr().err
    assert str(runs) in error
    assert "python train.py -m" in error
    assert not (runs.parent / "reports").exists()


def test_an_unknown_sweep_gets_the_nearest_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clean_sweep(runs)
    assert main(["dmeo"]) == 2
    assert "Did you mean demo?" in capsys.readouterr().err


def test_latest_without_a_sweep(runs: Path) -> None:
    make_run(runs)
    with pytest.raises(NothingToRead, match="no sweep has been started"):
        write_tables(runs, runs.parent / "reports", latest=True)


def test_one_sweep_is_judged_alone(runs: Path) -> None:
    make_clean_sweep(runs)
    later = manifest_content(1, DEMO_ARMS[1:2])
    make_manifest(runs, later, sweep_id="1a7e1a7e", name="later", created="2027-01-01T00:00:00+00:00")
    (make_run(runs, "lossfree", None).path / "status.json").write_text("")
    assert main(["demo"]) == 0
    assert main(["5eed5eed"]) == 0
    assert main(["--latest"]) == 1
    assert main(["later"]) == 1
    assert main([]) == 1
    written = write_tables(runs, runs.parent / "reports", latest=True)
    assert [table.manifest.name for table in written.tables] == ["later"]
    assert written.problems == []


def test_one_sweep_leaves_the_page_of_all_alone(runs: Path) -> None:
    make_clean_sweep(runs)
    main([])
    page = runs.parent / "reports" / "index.html"
    before = page.read_text()
    make_manifest(runs, manifest_content(1, DEMO_ARMS[1:2]), sweep_id="x", name="later")
    main(["demo"])
    assert page.read_text() == before
    assert "demo (5eed5eed)" in (page.parent / "demo-5eed5eed" / "index.html").read_text()


def test_sweeps_whose_names_and_ids_join_alike_have_folders_and_anchors_of_their_own(runs: Path) -> None:
    for name, sweep_id in (("a-b", "c"), ("a", "b-c")):
        make_manifest(runs, manifest_content(1, ONE_ARM), sweep_id=sweep_id, name=name)
    make_run(runs)
    written = write_tables(runs, runs.parent / "reports")
    assert len({path.parent for path in written.paths if path.name == "table.md"}) == 2
    page = re.sub(r"src='[^']*'", "", (runs.parent / "reports" / "index.html").read_text())  # pictures have their own
    ids = re.findall(r' id="([^"]*)"', page)
    # Two tables of one arm each; what stands around them; the explorer and its data.
    assert len(ids) == len(set(ids)) == 2 + 2 + 4 + 3


def test_what_is_not_final_is_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_messy_sweep(runs)
    assert main([]) == 1
    shown = capsys.readouterr().out
    assert "demo (5eed5eed): balancer=aux aux.coef=0.1: 2 of 3 seeds; 1 failed, data da7ada+feedfe" in shown
    assert "demo (5eed5eed): balancer=lossfree: 1 of 3 seeds; 1 preempted, 1 unreadable" in shown


def test_the_newest_sweep_is_shown_last(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clean_sweep(runs)
    make_manifest(runs, manifest_content(1, ONE_ARM), sweep_id="x", name="later", created="2027-01-01T00:00:00+00:00")
    make_run(runs, "lossfree", None)
    main([])
    shown = capsys.readouterr().out
    assert shown.index("runs outside any sweep") < shown.index("demo (5eed5eed)") < shown.index("later (x)")


def test_runs_outside_any_sweep_have_their_own_table(runs: Path) -> None:
    make_clean_sweep(runs)
    make_run(runs, "lossfree", None)
    assert main([]) == 0
    assert (runs.parent / "reports" / "runs_outside_any_sweep" / "table.md").exists()


def test_damaged_folders_and_manifests_are_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clean_sweep(runs)
    (make_run(runs, "lossfree", None).path / "status.json").write_text("")
    (runs / "sweeps" / "bad").mkdir()
    (runs / "sweeps" / "bad" / "manifest.json").write_text("{")
    assert main([]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "status.json is not complete JSON" in shown
    assert "the manifest cannot be read" in shown


def test_folders_can_be_given_on_the_command_line(runs: Path, tmp_path: Path) -> None:
    make_clean_sweep(tmp_path / "elsewhere")
    assert main(["--runs", str(tmp_path / "elsewhere"), "--reports", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "runs.csv").exists()


def test_the_command_runs_without_torch_or_config(runs: Path) -> None:
    make_clean_sweep(runs)
    script = (
        "import sys; from moe_sweeps.cli.tables import main; code = main([]);"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'hydra', 'omegaconf')"
        " or m.startswith(('moe_sweeps.config', 'moe_sweeps.model', 'moe_sweeps.optim', 'moe_sweeps.data'))];"
        "assert not bad, bad; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_damaged_curve_is_one_line_under_problems(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    make_suite(runs, seeds=2)
    sound = write_tables(runs, runs.parent / "reports", only="aux_coef")
    assert sound.problems == []
    damaged = next(run.row for run in sound.tables[0].arms[0].runs if run.row)
    path = Path(str(damaged["folder"])) / "metrics.jsonl"
    path.write_bytes(b"not JSON\n" + path.read_bytes())
    written = write_tables(runs, runs.parent / "reports", only="aux_coef")
    assert [str(problem.path) for problem in written.problems] == [damaged["folder"]]
    page = (runs.parent / "reports" / written.tables[0].manifest.slug / "index.html").read_text()
    assert f"Could not be read: {damaged['folder']}" in page
    main(["aux_coef"])
    assert "a line that is not JSON" in capsys.readouterr().out
