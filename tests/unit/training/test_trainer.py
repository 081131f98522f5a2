"""Training: equal to a plain loop, resumable bit for bit, and honest about how it ended."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import training
from helpers import CPU, TINY, compose_run, never, records, trainer, without_times

from moe_sweeps.balancing import LossFree, Quantile, aux_loss, z_loss
from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.data.batches import TrainBatches, val_batches
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import ConfigError, Diverged, Interrupted, RunFolderError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.kernels.arithmetic import Arithmetic
from moe_sweeps.kernels.build import compiler
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.transformer import build_model
from moe_sweeps.optim.lr_split import permutation_LE
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.results.frame import load_runs
from moe_sweeps.training.worker import run_worker

INFRA_CHANGES = [
    "trainer.log_every=7",
    "trainer.eval_every=5",
    "trainer.eval_sequences=3",
    "trainer.eval_batch_size=5",
    "trainer.checkpoint_every=24",
    "trainer.keep_checkpoints=1",
    "trainer.stop_at=99",
    "trainer.monitor=false",
    "engine.expert_backend=loop",
    "engine.device=cpu",
    "engine.parallel=fsdp",
    "launch.workers=3",
    "name=other",
]


def test_training_equals_a_plain_loop(folders: Path, real_data: TokenData) -> None:
    """The whole trainer against twenty lines that anyone can check: same losses, same weights."""
    run = compose_run(*TINY, "balancer=aux", "aux.coef=0.3", "trainer.micro_batch_size=4")
    ours = trainer(run, real_data)
    ours.train(never)
    model = build_model(run, real_data.vocab_size)
    decayed = [p for n, p in model.named_parameters() if "norm" not in n and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if "norm" in n or "embedding" in n]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-3, betas=(0.9, 0.95), weight_decay=0.1)
    batches = TrainBatches(real_data.train, 32, 4, data_seed=0)
    for step in range(24):
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * run.schedule.factor(step, 24)
        output = model(*batches.batch(step))
        aux = aux_loss(output.routings, normalization=run.aux.normalization)
        (output.loss + 0.3 * aux + 0.01 * z_loss(output.routings)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for (name, expected), (_, found) in zip(model.named_parameters(), ours.model.named_parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("balancer", ["none", "lossfree", "quantile"])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_splitting_the_batch_changes_nothing_but_rounding(
    folders: Path, real_data: TokenData, balancer: str, micro: int
) -> None:
    """Lossfree reads the counts of the whole batch, so 8 sequences are 8 sequences however they are cut."""
    line = [*TINY, f"balancer={balancer}", "trainer.batch_size=8", "router.z_loss=0"]
    whole = trainer(compose_run(*line, "trainer.micro_batch_size=8"), real_data)
    split = trainer(compose_run(*line, f"trainer.micro_batch_size={micro}"), real_data)
    for step in range(4):
        one, other = whole._train_step(), split._train_step()
        torch.testing.assert_close(one["loss"], other["loss"], rtol=1e-5, atol=1e-6)
        assert one.get("maxvio_batch") == other.get("maxvio_batch"), step
        whole.step += 1
        split.step += 1
    if isinstance(whole.balancer, LossFree) and isinstance(split.balancer, LossFree):
        assert whole.balancer.bias_LE.abs().sum() > 0
        assert torch.equal(whole.balancer.bias_LE, split.balancer.bias_LE)
    if isinstance(whole.balancer, Quantile) and isinstance(split.balancer, Quantile):
        assert whole.balancer.beta_LE.abs().sum() > 0
        torch.testing.assert_close(whole.balancer.beta_LE, split.balancer.beta_LE, rtol=0, atol=1e-5)


def test_the_micro_scoped_aux_loss_does_depend_on_the_split(folders: Path, real_data: TokenData) -> None:
    line = [*TINY, "balancer=aux", "trainer.batch_size=8"]
    terms = [
        trainer(compose_run(*line, f"trainer.micro_batch_size={m}"), real_data)._train_step()["aux_loss"]
        for m in (8, 1)
    ]
    assert abs(terms[0] - terms[1]) > 1e-5


@pytest.mark.parametrize("scope", ["sequence", "global"])
def test_sequence_and_global_scope_do_not_depend_on_the_split(folders: Path, real_data: TokenData, scope: str) -> None:
    line = [*TINY, "balancer=aux", "aux.coef=1", f"aux.scope={scope}", "trainer.batch_size=8", "trainer.grad_clip=0"]
    whole = trainer(compose_run(*line, "trainer.micro_batch_size=8"), real_data)
    split = trainer(compose_run(*line, "trainer.micro_batch_size=2"), real_data)
    for _ in range(4):
        one, other = whole._train_step(), split._train_step()
        for name in ("loss", "aux_loss", "grad_norm"):
            torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)
        whole.step += 1
        split.step += 1


def test_the_counting_pass_finds_the_step_s_picks_and_leaves_no_trace(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "balancer=aux", "aux.scope=global"), real_data)
    seen = []
    hook = ours.model.layers[0].moe.router.register_forward_hook(  # type: ignore[union-attr]
        lambda module, inputs, routing: seen.append((torch.rand(()).item(), routing.counts_E))
    )
    random = torch.get_rng_state()
    load_LE = ours.gradients.step_load(ours.batches.batch(0))
    assert load_LE is not None
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in ours.model.parameters())
    seen.clear()
    ours._train_step()  # two micro-batches, each seen twice
    assert [draw for draw, _ in seen[:2]] == [draw for draw, _ in seen[2:]]
    assert torch.equal(seen[2][1] + seen[3][1], load_LE[0])
    hook.remove()


def test_masked_documents_train_on_the_same_batches_with_another_loss(folders: Path, real_data: TokenData) -> None:
    plain = trainer(compose_run(*TINY), real_data)
    line = [*TINY, "data.mask_documents=true"]
    assert trainer(compose_run(*line), real_data).model.boundary_id == real_data.end_of_text_id
    in_first_batch = int(plain.batches.batch(0)[0][0, 3])
    data = dataclasses.replace(real_data, meta=real_data.meta | {"end_of_text_id": in_first_batch})
    losses = [t._train_step()["loss"].item() for t in (plain, trainer(compose_run(*line), data))]
    assert losses[0] != losses[1]


def test_one_micro_batch_needs_no_counting_pass(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "balancer=aux", "aux.scope=global", "trainer.micro_batch_size=4"), real_data)
    assert ours.gradients.step_load(ours.batches.batch(0)) is None


# Beside every balancer, which unit/balancing/test_contract.py resumes.
RESUMED = [
    ["balancer=lossfree", "router=sigmoid", "balancer.update_every=micro_step", "balancer.decay_fraction=0.5"],
    ["experts=dense"],
    ["optimizer=shampoo", "optimizer.precondition_frequency=3"],
    ["optimizer=muon"],
    ["optimizer=soap", "optimizer.precondition_frequency=3"],
    ["router.noise=learned", "router.input_jitter=0.1", "router.input_dropout=0.1", "router.clip_norm=0.1"],
]


@pytest.mark.parametrize("line", RESUMED, ids=" ".join)
def test_stopped_and_resumed_is_bit_identical(folders: Path, real_data: TokenData, line: list[str]) -> None:
    training.stopped_and_resumed_is_bit_identical(compose_run(*TINY, *line), real_data, folders)


PRESENT = [a.value for a in (Arithmetic.avx512, Arithmetic.avx2) if a.obstacle() is None]
needs_kernels = pytest.mark.skipif(compiler() is None, reason="the kernels cannot be compiled here")


@needs_kernels
@pytest.mark.parametrize("began", PRESENT)
@pytest.mark.parametrize("goes_on", [*PRESENT, "auto", "torch"])
def test_a_run_goes_on_to_the_last_bit_with_the_kernels_that_it_began_with(
    folders: Path, real_data: TokenData, began: str, goes_on: str
) -> None:
    """Whatever the setting says when it is resumed."""
    run = compose_run(*TINY, f"engine.kernels={began}", "trainer.checkpoint_every=8")
    whole = trainer(run, real_data)
    expected, wanted = without_times(whole.train(never)), whole.model.state_dict()
    assert whole.folder.provenance()["arithmetic"]["kernels"] == began
    shutil.rmtree(whole.folder.path)
    first = trainer(run, real_data)
    with pytest.raises(Interrupted):
        first.train(lambda: first.step == 11)
    second = trainer(compose_run(*TINY, f"engine.kernels={goes_on}", "trainer.checkpoint_every=8"), real_data)
    assert without_times(second.train(never)) == expected
    assert all(torch.equal(wanted[name], found) for name, found in second.model.state_dict().items())


def test_resuming_drops_records_beyond_the_checkpoint(folders: Path, real_data: TokenData) -> None:
    run = compose_run(*TINY)
    first = trainer(run, real_data)
    with pytest.raises(RuntimeError, match="crash"):
        first.train(lambda: (_ for _ in ()).throw(RuntimeError("crash")) if first.step == 9 else False)
    assert [r["step"] for r in records(first.folder)] == [4, 8, 8]
    second = trainer(run, real_data)
    second.train(never)  # goes on after step 5
    steps = [(r["split"], r["step"]) for r in records(second.folder)]
    assert steps == sorted(set(steps), key=steps.index)
    assert [s for split, s in steps if split == "train"] == [4, 8, 12, 16, 20, 24]
    assert [s for split, s in steps if split == "val"] == [8, 16, 24]


def test_a_death_between_the_last_step_and_the_summary_leaves_no_duplicate(folders: Path, real_data: TokenData) -> None:
    run = compose_run(*TINY)
    first = trainer(run, real_data)
    expected = without_times(first.train(never))
    lines = records(first.folder)
    again = trainer(run, real_data)  # no summary was written: another attempt ends the run
    assert without_times(again.train(never)) == expected
    assert records(again.folder) == lines


def test_a_run_does_not_change_its_precision_on_the_way(
    folders: Path, real_data: TokenData, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trainer(compose_run(*TINY), real_data)
    first.save()
    monkeypatch.setattr(Compute, "of", lambda precision, device: Compute(device, autocast=True))
    second = trainer(compose_run(*TINY), real_data)
    with pytest.raises(ConfigError, match="the run was started in float32, and on cpu it would resume in bfloat16"):
        second.train(never)


def test_the_names_in_a_checkpoint_stay(folders: Path, real_data: TokenData) -> None:
    """Runs that were started by earlier versions have these, and resume."""
    first = trainer(compose_run(*TINY), real_data)
    names = {
        "step",
        "model",
        "stepper",
        "balancer",
        "health",
        "clock",
        "timer",
        "random",
        "autocast",
        "kernels",
        "products",
    }
    names |= {"compiled", "interval", "tail_maxvio", "monitor", "last_good"}
    assert first.saver.state_dict(first.step).keys() == names


@pytest.mark.parametrize(("part", "absent"), [("compiled", False), ("kernels", False), ("products", None)])
def test_a_checkpoint_from_before_there_was_such_a_part_resumes(
    folders: Path, real_data: TokenData, part: str, absent: bool | None
) -> None:
    first = trainer(compose_run(*TINY, "engine.kernels=torch"), real_data)
    state = first.saver.state_dict(first.step)
    assert state.pop(part) is absent
    first.saver.checkpoints.save(0, state)
    second = trainer(compose_run(*TINY, "engine.kernels=torch"), real_data)
    assert second.train(never)["tokens"] == 24 * 4 * 32


def test_a_checkpoint_of_other_code_is_refused_with_the_way_out(folders: Path, real_data: TokenData) -> None:
    first = trainer(compose_run(*TINY), real_data)
    state = first.saver.state_dict(first.step)
    narrow = state["model"] | {"final_norm.weight": torch.zeros(3)}
    for broken, what in (({"health"}, "lacks 'health'"), (set(), r"does not fit: .*size mismatch")):
        content = {k: v for k, v in state.items() if k not in broken}
        first.saver.checkpoints.save(1, content if broken else state | {"model": narrow})
        with pytest.raises(
            RunFolderError, match=rf"(?s)step-00000001\.pt is intact, but .*other code, and {what}.*delete"
        ):
            trainer(compose_run(*TINY), real_data).train(never)


def test_a_checkpoint_from_before_there_were_several_processes_goes_on(folders: Path, real_data: TokenData) -> None:
    first = trainer(compose_run(*TINY), real_data)
    state = first.saver.state_dict(first.step)
    first.saver.checkpoints.save(0, state | {"random": state["random"][0]})
    second = trainer(compose_run(*TINY), real_data)
    assert second.train(never)["tokens"] == 24 * 4 * 32


@pytest.mark.parametrize("infra", INFRA_CHANGES)
def test_infrastructure_changes_no_result(folders: Path, real_data: TokenData, infra: str) -> None:
    """Bit for bit, but for the batch of evaluations, which rounds a sum differently, and for the backend of experts.

    Where they round differently one token between two experts may go to the other, and MaxVio is a count of tokens.
    """
    expected, found = (
        without_times(trainer(compose_run(*TINY, f"paths.runs={folders / root}", *line), real_data).train(never))
        for root, line in (("plain", []), ("other", [infra]))
    )
    rounds = infra.startswith(("trainer.eval_batch_size", "engine.expert_backend"))
    if not rounds:
        assert found == expected
        return
    one_token = 1 / 1024  # of the mean load of an expert in an evaluation
    assert found.pop("val_maxvio_global") == pytest.approx(expected.pop("val_maxvio_global"), abs=1.01 * one_token)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_validation_loss_is_the_mean_over_tokens(folders: Path, real_data: TokenData) -> None:
    """Against one forward pass in float64 over the same windows."""
    ours = trainer(compose_run(*TINY, "trainer.eval_batch_size=6"), real_data)
    found = ours.evaluate(18)
    inputs, targets = (torch.cat(t) for t in zip(*val_batches(real_data.val, 32, 6, 18), strict=True))
    logits = ours.model(inputs, ranking=ours.balancer.ranking_TE).logits_BSV.double()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert found.tokens == 18 * 32
    assert found.loss == pytest.approx(expected.item(), rel=1e-6)
    assert found.accuracy == pytest.approx((logits.argmax(-1) == targets).double().mean().item())
    assert found.metrics()["perplexity"] == pytest.approx(math.exp(expected.item()), rel=1e-6)
    assert found.load_LE is not None
    assert found.load_LE.sum(1).tolist() == [18 * 32 * 2] * 2


def test_router_losses_of_an_evaluation_are_means_over_all_its_tokens(folders: Path, real_data: TokenData) -> None:
    """logsumexp(z)^2 and E sum f P over layers, in float64, of 18 windows at once; found in batches of 4."""
    ours = trainer(compose_run(*TINY, "trainer.eval_batch_size=4"), real_data)
    found = ours.evaluate(18).metrics()
    (inputs, targets), *rest = val_batches(real_data.val, 32, 18, 18)
    assert not rest
    z_terms, balance_terms = [], []
    for routing in ours.model(inputs, targets, ranking=ours.balancer.ranking_TE).routings:
        logits = routing.logits_TE.detach().double()
        z_terms.append(logits.exp().sum(-1).log().square().mean().item())
        share = routing.counts_E.double() / routing.counts_E.sum()
        balance_terms.append(logits.shape[1] * (share * logits.softmax(-1).mean(0)).sum().item())
    assert found["z_loss"] == pytest.approx(sum(z_terms) / 2, rel=1e-5)
    assert found["load_balancing_loss"] == pytest.approx(sum(balance_terms) / 2, rel=1e-5)


def test_a_nan_loss_ends_the_run_as_diverged_with_its_last_good_numbers(folders: Path, real_data: TokenData) -> None:
    run = compose_run(*TINY, "optimizer.base_lr=1e30", "trainer.grad_clip=0", "trainer.log_every=1")
    folder = freeze(run, [], command="test")
    assert run_worker(folder) is State.diverged
    assert folder.status().state is State.diverged
    summary = folder.summary()
    assert summary is not None
    assert 0 < summary["diverged_at_step"] < 24
    assert math.isfinite(summary["last_good"]["train_loss"])
    assert "val_loss" not in summary
    frame = load_runs(folders).frame
    assert frame.loc[0, "last_good.train_loss"] == summary["last_good"]["train_loss"]
    assert frame["val_loss"].isna().all()
    assert run_worker(folder) is State.diverged  # an outcome: it is not tried again
    assert folder.status().attempt == 1


def test_divergence_names_the_step(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "optimizer.base_lr=1e30", "trainer.grad_clip=0"), real_data)
    with pytest.raises(Diverged, match=r"at step \d+"):
        ours.train(never)


def test_the_summary_holds_what_tables_rely_on(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY), real_data)
    summary = ours.train(never)
    required = "val_loss val_perplexity val_accuracy val_maxvio_global train_maxvio_batch tokens wall_seconds"
    assert set(f"{required} tokens_per_second params_total params_active".split()) <= summary.keys()
    assert summary["tokens"] == 24 * 4 * 32
    assert summary["params_total"] == sum(p.numel() for p in ours.model.parameters())
    assert summary["val_perplexity"] == pytest.approx(math.exp(summary["val_loss"]))


def test_train_maxvio_is_the_mean_over_the_last_tenth(folders: Path, real_data: TokenData) -> None:
    run = compose_run(*TINY, "trainer.steps=20", "trainer.log_every=1")
    ours = trainer(run, real_data)
    summary = ours.train(never)
    lines = [r for r in records(ours.folder) if r["split"] == "train"]
    assert summary["train_maxvio_batch"] == pytest.approx((lines[18]["maxvio_batch"] + lines[19]["maxvio_batch"]) / 2)


def test_arms_of_one_seed_share_weights_and_batches(folders: Path, real_data: TokenData) -> None:
    pairings = []
    for line in (["balancer=aux"], ["balancer=lossfree"], ["optimizer.base_lr=1e-3"], ["seed=1"]):
        ours = trainer(compose_run(*TINY, *line), real_data)
        ours._start()
        pairings.append(ours.folder.provenance()["pairing"])
    assert pairings[0] == pairings[1] == pairings[2]
    assert pairings[0]["initial_weights"] != pairings[3]["initial_weights"]
    assert pairings[0]["batches"] != pairings[3]["batches"]


def test_precision() -> None:
    precision = TrainerConfig().precision
    assert not Compute.of(precision, CPU).autocast
    assert Compute.of(precision, torch.device("cuda")).autocast
    assert not Compute.of(type(precision).float32, torch.device("cuda")).autocast
    assert not Compute.of(type(precision).mixed, CPU).autocast  # its products are those of model/dense.py
    assert Compute.of(type(precision).mixed, torch.device("cuda")).autocast


def test_load_based_rates_follow_the_summed_loads_of_the_step(folders: Path, real_data: TokenData) -> None:
    """Two micro-batches a step: the logged rates are those that the logged loads of the whole batch give."""
    run = compose_run(*TINY, "lr_split=batch_fraction", "lr_split.expert=0.5", "trainer.log_every=1")
    ours = trainer(run, real_data)
    ours.train(never)
    lines = records(ours.folder, "routing.jsonl")
    logged = [r for r in lines if r["split"] == "train"]
    assert len(logged) == 24
    for line in logged:
        factor = run.schedule.factor(line["step"] - 1, 24)
        assert line["lr"]["expert"] == pytest.approx(0.5 * 6e-3 * factor, rel=1e-5)
        for layer, load_E in enumerate(line["load_LE"]):
            expected = [0.5 * 6e-3 * factor * c / (4 * 32) for c in load_E]
            for name in ("min", "mean", "max"):  # of one step
                assert line[f"expert_lr_{name}_LE"][layer] == pytest.approx(expected, rel=1e-5)
    evaluated = {r["step"]: r["expert_lr_LE"] for r in lines if r["split"] == "val"}
    assert evaluated == {s: logged[s - 1]["expert_lr_mean_LE"] for s in (8, 16, 24)}


def test_the_shuffle_is_recorded(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY, "lr_split=batch_fraction", "lr_split.control=shuffled", "seed=5"), real_data)
    ours.train(never)
    lines = [r for r in records(ours.folder, "routing.jsonl") if r["split"] in ("train", "val")]
    assert {r["step"] for r in lines} == {4, 8, 12, 16, 20, 24}
    for line in lines:
        expected = permutation_LE(5, line["step"], ours.run.model.layers, 8)
        assert line["lr_permutation_LE"] == expected.tolist()


def test_a_forced_balance_makes_a_load_based_run_a_static_one(folders: Path, real_data: TokenData) -> None:
    """Experts that choose have equal loads: one run id, and the same bits if both are trained."""
    chosen = "balancer=expert_choice"
    lines = [chosen, "lr_split=static", "lr_split.expert=0.25"], [chosen, "lr_split=batch_fraction"]
    runs = [compose_run(*TINY, *line, f"paths.runs={folders / str(len(line))}") for line in lines]
    one, other = (trainer(run, real_data) for run in runs)
    assert one.folder.run_id == other.folder.run_id
    assert without_times(one.train(never)) == without_times(other.train(never))


def test_the_time_of_a_step_is_told_by_its_parts(folders: Path, real_data: TokenData) -> None:
    ours = trainer(compose_run(*TINY), real_data)
    summary = ours.train(never)
    parts = [summary[f"seconds_{part}"] for part in ("forward", "backward", "optimizer")]
    assert all(part > 0 for part in parts)
    assert sum(parts) < summary["seconds_per_step"] * 1.2  # the first step, which costs more, is in the latter alone
    assert summary["seconds_per_step"] == pytest.approx(summary["train_seconds"] / 24, rel=0.02)
    assert summary["optimizer_state_bytes"] > 8 * summary["params_total"]
    lines = ours.journal.metrics.records()
    assert all("seconds_optimizer" in r for r in lines if r["split"] == "train")
    times = [r["train_seconds"] for r in lines if r["split"] == "val"]
    assert times == sorted(times)
    assert times[-1] == summary["train_seconds"]


def test_a_run_that_pauses_on_its_way_ends_with_the_same_bits(folders: Path, real_data: TokenData) -> None:
    """Paused at 7 (between all intervals) and 15 (a checkpoint's step) by stop_at, then trained to its end."""
    line = [*TINY, "balancer=lossfree", "lr_split=batch_fraction", "router.input_jitter=0.1"]
    undisturbed = freeze(compose_run(*line, "name=whole"), [], command="x")
    assert run_worker(undisturbed) is State.done
    whole_summary, whole_lines = without_times(undisturbed.summary()), records(undisturbed)
    whole_routing, whole = records(undisturbed, "routing.jsonl"), _last_state(undisturbed)
    shutil.rmtree(undisturbed.path)
    for stop_at in (7, 15, 10):  # at 10 it is already: it stops at once
        folder = freeze(compose_run(*line, f"trainer.stop_at={stop_at}"), [], command="x")
        assert folder.run_id == undisturbed.run_id
        assert run_worker(folder) is State.preempted
        status = folder.status()
        assert status.is_paused
        assert status.step == status.paused_at == max(stop_at, 7 if stop_at == 7 else 15)
        assert [r["step"] for r in records(folder) if r["split"] == "val"][-1] == status.step
    folder = freeze(compose_run(*line), [], command="x")
    assert run_worker(folder) is State.done
    assert not folder.status().is_paused
    assert without_times(folder.summary()) == whole_summary
    rungs = (7, 15)
    assert [r for r in records(folder) if (r["split"], r["step"]) not in [("val", s) for s in rungs]] == whole_lines
    assert [r for r in records(folder, "routing.jsonl") if r["split"] == "train"] == [
        r for r in whole_routing if r["split"] == "train"
    ]
    for name, value in _last_state(folder).items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=0, msg=name)


def test_a_pause_that_was_killed_before_its_checkpoint_evaluates_once(folders: Path, real_data: TokenData) -> None:
    """A later attempt that finds itself at the step where it is to stop does not train, nor evaluate twice."""
    folder = freeze(compose_run(*TINY, "trainer.stop_at=8"), [], command="x")
    run_worker(folder)
    before = (folder.path / "metrics.jsonl").read_text()
    assert run_worker(folder) is State.preempted
    assert (folder.path / "metrics.jsonl").read_text() == before
    assert [r["step"] for r in records(folder) if r["split"] == "val"] == [8]


def _last_state(folder: RunDir) -> dict[str, torch.Tensor]:
    """Weights and balancer of the last checkpoint, by name."""
    path = max(folder.checkpoints.glob("*.pt"))
    state = torch.load(path, weights_only=True)
    assert int(path.stem.removeprefix("step-")) == 24
    return {**state["model"], **{f"balancer.{k}": v for k, v in state["balancer"].items()}}
