"""Monitoring: it says what the experts do, changes nothing, and survives a resume bit for bit.

Axes: L MoE layers, E experts, T tokens, K picks per token, D domains of the corpus.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, compose_run, never, records, trainer
from torch.utils._python_dispatch import TorchDispatchMode

from moe_sweeps.balancing import LossFree, metrics
from moe_sweeps.balancing.load import DomainLoads
from moe_sweeps.data.batches import val_batches, window_domains
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Interrupted
from moe_sweeps.model.router import Routing, count_picks
from moe_sweeps.optim.groups import role_of
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.monitor import plain
from moe_sweeps.training.routing_samples import RoutingSamples

MEASURES = [
    "maxvio_micro",
    "maxvio_batch",
    "cv",
    "gini",
    "n_eff",
    "dead",
    "token_entropy",
    "batch_entropy",
    "mutual_information",
    "mean_prob_max",
    "max_prob",
    "logit_scale",
]


def routing(folder: RunDir, split: str) -> list[dict[str, object]]:
    return [r for r in records(folder, "routing.jsonl") if r["split"] == split]


def test_it_changes_no_weight(folders: Path, real_data: TokenData) -> None:
    weights = []
    for monitor in ("true", "false"):
        line = [*TINY, "balancer=lossfree", f"paths.runs={folders / monitor}", f"trainer.monitor={monitor}"]
        ours = trainer(compose_run(*line), real_data)
        ours.train(never)
        weights.append(ours.model.state_dict() | ours.balancer.state_dict())
        assert (ours.folder.path / "routing.jsonl").exists() == (monitor == "true")
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_line_holds_every_measure_by_layer_and_metrics_their_means(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "balancer=lossfree"), real_data)
    ours.train(never)
    lines, means = routing(ours.folder, "train"), [r for r in records(ours.folder) if r["split"] == "train"]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    for line, mean in zip(lines, means, strict=True):
        load_LE = torch.tensor(line["load_LE"])
        assert load_LE.sum(dim=1).tolist() == [4 * 4 * 32 * 2] * 2  # steps of the interval, sequences, tokens, picks
        for name in (*MEASURES, "bias_range", "bias_swing"):
            values = line[f"{name}_L"]
            assert isinstance(values, list)
            assert len(values) == 2
            assert mean[name] == pytest.approx(sum(values) / 2, rel=1e-5)
        for norms in (line["grad_norm"], line["param_norm"]):
            assert isinstance(norms, dict)
            assert set(norms) == {"expert", "router", "dense", "embedding", "norm"}
    assert isinstance(ours.balancer, LossFree)
    assert lines[-1]["bias_LE"] == plain(ours.balancer.bias_LE)


def test_one_step_against_its_own_forward_pass(folders: Path, real_data: TokenData) -> None:
    """Everything that a line says about one step of two micro-batches, from one pass over the whole batch."""
    ours = trainer(compose_run(*TINY, "trainer.log_every=1", "trainer.grad_clip=0"), real_data)
    inputs_BS, targets_BS = ours.batches.batch(0)
    output = ours.model(inputs_BS, targets_BS)
    probs_LTE = torch.stack([r.probs_TE for r in output.routings]).detach()
    logits_LTE = torch.stack([r.logits_TE for r in output.routings]).detach()
    load_LE = torch.stack([r.counts_E for r in output.routings])
    half_LE = torch.stack([count_picks(r.ids_TK[:64], 8) for r in output.routings])
    ours._train_step()
    ours.monitor.log(1)
    (line,) = routing(ours.folder, "train")
    assert line["load_LE"] == load_LE.tolist()
    expected = {
        "maxvio_micro_L": (metrics.maxvio_L(half_LE) + metrics.maxvio_L(load_LE - half_LE)) / 2,
        "maxvio_batch_L": metrics.maxvio_L(load_LE),
        "cv_L": metrics.cv_L(load_LE),
        "gini_L": metrics.gini_L(load_LE),
        "n_eff_L": metrics.effective_experts_L(load_LE),
        "dead_L": metrics.dead_experts_L(load_LE),
        "token_entropy_L": metrics.token_entropy_L(probs_LTE),
        "batch_entropy_L": metrics.entropy(probs_LTE.mean(dim=-2)),
        "mutual_information_L": metrics.entropy(probs_LTE.mean(dim=-2)) - metrics.token_entropy_L(probs_LTE),
        "mean_prob_max_L": probs_LTE.mean(dim=-2).amax(dim=-1),
        "max_prob_L": metrics.max_prob_L(probs_LTE),
        "logit_scale_L": metrics.logit_scale_L(logits_LTE),
    }
    for name, value in expected.items():
        assert line[name] == pytest.approx(value.tolist(), rel=1e-4, abs=1e-5), name


def test_gradient_norms_by_role_are_taken_before_clipping(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "trainer.log_every=1", "trainer.grad_clip=0.01"), real_data)
    values = ours._train_step()
    ours.monitor.log(1)
    (line,) = routing(ours.folder, "train")
    norms = line["grad_norm"]
    assert isinstance(norms, dict)
    assert math.hypot(*norms.values()) == pytest.approx(values["grad_norm"].item(), rel=1e-5)
    routers = [p for name, p in ours.model.named_parameters() if role_of(name).value == "router"]
    params = line["param_norm"]
    assert isinstance(params, dict)
    assert params["router"] == pytest.approx(math.sqrt(sum(p.square().sum().item() for p in routers)), rel=1e-5)


def test_the_swing_is_how_far_the_bias_moved_since_the_last_line(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "balancer=lossfree"), real_data)
    ours.train(never)
    lines = routing(ours.folder, "train")
    before, after = (torch.tensor(line["bias_LE"]) for line in lines[:2])
    assert lines[1]["bias_swing_L"] == pytest.approx((after - before).abs().mean(dim=1).tolist(), rel=1e-4)
    assert lines[1]["bias_range_L"] == pytest.approx((after.amax(1) - after.amin(1)).tolist(), rel=1e-4)


@pytest.mark.parametrize("stopped_at", [7, 8, 21])
def test_a_resume_is_exact(folders: Path, real_data: TokenData, stopped_at: int) -> None:
    run = compose_run(*TINY, "balancer=lossfree")
    whole = trainer(run, real_data)
    whole.train(never)
    expected = (whole.folder.path / "routing.jsonl").read_text()
    samples = {p.name: p.read_bytes() for p in (whole.folder.path / "routing_samples").iterdir()}
    whole.folder.path.rename(folders / "elsewhere")
    stopped = trainer(run, real_data)
    with pytest.raises(Interrupted):
        stopped.train(lambda: stopped.step == stopped_at)
    stopped.monitor.samples.write(22, torch.zeros(1, 1, 1))  # of a point that this run does not reach again
    resumed = trainer(run, real_data)
    resumed.train(never)
    assert (resumed.folder.path / "routing.jsonl").read_text() == expected
    assert {p.name: p.read_bytes() for p in (resumed.folder.path / "routing_samples").iterdir()} == samples


def test_a_death_before_the_summary_leaves_no_duplicate(folders: Path, real_data: TokenData) -> None:
    run = compose_run(*TINY)
    first = trainer(run, real_data)
    first.train(never)
    expected = (first.folder.path / "routing.jsonl").read_text()
    trainer(run, real_data).train(never)
    assert (first.folder.path / "routing.jsonl").read_text() == expected


def test_evaluations_say_how_domains_are_routed(folders: Path, real_data: TokenData) -> None:
    """Against the picks of the same windows, one domain after the other."""
    ours = trainer(compose_run(*TINY), real_data)
    ours.train(never)
    lines = routing(ours.folder, "val")
    assert [line["step"] for line in lines] == [8, 16, 24]
    last = lines[-1]
    windows = window_domains(real_data, "val", 32)
    chosen = [i * len(windows) // 64 for i in range(64)]  # trainer.final_eval_sequences
    inputs = torch.cat([b for b, _ in val_batches(real_data.val, 32, 16, 64)])
    by_domain = last["domain_load"]
    assert isinstance(by_domain, dict)
    assert list(by_domain) == real_data.domains
    for i, name in enumerate(real_data.domains):
        rows = [row for row, window in enumerate(chosen) if windows[window] == i]
        routings = ours.model(inputs[rows], inputs[rows]).routings
        assert by_domain[name] == [r.counts_E.tolist() for r in routings]
    assert torch.tensor(list(by_domain.values())).sum(0).tolist() == last["load_LE"]
    assert last["maxvio_L"] == plain(metrics.maxvio_L(torch.tensor(last["load_LE"])))


def test_saturation_compares_each_point_with_the_final_router(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY), real_data)
    ours.train(never)
    lines = routing(ours.folder, "saturation")
    assert [line["step"] for line in lines] == [8, 16, 24]
    assert lines[-1]["saturation_L"] == [1.0, 1.0]
    samples = RoutingSamples(ours.folder.path / "routing_samples")
    assert samples.read(8).shape == (2, 2048, 2)
    assert lines[0]["saturation_L"] == plain(metrics.saturation_L(samples.read(8), samples.read(24)))
    early = lines[0]["saturation_L"]
    assert isinstance(early, list)
    assert all(0.25 < value < 1 for value in early)


def test_a_dense_model_has_norms_and_rates_alone(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "experts=dense"), real_data)
    ours.train(never)
    found = records(ours.folder, "routing.jsonl")
    assert all(set(r) == {"step", "split", "grad_norm", "param_norm", "lr"} for r in found)


class NoWaiting(TorchDispatchMode):
    """Refuses the operations by which a host waits for its device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(func).startswith(("aten._local_scalar_dense", "aten.nonzero", "aten.equal")), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("step", [3, 4])  # an ordinary one, and one that will be logged
def test_the_host_waits_for_the_device_in_lines_alone(
    folders: Path, real_data: TokenData, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trainer(compose_run(*TINY, "balancer=lossfree", "trainer.stop_on_collapse=true"), real_data)
    output = ours.model(*ours.batches.batch(0))
    output.loss.backward()
    load_LE = torch.stack([r.counts_E for r in output.routings])
    monkeypatch.setattr(torch.Tensor, "tolist", None)
    with NoWaiting():
        ours.monitor.begin_step(step)
        ours.monitor.add_micro_batch(output.routings)
        ours.monitor.add_gradients()
        ours.monitor.add_step(load_LE)
        ours.collapse.add(step, metrics.maxvio(load_LE))
        assert not ours.collapse.says_stop(step)
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        load_LE.sum().item()


def test_what_is_not_finite_is_null() -> None:
    assert plain(torch.tensor([1.0, math.nan, math.inf])) == [1.0, None, None]
    assert json.dumps(plain(torch.tensor(0.123456789))) == "0.123457"


def test_domain_loads_by_hand() -> None:
    """Three windows of two tokens, top-1 of three experts, in two passes."""
    loads = DomainLoads([1, 0, 1], num_domains=2)
    empty = torch.empty(0)
    for ids, windows in (([[0], [0], [1], [2]], 2), ([[2], [0]], 1)):
        ids_TK = torch.tensor(ids)
        loads.add([Routing(empty, ids_TK, empty, empty, count_picks(ids_TK, 3))], windows)
    total = loads.total()
    assert total is not None
    assert total.tolist() == [[[0, 1, 1]], [[3, 0, 1]]]
