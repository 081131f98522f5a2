"""Grids, published values, noise floor, recommendations and definitions, on generated sweeps."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers import compose_run
from unit.results.folders import make_manifest
from unit.results.suite import AUX, GRID, make_suite, make_suite_run, short_hash, sweep_content

from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.paths import TABLES
from moe_sweeps.records.code_record import CodeRecord
from moe_sweeps.records.genuine import flatten
from moe_sweeps.records.manifest import load_manifests, sweep_id_of
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.reports.csv_file import csv_text
from moe_sweeps.reports.layout import axis_values, difference_sheet, floor_sentence, grid_sheets, published_sheet
from moe_sweeps.reports.recommend import recommendations
from moe_sweeps.reports.rows import header, rows
from moe_sweeps.results.definition import GENERIC, load_definition
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.published import load_published, published_key, published_values, setting
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table, marks


def suite(root: Path, seeds: int = 3) -> dict[str, Table]:
    make_suite(root, seeds)
    runs, (manifests, _) = read_runs(root), load_manifests(root)
    noise = Noise.of(runs, manifests)
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
        ("", r"table=tables/x\.yaml is refused: it holds nothing instead of keys such as title"),
        ("- a", "it holds list"),
        ("title: [", "it cannot be read .*line 1"),
        ("title: &a x\nsetting: *a", "it has an alias"),
        ("a: " + "[" * 5000, "it cannot be read"),
        ("title: ~\n? [a]\n: b", "it cannot be read"),
        ("#" * 70_000, "more than 65,536"),
        ("1: x", r"tables/x\.yaml=1 is refused"),
        ("name: y", "it must be one of title"),
        ("title: 3", r"tables/x\.yaml title=3 is refused: it must be a text"),
        ("columns: aux.coef", "columns=aux.coef is refused: it must be a list of texts"),
        ("metrics: [{a: b}]", "metrics=.* is refused: it must be a list"),
        ("metrics: ['a b']", "no number of summary.json can be called so"),
        ("grid: [a]", "it must be a mapping with rows and columns"),
        ("grid: {rows: a}", "grid=rows is refused: it has no columns"),
        ("grid: {rows: a, columns: [b]}", "grid columns=.* it must be a text"),
    ],
)
def test_a_definition_with_a_typo_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_definition("x", tmp_path)


def test_bytes_folders_and_links_in_place_of_a_definition_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"title: \xff")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "link.yaml").symlink_to("nowhere")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo.yaml")
    for name in ("bytes", "folder", "link", "device", "fifo"):
        with pytest.raises(ConfigError, match=rf"tables/{name}\.yaml is refused: it cannot be read"):
            load_definition(name, tmp_path)
    for name in ("none", "../up", "x" * 300, "a\0b"):
        assert load_definition(name, tmp_path) == GENERIC


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
    table = ablation_table(load_manifests(tmp_path)[0][0], read_runs(tmp_path))
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
    table = ablation_table(load_manifests(tmp_path)[0][0], read_runs(tmp_path))
    assert axis_values(table, "knob") == shown


def test_noise_is_pooled_over_alike_arms_with_several_seeds(tables: dict[str, Table]) -> None:
    table = tables["aux_coef"]
    arms: dict[str, list[float]] = {}
    for row in table.alike.finished():
        arms.setdefault(row["arm"], []).append(row["val_loss"])
    several = [pd.Series(values) for values in arms.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    assert table.floor is not None
    assert (table.floor.runs, table.floor.freedom) == (sum(map(len, several)), freedom)
    pooled = math.sqrt(sum(values.var() * (len(values) - 1) for values in several) / freedom)
    assert table.floor.sd == pytest.approx(pooled)
    assert table.floor.difference > 1.96 * math.sqrt(2) * pooled  # single runs may scatter more than the others


def test_only_alike_runs_lend_their_spread(tmp_path: Path) -> None:
    table = suite(tmp_path, 1)["aux_coef"]
    noise = Noise.of(read_runs(tmp_path), load_manifests(tmp_path)[0])
    (size,), (data,), code = table.sizes, table.data, [record for arm in table.arms for record in arm.records]
    assert noise.like((size,), (data,), code).lent(PRIMARY) is not None
    assert noise.like((size, "0" * 12), (data,), code).rows == ()
    assert noise.like(("0" * 12,), (data,), code).rows == ()
    assert noise.like((size,), ("other",), code).rows == ()
    assert noise.like((size,), (data,), [CodeRecord("other")]).rows == ()


def test_seeds_that_other_sweeps_trained_count(tmp_path: Path) -> None:
    """The baseline of a table of single seeds has three runs if another sweep asked for three."""
    make_manifest(tmp_path, sweep_content("aux_coef", AUX[:2], 1))
    make_manifest(tmp_path, sweep_content("noise_floor", AUX[:1], 3))
    for seed, loss in enumerate((4.3, 4.0, 4.0)):
        make_suite_run(tmp_path, AUX[0], seed, loss=loss, maxvio=1.0)
    make_suite_run(tmp_path, AUX[1], 0, loss=4.1, maxvio=1.0)
    runs, (manifests, _) = read_runs(tmp_path), load_manifests(tmp_path)
    look = next(m for m in manifests if m.name == "aux_coef")  # of `decide`, whose ids do not follow from its runs
    noise = Noise.of(runs, manifests)
    assert ablation_table(look, runs, noise=noise).differences[short_hash(AUX[1])].n == (1, 1)
    table = ablation_table(replace(look, sweep_id=sweep_id_of(look.name, look.runs)), runs, noise=noise)
    found = table.differences[short_hash(AUX[1])]
    assert found.n == (1, 3)
    assert found.difference == pytest.approx(0.0)
    sheet = difference_sheet(table)
    assert sheet is not None
    assert "2 runs of these arms that other sweeps asked for count here." in sheet.notes


def test_one_seed_says_what_it_rests_on(tmp_path: Path) -> None:
    table = suite(tmp_path, 1)["aux_coef"]
    assert "One seed: the arm is taken to scatter like those" in floor_sentence(table)
    sheet = difference_sheet(table)
    assert sheet is not None
    assert {row[-1].text for row in sheet.rows} <= {"undecided", "better (one seed)", "worse (one seed)"}
    assert {row[-1].kind for row in sheet.rows if row[-1].text == "undecided"} <= {"grey"}


def test_later_looks_are_counted(tmp_path: Path) -> None:
    """A sweep typed again with more seeds is another look at the same comparison."""
    for seeds, day in ((2, "01"), (3, "02")):
        content = sweep_content("aux_coef", AUX[:2], seeds) | {"sweep_id": f"{day * 6}"}
        make_manifest(tmp_path, content | {"created": f"2026-01-{day}T00:00:00+00:00"})
    for settings in AUX[:2]:
        for seed in range(3):
            make_suite_run(tmp_path, settings, seed, loss=4.0 + seed / 100, maxvio=1.0)
    runs, (manifests, _) = read_runs(tmp_path), load_manifests(tmp_path)
    noise = Noise.of(runs, manifests)
    tables = {m.created[8:10]: ablation_table(m, runs, noise=noise) for m in manifests}
    assert {day: table.looks for day, table in tables.items()} == {"01": 1, "02": 2}
    counted = {day: table.differences[short_hash(AUX[1])].n for day, table in tables.items()}
    assert counted == {"01": (2, 2), "02": (3, 3)}  # the first look does not see what came after it


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


def differences(row: dict[str, object], experiment: str) -> set[str]:
    return {text for v in published_values(row, [experiment]) for text in v.source.split("; ")[1:]}


# What a config of today says in an arm of defaults.
OURS = {"router.z_loss": 0.01, "router.init": "normal", "aux.normalization": "talk", "aux.scope": "micro"}
OURS |= {"balancer.bias_on": "scores", "balancer.update_every": "step", "optimizer.decay_all": False}
INIT = "published with router.init=talk"
LOSSFREE_THEN = {INIT, "published with balancer.bias_on=logits", "published with balancer.update_every=micro_step"}
LOSSFREE_THEN |= {"published without z-loss"}
DECAY = "published with optimizer.decay_all=true"
TOP_3 = "published with 3 experts a token, and with P from a softmax"


@pytest.mark.parametrize(
    ("row", "experiment", "expected"),
    [
        (LOSSFREE | OURS, "lossfree_vs_aux", LOSSFREE_THEN),
        (LOSSFREE | OURS, "aux_coef", LOSSFREE_THEN),
        (AUX_ROW | OURS, "lossfree_vs_aux", {INIT}),
        (AUX_ROW | OURS | {"aux.scope": "global"}, "lossfree_vs_aux", {INIT, "published with aux.scope=micro"}),
        (LOSSFREE | OURS | {"lr_split": "batch_fraction"}, "load_based_lr", LOSSFREE_THEN | {DECAY}),
        (LOSSFREE | {"lr_split": "ideal_normalized"}, "load_based_lr", {DECAY}),  # a run from before the key
        (LOSSFREE | {"lr_split": "ideal_normalized", "optimizer.decay_all": math.nan}, "load_based_lr", {DECAY}),
        (LOSSFREE | {"lr_split": "ideal_normalized", "optimizer.decay_all": True}, "load_based_lr", set()),
        (LOSSFREE | OURS | {"router": "sigmoid"}, "megatron_gating", set()),
        (AUX_ROW | OURS | {"router": "sigmoid"}, "megatron_gating",
         {TOP_3, "published with aux.normalization=megatron"}),
        (AUX_ROW | OURS | {"aux.normalization": "megatron"}, "megatron_gating", set()),
    ],
)  # fmt: skip
def test_every_difference_that_applies_stands_beside_the_published_value(
    row: dict[str, object], experiment: str, expected: set[str]
) -> None:
    assert published_values(row, [experiment])
    assert differences(row, experiment) == expected


COMPAT = [
    ("lossfree_vs_aux", ["balancer=lossfree", "balancer.rate=1e-3"]),
    ("lossfree_vs_aux", ["balancer=aux", "aux.coef=0.1"]),
    ("load_based_lr", ["balancer=lossfree", "lr_split=batch_fraction"]),
    ("load_based_lr", ["balancer=lossfree", "lr_split=ideal_normalized"]),
    ("shampoo", ["optimizer=shampoo", "aux.coef=0.1"]),
]


@pytest.mark.parametrize(("experiment", "line"), COMPAT)
def test_an_arm_with_compat_talk_departs_in_nothing_that_has_a_key(experiment: str, line: list[str]) -> None:
    """What compat=talk sets and what is printed beside published values are one list."""
    row = flatten(to_dict(compose_run(*line, "compat=talk")))
    assert published_values(row, [experiment])
    of_metrics = {"published of one micro-batch on one rank"} if experiment == "shampoo" else set()
    assert differences(row, experiment) == of_metrics
    assert differences(flatten(to_dict(compose_run(*line))), experiment)


def test_perplexities_that_follow_from_a_published_loss_are_marked_as_derived() -> None:
    """Fig. 2 shows losses and accuracies; its 12 perplexities are exp(loss)."""
    frame = load_published()
    derived = frame[frame["precision"].str.startswith("derived")]
    assert (len(derived), set(derived["experiment"]), set(derived["metric"])) == (12, {"lr_split"}, {"val_perplexity"})
    losses = frame[(frame["experiment"] == "lr_split") & (frame["metric"] == "val_loss")]
    both = derived.merge(losses, on=["lr", "expert_lr"], suffixes=("", "_loss"), validate="one_to_one")
    assert len(both) == 12
    assert both["value"].tolist() == [f"{math.exp(float(loss)):.2f}" for loss in both["value_loss"]]


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
    assert "n = 3 and 3, paired by seed" in aux[3]
    assert aux[4] == "balancer=aux aux.coef=0.01; balancer=aux aux.coef=0.6"
    split = rows["Learning rates of experts and of the rest"]
    assert split[1:3] == ["–", "undecided"]


def test_one_seed_recommends_with_that_word(tmp_path: Path) -> None:
    sheet = recommendations([suite(tmp_path, 1)["aux_coef"]])
    assert sheet is not None
    assert [c.text for c in sheet.rows[0]][1:3] == ["balancer=aux aux.coef=0.2", "better (one seed)"]


def test_undecided_recommends_nothing_not_even_the_baseline(tmp_path: Path) -> None:
    make_manifest(tmp_path, sweep_content("aux_coef", AUX[:2], 3))
    for place, settings in enumerate(AUX[:2]):
        for seed in range(3):
            make_suite_run(tmp_path, settings, seed, loss=4.0 + (seed + place) % 3 / 100, maxvio=1.0)
    sheet = recommendations([ablation_table(load_manifests(tmp_path)[0][0], read_runs(tmp_path))])
    assert sheet is not None
    assert [c.text for c in sheet.rows[0]][1:3] == ["–", "undecided"]


def test_a_baseline_without_result_or_verdict_recommends_nothing(tmp_path: Path) -> None:
    found = []
    for name, lost in (("all", (0, 1, 2)), ("one", (0,))):
        make_manifest(tmp_path / name, sweep_content("aux_coef", AUX[:3], 3))
        for settings in AUX[:3]:
            for seed in range(3):
                state = "diverged" if settings == AUX[0] and seed in lost else "done"
                make_suite_run(tmp_path / name, settings, seed, loss=4.0 + seed / 100, maxvio=1.0, state=state)
        table = ablation_table(load_manifests(tmp_path / name)[0][0], read_runs(tmp_path / name))
        assert table.baseline == short_hash(AUX[0])
        sheet = recommendations([table])
        assert sheet is not None
        found.append([cell.text for cell in sheet.rows[0]][1:4])
    assert found[0][:2] == ["–", "no result"]
    assert found[0][2].startswith("the baseline, aux.coef=0.01, has no finished run")
    assert found[1][:2] == ["–", "no result"]
    assert found[1][2].startswith("no verdict: 1 diverged or stopped")


@pytest.mark.parametrize("state", ["diverged", "missing", "all diverged", "done"])
def test_the_baseline_is_recommended_only_where_every_other_arm_is_decided(tmp_path: Path, state: str) -> None:
    """An arm that lost a seed, or has not run, may be better still."""
    make_manifest(tmp_path, sweep_content("aux_coef", AUX[:3], 4))
    for settings, level in zip(AUX[:3], (4.0, 4.2, 3.9 if state == "diverged" else 4.3), strict=True):
        for seed in range(4):
            last = settings == AUX[2]
            if not (last and state == "missing"):
                lost = state == "all diverged" or (state == "diverged" and not seed)
                how = "diverged" if last and lost else "done"
                make_suite_run(tmp_path, settings, seed, loss=level + seed / 1e3, maxvio=1.0, state=how)
    manifests = load_manifests(tmp_path)[0]
    runs = read_runs(tmp_path)
    sheet = recommendations([ablation_table(manifests[0], runs, noise=Noise.of(runs, manifests))])
    assert sheet is not None
    found = [cell.text for cell in sheet.rows[0]][1:4]
    if state in ("diverged", "missing"):
        assert found[:2] == ["–", "undecided"]
        assert "without a verdict: aux.coef=0.2" in found[2]
    else:
        assert found[:2] == ["aux.coef=0.01 (the baseline)", "better than every other arm"]
        assert ("without a result to its end: aux.coef=0.2" in found[2]) == (state == "all diverged")


def test_no_result_recommends_nothing(tmp_path: Path) -> None:
    make_manifest(tmp_path, sweep_content("aux_coef", AUX, 1))
    make_suite_run(tmp_path, AUX[0], 0, loss=4.0, maxvio=1.0)
    table = ablation_table(load_manifests(tmp_path)[0][0], read_runs(tmp_path))
    sheet = recommendations([table])
    assert sheet is not None
    assert sheet.rows[0][2].text == "no result"


def test_a_table_shows_the_further_metrics_that_its_definition_names(tmp_path: Path) -> None:
    """The gating table has the z-loss; a run from before it was recorded has none, and the row says so."""

    def table(name: str) -> Table:
        content = sweep_content(name, AUX[1:2], seeds=2)
        return ablation_table(make_manifest(tmp_path / str(len(list(tmp_path.iterdir()))), content), read_runs(runs))

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
