"""Files under reports/ and the exit codes of `make tables`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from unit.results.folders import DEMO_ARMS, make_manifest, make_messy_sweep, make_run, manifest_content

from moe_sweeps.cli.tables import main
from moe_sweeps.results.write import NothingToRead, write_tables

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
