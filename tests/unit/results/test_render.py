"""What a reader sees: golden Markdown and CSV, and the terminal at several widths."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console
from unit.results.folders import (
    CODE,
    DATA,
    DEMO_ARMS,
    NOW,
    make_manifest,
    make_messy_sweep,
    make_run,
    manifest_content,
    summary,
)

from moe_sweeps.results.csv_file import csv_text
from moe_sweeps.results.frame import load_runs
from moe_sweeps.results.manifest import Manifest
from moe_sweeps.results.markdown import markdown
from moe_sweeps.results.notes import caption, facts, warning
from moe_sweeps.results.tables import Table, ablation_table
from moe_sweeps.results.terminal import print_table


def build(root: Path, manifest: Manifest) -> Table:
    return ablation_table(manifest, load_runs(root), now=NOW)


def clean_sweep(root: Path, seeds: int) -> Table:
    for balancer, coef in DEMO_ARMS:
        for seed in range(seeds):
            make_run(root, balancer, coef, seed)
    return build(root, make_manifest(root, manifest_content(seeds)))


def in_terminal(table: Table, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_table(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


CLEAN = """\
# demo (5eed5eed)

| balancer | aux.coef | seeds | val loss | perplexity | accuracy % | MaxVio global | MaxVio batch |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
| aux | 0.1 | 3/3 | 3.1000 ± 0.2484 | 31.00 ± 2.48 | 31.00 ± 2.48 | 0.775 ± 0.062 | 1.550 ± 0.124 |
| aux | 0.2 | 3/3 | 3.1000 ± 0.2484 | 31.00 ± 2.48 | 31.00 ± 2.48 | 0.775 ± 0.062 | 1.550 ± 0.124 |
| aux | 0.6 | 3/3 | 3.1000 ± 0.2484 | 31.00 ± 2.48 | 31.00 ± 2.48 | 0.775 ± 0.062 | 1.550 ± 0.124 |
| lossfree | – | 3/3 | 3.1000 ± 0.2484 | 31.00 ± 2.48 | 31.00 ± 2.48 | 0.775 ± 0.062 | 1.550 ± 0.124 |

Mean ± half-width of the 95% t-interval over seeds. Seeds: n done of N planned.

- –: not read by this arm, or no value

Collapsed combinations:

- balancer=lossfree: 3 combinations (aux.coef=0.1,0.2,0.6) are one arm, because aux.coef is read by balancer=aux

scale smoke · runs 12 done of 12 · tokens per run 40,960 · data da7ada7a · code c0dec0de

    python train.py -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6
"""


def test_golden_markdown_of_a_clean_sweep(tmp_path: Path) -> None:
    assert markdown(clean_sweep(tmp_path, 3)) == CLEAN


MESSY = """\
# demo (5eed5eed)

**NOT FINAL: 6 of 12 runs have no result (1 failed, 1 stale, 1 running, 1 preempted, 1 missing, 1 unreadable); \
2 versions of the data are mixed.**

| balancer | aux.coef | seeds | val loss | perplexity | accuracy % | MaxVio global | MaxVio batch | notes |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
| aux | 0.1 | 2/3 | 3.0500 ± 0.6353 | 30.50 ± 6.35 | 30.50 ± 6.35 | 0.762 ± 0.159 | 1.525 ± 0.318 \
| 1 failed, data da7ada+feedfe |
| aux | 0.2 | 0/3 | diverged | – | – | – | – | 3 diverged, data da7ada |
| aux | 0.6 | 0/3 | – | – | – | – | – | 1 stale, 1 running, 1 missing |
| lossfree | – | 1/3 | 3.0000 (n=1) | 30.00 (n=1) | 30.00 (n=1) | 0.750 (n=1) | 1.500 (n=1) \
| 1 preempted, 1 unreadable, data da7ada |

Mean ± half-width of the 95% t-interval over seeds. Seeds: n done of N planned. (n=1): one seed has no spread, \
and differences between arms cannot be told from seed noise.

- diverged: the loss became NaN or infinite; this is an outcome, and its numbers are in no mean
- failed: ended with an error; traceback.txt in its folder says why
- stale: says that it is running, but gave no sign of life for 5 minutes
- running: being trained now
- preempted: stopped from outside with its state saved; it goes on when started again
- missing: has no folder
- unreadable: its folder is damaged or incomplete
- data ...: version of the data behind the row; different versions are not comparable
- –: not read by this arm, or no value

Runs without a number:

- balancer=aux aux.coef=0.1, seed 2: failed (step 40 of 200, ValueError: no luck), smoke-aux-617500006402
- balancer=aux aux.coef=0.2, seed 0: diverged (at step 37 of 200), smoke-aux-61750000c800
- balancer=aux aux.coef=0.2, seed 1: diverged (at step 37 of 200), smoke-aux-61750000c801
- balancer=aux aux.coef=0.2, seed 2: diverged (at step 37 of 200), smoke-aux-61750000c802
- balancer=aux aux.coef=0.6, seed 0: running (step 40 of 200), smoke-aux-617500025800
- balancer=aux aux.coef=0.6, seed 1: stale (step 40 of 200, silent for 67 min), smoke-aux-617500025801
- balancer=aux aux.coef=0.6, seed 2: missing, smoke-aux-617500025802
- balancer=lossfree, seed 1: preempted (step 40 of 200), smoke-lossfree-6c6f00000001
- balancer=lossfree, seed 2: unreadable (status.json is not complete JSON (Expecting value: line 1 column 1 \
(char 0))), smoke-lossfree-6c6f00000002

Collapsed combinations:

- balancer=lossfree: 3 combinations (aux.coef=0.1,0.2,0.6) are one arm, because aux.coef is read by balancer=aux

scale smoke · runs 3 done, 3 diverged of 12 · tokens per run 40,960 · data da7ada7a, feedfeed · code c0dec0de

    python train.py -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6
"""


def test_golden_markdown_of_a_messy_sweep(tmp_path: Path) -> None:
    assert markdown(build(tmp_path, make_messy_sweep(tmp_path))) == MESSY


HEADER = (
    "arm,label,balancer,aux.coef,N,n,val_loss_mean,val_loss_sd,val_loss_ci95_half_width,val_loss_n,"
    "val_perplexity_mean,val_perplexity_sd,val_perplexity_ci95_half_width,val_perplexity_n,"
    "val_accuracy_mean,val_accuracy_sd,val_accuracy_ci95_half_width,val_accuracy_n,"
    "val_maxvio_global_mean,val_maxvio_global_sd,val_maxvio_global_ci95_half_width,val_maxvio_global_n,"
    "train_maxvio_batch_mean,train_maxvio_batch_sd,train_maxvio_batch_ci95_half_width,train_maxvio_batch_n,"
    "runs_done,runs_stopped,runs_diverged,runs_failed,runs_stale,runs_running,runs_queued,runs_planned,runs_preempted,"
    "runs_cancelled,runs_missing,runs_unreadable,runs_collapsed,seeds,run_ids,source_hashes,data_fingerprints,notes\n"
)


def test_golden_csv_of_one_seed(tmp_path: Path) -> None:
    make_run(tmp_path, "aux", 0.1, 0, numbers=summary(3.0625))
    make_run(tmp_path, "lossfree", None, 0, state="failed")
    manifest = make_manifest(tmp_path, manifest_content(1, (("aux", 0.1), ("lossfree", None))))
    assert csv_text(build(tmp_path, manifest)) == HEADER + (
        "6175000064aa,balancer=aux aux.coef=0.1,aux,0.1,1,1,3.0625,,,1,30.625,,,1,0.30625,,,1,0.765625,,,1,1.53125,,,1,"
        f"1,0,0,0,0,0,0,0,0,0,0,0,0,0,617500006400,{CODE},{DATA},\n"
        "6c6f000000aa,balancer=lossfree,lossfree,,1,0,,,,0,,,,0,,,,0,,,,0,,,,0,"
        "0,0,0,1,0,0,0,0,0,0,0,0,0,0,6c6f00000000,,,1 failed\n"
    )


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    table = clean_sweep(tmp_path, 3)
    record = next(csv.DictReader(io.StringIO(csv_text(table))))
    cell = table.arms[0].cells["val_loss"]
    found = [float(record[f"val_loss_{k}"]) for k in ("mean", "sd", "ci95_half_width")]
    assert found == [cell.mean, cell.sd, cell.half_width]
    assert record["run_ids"].split() == [run.run_id for run in table.arms[0].runs]


def test_one_seed_says_what_it_cannot_say(tmp_path: Path) -> None:
    table = clean_sweep(tmp_path, 1)
    sentence = "One seed per arm: there is no spread, and differences between arms cannot be told from seed noise."
    assert caption(table).startswith(sentence)
    assert sentence in " ".join(in_terminal(table).split())
    assert sentence in markdown(table)
    assert "±" not in in_terminal(table) + markdown(table)


def test_nothing_done(tmp_path: Path) -> None:
    table = build(tmp_path, make_manifest(tmp_path, manifest_content(20)))
    assert caption(table).startswith("No run is done.")
    assert facts(table) == "scale – · runs 0 done of 80 · tokens per run – · data – · code –"
    assert "and 68 more; table.md lists them all" in in_terminal(table)
    assert markdown(table).count(": missing, smoke-") == 80


def test_a_value_over_fewer_runs_than_the_row_claims_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1)
    make_run(tmp_path, seed=2, numbers=summary(3.2, val_maxvio_global=None))
    text = markdown(build(tmp_path, make_manifest(tmp_path, manifest_content(arms=(("aux", 0.1),)))))
    assert "| 0.762 ± 0.159 (n=2) |" in text
    assert "some runs lack numbers that others have" in text


def test_a_clean_table_with_spread_fits_a_hundred_columns_in_one_line_per_arm(tmp_path: Path) -> None:
    lines = in_terminal(clean_sweep(tmp_path, 3)).splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line.split() for line in lines if " aux " in line) == (
        [
            "aux",
            "0.1",
            "3/3",
            "3.1000",
            "±0.2484",
            "31.00",
            "±2.48",
            "31.00",
            "±2.48",
            "0.775",
            "±0.062",
            "1.550",
            "±0.124",
        ]
    )


@pytest.mark.parametrize("width", [80, 100, 160])
def test_nothing_is_cut_off_in_a_terminal(tmp_path: Path, width: int) -> None:
    text = in_terminal(build(tmp_path, make_messy_sweep(tmp_path)), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for shown in ("2/3", "0/3", "1/3", "3.0500", "±0.6353", "(n=1)", "NOT FINAL"):
        assert shown in text


def test_warnings(tmp_path: Path) -> None:
    assert warning(clean_sweep(tmp_path / "a", 1)) is None
    make_run(tmp_path / "b", code=None)
    manifest = make_manifest(tmp_path / "b", manifest_content(1, (("aux", 0.1),)))
    assert warning(build(tmp_path / "b", manifest)) == "NOT FINAL: the version of the code is unknown."


def test_labels_are_texts_and_not_markup(tmp_path: Path) -> None:
    content = manifest_content(1, DEMO_ARMS[:2])
    for i, run in enumerate(content["runs"].values()):
        run["label"] = f"x=[bold]|a*b_{i}"
    for request in content["requested"]:
        request["unread"] = {}
    table = build(tmp_path, make_manifest(tmp_path, content))
    assert "[bold]|a*b_0" in in_terminal(table)
    assert "| \\[bold]\\|a\\*b\\_0 |" in markdown(table)
