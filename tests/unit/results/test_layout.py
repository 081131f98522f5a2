"""Grids, published values, noise floor, recommendations and definitions, on generated sweeps."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from unit.results.folders import make_manifest
from unit.results.suite import AUX, GRID, make_suite, make_suite_run, short_hash, sweep_content

from moe_sweeps.errors import ConfigError
from moe_sweeps.results import load_runs
from moe_sweeps.results.csv_file import csv_text
from moe_sweeps.results.definition import TABLES, load_definition
from moe_sweeps.results.layout import axis_values, difference_sheet, floor_sentence, grid_sheets, published_sheet
from moe_sweeps.results.manifest import load_manifests
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.published import load_published, published_key, published_values, setting
from moe_sweeps.results.recommend import recommendations
from moe_sweeps.results.rows import header, rows
from moe_sweeps.results.tables import Table, ablation_table, marks


def suite(root: Path, seeds: int = 3) -> dict[str, Table]:
    make_suite(root, seeds)
    runs, (manifests, _) = load_runs(root), load_manifests(root)
    noise = Noise.of(runs.frame, manifests)
    return {m.name: ablation_table(m, runs, noise=noise) for m in manifests}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    return suite(tmp_path_factory.mktemp("suite"))


def test_every_definition_can_be_read_and_names_published_experiments() -> None:
    names = set(load_published()["experiment"])
    for path in TABLES.glob("*.yaml"):
        definition = load_definition(path.stem)
        assert definition.title
        assert set(definition.published) <= names
        assert definition.setting or not definition.published


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: x", "Did you mean title"),
        ("grid: {rows: a, columns: b, metrics: [val_los]}", "Did you mean val_loss"),
        ("figures: [heatmap]", "heat"),
        ("metrics: [val_loss]", "val_z_loss"),
        ("grid: {rows: a, columns: b, metrics: [val_z_loss]}", "val_maxvio_global"),
    ],
)
def test_a_definition_with_a_typo_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_definition("x", tmp_path)


def test_a_grid_has_a_cell_for_every_pair_and_shows_what_is_missing(tables: dict[str, Table]) -> None:
    loss, accuracy = grid_sheets(tables["lr_split"])
    assert loss.columns == ("lr_split.dense \\ lr_split.expert", "0.1", "0.5", "1", "2")
    texts = [[cell.text for cell in row] for row in loss.rows]
    assert [row[0] for row in texts] == ["0.5", "1", "2"]
    assert texts[0][4].endswith("(n=2) [1 failed]")
    assert texts[1][2].endswith("(n=2) [1 diverged]")
    assert texts[1][3].endswith("(n=2) [1 running]")
    assert texts[1][4].endswith("(n=2) [1 missing]")
    assert texts[2][1].endswith("[1 collapsed]")
    cell = loss.rows[2][3]
    assert cell.runs == tuple(short_hash(GRID[10], seed) for seed in range(3))
    assert cell.value == pytest.approx(tables["lr_split"].arms[10].cells["val_loss"].mean)
    assert accuracy.rows[2][3].text.startswith("22.")


def test_a_pair_that_was_not_asked_for_is_empty(tmp_path: Path) -> None:
    arms = [{"lr_split.dense": d, "lr_split.expert": e} for d, e in (("1", "1"), ("1", "2"), ("2", "2"))]
    make_manifest(tmp_path, sweep_content("lr_split", arms, 1))
    table = ablation_table(load_manifests(tmp_path)[0][0], load_runs(tmp_path))
    assert [[c.text for c in row] for row in grid_sheets(table)[0].rows] == [
        ["1", "1 missing", "1 missing"],
        ["2", "–", "1 missing"],
    ]


@pytest.mark.parametrize(
    ("designed", "shown"),
    [
        (("1e-3", "0.1", "0.002", "0.2"), ["1e-3", "0.002", "0.1", "0.2"]),
        (("e16", "e8", "e128"), ["e16", "e8", "e128"]),
    ],
)
def test_numbers_on_an_axis_ascend_and_words_keep_their_order(
    tmp_path: Path, designed: tuple[str, ...], shown: list[str]
) -> None:
    make_manifest(tmp_path, sweep_content("any", [{"knob": value} for value in designed], 1))
    table = ablation_table(load_manifests(tmp_path)[0][0], load_runs(tmp_path))
    assert axis_values(table, "knob") == shown


def test_the_noise_floor_is_that_of_the_noise_sweep(tables: dict[str, Table]) -> None:
    floor, values = tables["aux_coef"].floor, [row["val_loss"] for row in tables["noise_floor"].arms[0].rows]
    assert floor is not None
    assert (floor.runs, floor.freedom) == (5, 4)
    assert floor.sd == pytest.approx(float(pd.Series(values).std()))
    assert floor.difference == pytest.approx(2.7764451 * math.sqrt(2) * floor.sd)  # t(0.975, 4)


def test_another_length_has_no_noise_floor(tmp_path: Path) -> None:
    found = suite(tmp_path, 1)
    runs, (manifests, _) = load_runs(tmp_path), load_manifests(tmp_path)
    noise = Noise.of(runs.frame.assign(tokens=7), manifests)
    assert noise.floor("val_loss", ("proxy",), (409_600,)) is None
    assert noise.floor("val_loss", ("proxy", "smoke"), (7,)) is None
    assert found["aux_coef"].floor is not None


def test_one_seed_says_what_cannot_be_concluded(tmp_path: Path) -> None:
    table = suite(tmp_path, 1)["aux_coef"]
    assert "With one seed nothing can be concluded from differences below it." in floor_sentence(table)
    sheet = difference_sheet(table)
    assert sheet is not None
    kinds = {row[-1].text for row in sheet.rows}
    assert kinds <= {"one seed: nothing can be concluded", "above the noise floor, but one seed"}
    assert {cell.kind for row in sheet.rows for cell in row if row[-1].text.startswith("one seed")} == {"", "grey"}


def test_differences_are_those_of_the_tests(tables: dict[str, Table]) -> None:
    sheet = difference_sheet(tables["aux_coef"])
    assert sheet is not None
    assert sheet.title == "Difference to balancer=aux aux.coef=0.1"
    assert [row[-1].text for row in sheet.rows] == ["worse", "better", "better", "worse", "better"]
    assert len(sheet.rows) == len(AUX) - 1


def test_published_values_stand_beside_ours_in_a_column_of_their_own(tables: dict[str, Table]) -> None:
    sheet = published_sheet(tables["aux_coef"])
    assert sheet is not None
    line = next(r for r in sheet.rows if r[0].text == "balancer=aux aux.coef=0.2" and r[1].text == "val loss")
    assert [c.text for c in line[3:]] == ["val loss", "2.668", "report fig. 8", "read off chart"]
    assert line[2].text.startswith("4.4")
    accuracy = next(r for r in sheet.rows if r[0].text == "balancer=aux aux.coef=0.2" and r[1].text == "accuracy %")
    assert accuracy[4].text == "46.16"
    assert any("24 layers" in note for note in sheet.notes)


STATIC = {"lr_split": "static"}
HALF = STATIC | {"lr_split.expert": 0.5}
AUX_ROW = {"experts.num_experts": 8, "router": "topk_softmax", "balancer": "aux", "aux.coef": 0.1, "optimizer": "adamw"}
LOSSFREE = AUX_ROW | {"balancer": "lossfree", "balancer.rate": 0.001}


@pytest.mark.parametrize(
    ("row", "experiment", "metric", "value"),
    [
        (AUX_ROW, "lossfree_vs_aux", "val_loss", 2.671),
        (LOSSFREE, "lossfree_vs_aux", "val_loss", 2.672),
        (AUX_ROW | STATIC | {"lr_split.dense": 0.5, "lr_split.expert": 2.0}, "lr_split", "val_loss", 2.911),
        (AUX_ROW | STATIC | {"lr_split.expert": 0.5, "aux.coef": 0.01}, "expert_lr_x_aux", "val_loss", 2.69),
        (LOSSFREE | {"lr_split": "batch_fraction"}, "load_based_lr", "val_loss", 2.71592),
        (LOSSFREE | {"router": "sigmoid", "balancer.rate": 0.01}, "megatron_gating", "maxvio", 0.313),
        (AUX_ROW | {"optimizer": "shampoo"}, "shampoo", "val_loss", 2.69),
        (AUX_ROW | {"optimizer": "shampoo", "balancer": "none"}, "shampoo", "val_loss", 2.73),
        (AUX_ROW | {"experts.num_experts": 128} | HALF, "megatron_expert_lr", "maxvio", 0.587),
        (AUX_ROW | STATIC | {"experts.num_experts": 16, "lr_split.expert": 0.5, "lr_split.dense": 0.5},
         "num_experts_x_aux", "val_loss", 2.685),
    ],
)  # fmt: skip
def test_the_published_run_that_corresponds_is_found(
    row: dict[str, object], experiment: str, metric: str, value: float
) -> None:
    found = [v.value for v in published_values(row, [experiment]) if v.metric == metric]
    assert found == [value]


def test_published_digits_and_differences_are_kept() -> None:
    (loss,) = (v for v in published_values(LOSSFREE, ["lossfree_vs_aux"]) if v.metric == "val_loss")
    assert (loss.text, loss.source) == ("2.672", "report fig. 7")
    with_z = published_values(LOSSFREE | {"router.z_loss": 0.01}, ["lossfree_vs_aux"])
    assert {v.source.partition("; ")[2] for v in with_z} == {"published without z-loss"}
    switch = published_values(AUX_ROW | {"aux.normalization": "switch"}, ["lossfree_vs_aux"])
    assert {v.source.partition("; ")[2] for v in switch} == {"published with aux.normalization=talk"}
    assert "24 layers" in setting(["aux_coef"])
    assert "Megatron" in setting(["megatron_gating"])
    assert "24 layers" not in setting(["megatron_gating"])


def test_an_arm_that_was_not_published_has_no_value() -> None:
    by_load = LOSSFREE | {"lr_split": "batch_fraction", "lr_split.control": "none"}
    assert published_values(by_load, ["load_based_lr"])
    assert published_values(by_load | {"lr_split.control": "shuffled"}, ["load_based_lr"]) == []
    assert published_values(by_load | {"lr_split.sqrt": True}, ["load_based_lr"]) == []
    assert published_values(AUX_ROW | {"aux.coef": 0.05}, ["aux_coef"]) == []
    assert published_values(AUX_ROW | {"experts.num_experts": 4}, ["aux_coef"]) == []
    assert published_key(LOSSFREE)["aux_coef"] is None


def test_recommendations_follow_from_the_differences(tables: dict[str, Table]) -> None:
    sheet = recommendations(list(tables.values()))
    assert sheet is not None
    rows = {row[0].text: [cell.text for cell in row] for row in sheet.rows}
    aux = rows["Coefficient of the auxiliary loss"]
    assert aux[1:3] == ["balancer=aux aux.coef=0.2", "better"]
    assert "n = 3, paired" in aux[3]
    assert aux[4] == "balancer=aux aux.coef=0.01; balancer=aux aux.coef=0.6"
    split = rows["Learning rates of experts and of the rest"]
    assert split[1:3] == ["lr_split.dense=1 lr_split.expert=1 (the baseline)", "nothing better seen"]


def test_one_seed_recommends_nothing_new(tmp_path: Path) -> None:
    sheet = recommendations([suite(tmp_path, 1)["aux_coef"]])
    assert sheet is not None
    assert [c.text for c in sheet.rows[0]][1:3] == ["balancer=aux aux.coef=0.1 (the baseline)", "undecided"]


def test_a_baseline_without_result_or_verdict_recommends_nothing(tmp_path: Path) -> None:
    found = []
    for name, lost in (("all", (0, 1, 2)), ("one", (0,))):
        make_manifest(tmp_path / name, sweep_content("aux_coef", AUX[:3], 3))
        for settings in AUX[:3]:
            for seed in range(3):
                state = "diverged" if settings == AUX[0] and seed in lost else "done"
                make_suite_run(tmp_path / name, settings, seed, loss=4.0 + seed / 100, maxvio=1.0, state=state)
        table = ablation_table(load_manifests(tmp_path / name)[0][0], load_runs(tmp_path / name))
        assert table.baseline == short_hash(AUX[0])
        sheet = recommendations([table])
        assert sheet is not None
        found.append([cell.text for cell in sheet.rows[0]][1:4])
    assert found[0][:2] == ["–", "no result"]
    assert found[0][2].startswith("the baseline, aux.coef=0.01, has no finished run")
    assert found[1][:2] == ["–", "no result"]
    assert found[1][2].startswith("no verdict: 1 diverged or stopped")


def test_no_result_recommends_nothing(tmp_path: Path) -> None:
    make_manifest(tmp_path, sweep_content("aux_coef", AUX, 1))
    make_suite_run(tmp_path, AUX[0], 0, loss=4.0, maxvio=1.0)
    table = ablation_table(load_manifests(tmp_path)[0][0], load_runs(tmp_path))
    sheet = recommendations([table])
    assert sheet is not None
    assert sheet.rows[0][2].text == "no result"


def test_a_table_shows_the_further_metrics_that_its_definition_names(tmp_path: Path) -> None:
    """The gating table has the z-loss; a run from before it was recorded has none, and the row says so."""

    def table(name: str) -> Table:
        content = sweep_content(name, AUX[1:2], seeds=2)
        return ablation_table(make_manifest(tmp_path / str(len(list(tmp_path.iterdir()))), content), load_runs(runs))

    runs = tmp_path / "runs"
    for seed, z in ((0, 0.25), (1, 0.35)):
        run = make_suite_run(runs, AUX[1], seed, loss=3.0 + seed / 10, maxvio=0.2)
        run.write_summary((run.summary() or {}) | {"val_z_loss": z})
    gating = table("gating")
    place = header(gating).index("z-loss")
    assert rows(gating)[0][place].startswith("0.3000")
    assert "val_z_loss_mean" in csv_text(gating)
    run.write_summary({k: v for k, v in (run.summary() or {}).items() if k != "val_z_loss"})
    gating, plain = table("gating"), table("noise_floor")
    assert marks(gating, gating.arms[0]) == ["missing values"]
    assert "z-loss" not in header(plain)
    assert marks(plain, plain.arms[0]) == []
