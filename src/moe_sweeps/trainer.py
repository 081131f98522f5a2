"""Training of one run, from its first step or from its last checkpoint to its summary.

Axes: B sequences of the micro-batch, S positions, L MoE layers, E experts.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from moe_sweeps.balancing import Balancer, z_loss
from moe_sweeps.checkpoint import Checkpoints
from moe_sweeps.config.groups import MoEExpertsConfig, Precision
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.batches import TrainBatches, batch_order_digest, val_batches
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import ConfigError, Diverged, Interrupted
from moe_sweeps.evaluate import Evaluation, domain_loads, evaluate, picks_LTK
from moe_sweeps.hardware import gemm_peak
from moe_sweeps.health import CollapseWatch
from moe_sweeps.load import LoadCounter
from moe_sweeps.meters import Mean, Means
from moe_sweeps.metrics import maxvio
from moe_sweeps.model.router import RouterConfig
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import Transformer, build_model, weights_digest
from moe_sweeps.monitor import RouterMonitor
from moe_sweeps.optim.groups import expected_roles, parameter_groups, role_of
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.routing_samples import sample_inputs_BS
from moe_sweeps.rundir import MetricsLog, RunDir

log = logging.getLogger(__name__)

# `train_maxvio_batch` is the mean over this last share of the steps.
TAIL_SHARE = 0.1


class Observer(Protocol):
    """Who follows a run: a progress bar, the status file. It is told at logging intervals only."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...


@dataclass(slots=True)
class Clock:
    """Seconds spent, over all attempts: in training steps alone, and altogether."""

    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    def lap(self) -> None:
        """Bring `wall_seconds` up to now."""
        now = time.perf_counter()
        self.wall_seconds += now - self._started
        self._started = now


class Trainer:
    """One run's model, optimizer, balancer and data, and the loop over them."""

    def __init__(
        self, run: RunConfig, folder: RunDir, data: TokenData, device: torch.device, observer: Observer
    ) -> None:
        self.run, self.folder, self.data, self.device, self.observer = run, folder, data, device, observer
        self.model: Transformer = build_model(run, data.vocab_size).to(device)
        self.balancer = build_balancer(run).to(device)
        own_decay = {Role.router: run.router.weight_decay}
        groups = parameter_groups(self.model, run.lr_split, expected_roles(run.experts.is_moe), own_decay)
        self.optimizer = run.optimizer.build(groups)
        self.batches = TrainBatches(data.train, run.trainer.seq_len, run.trainer.batch_size, run.effective_data_seed)
        self.checkpoints = Checkpoints(folder.checkpoints, run.trainer.keep_checkpoints)
        self.metrics = MetricsLog(folder.path / "metrics.jsonl")
        self.autocast = uses_autocast(run.trainer.precision, device)
        self.step = 0
        self.interval = Means(device)
        self.tail_maxvio = Mean(device)
        self.monitor = RouterMonitor(run.trainer, folder, self.model, self.balancer)
        self.health = collapse_watch(run, device)
        self.clock = Clock()
        self.last_good: dict[str, float] = {}

    # --- the loop -------------------------------------------------------------------------------------------------

    def train(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Train to the end and return the summary.

        Raises:
            Interrupted: `should_stop` said so; the state is saved.
            Diverged: the loss became NaN or infinite.
        """
        self._start_or_resume()
        while self.step < self.run.trainer.steps and not self.health.says_stop(self.step):
            started = time.perf_counter()
            values = self._train_step()
            self.step += 1
            # A GPU is not waited for in every step; a CPU has nothing to wait for.
            if self.device.type == "cpu" or self._due(self.run.trainer.log_every):
                self._require_finite(values)
            self.clock.train_seconds += time.perf_counter() - started
            self._after_step(values)
            if should_stop():
                self.save()
                raise Interrupted(f"stopped after step {self.step} of {self.run.trainer.steps}; its state is saved")
        return self._finish()

    def _after_step(self, values: dict[str, Tensor]) -> None:
        self.interval.add(values)
        if "maxvio_batch" in values:
            self.health.add(self.step, values["maxvio_batch"])
            if self.step > self.run.trainer.steps * (1 - TAIL_SHARE):
                self.tail_maxvio.add(values["maxvio_batch"])
        settings, last = self.run.trainer, self.step == self.run.trainer.steps
        self.observer.alive(self.step)
        if self._due(settings.log_every):
            self._log_interval()
        if self._due(settings.eval_every) and not last:
            self._evaluate_during_training()
        if self._due(settings.checkpoint_every):
            self._require_finite(values)
            self.save()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.run.trainer.steps

    # --- one step -------------------------------------------------------------------------------------------------

    def _train_step(self) -> dict[str, Tensor]:
        """One update from one global batch; returns scalars on the device, without waiting for them."""
        lr_factor = self._set_learning_rates()
        self.monitor.begin_step(self.step + 1)
        load = LoadCounter()
        totals: dict[str, Tensor] = {}
        step_load_LE = self._step_load() if self.balancer.needs_step_load else None
        for inputs_BS, targets_BS in self._micro_batches():
            for name, value in self._forward_backward(inputs_BS, targets_BS, load, step_load_LE).items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value
        self.monitor.add_gradients()
        clip_router_gradients(self.model, self.run.router)
        norm = clip_gradients(self.model, self.run.trainer.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        totals |= {"grad_norm": norm, "lr": torch.tensor(lr_factor * self.run.optimizer.base_lr)}
        load_LE = load.total()
        if load_LE is not None:
            self.balancer.update(load_LE, progress=self._progress)
            self.monitor.add_step(load_LE)
            totals["maxvio_batch"] = maxvio(load_LE)
        return totals

    def _step_load(self) -> Tensor | None:
        """Picks of all micro-batches of the step, (L, E), before its first backward pass; None where there is only one.

        A forward pass without gradient or output head, which makes a step about a third dearer. Random numbers are
        drawn again by the pass that trains.
        """
        if self.run.trainer.micro_batches == 1:
            return None
        load, random = LoadCounter(), random_state(self.device)
        with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            for inputs_BS, _ in self._micro_batches():
                load.add(self.model.layers_only(inputs_BS, self.balancer.ranking_TE)[1])
        restore_random_state(random, self.device)
        return load.total()

    def _forward_backward(
        self, inputs_BS: Tensor, targets_BS: Tensor, load: LoadCounter, step_load_LE: Tensor | None
    ) -> dict[str, Tensor]:
        """Gradients of one micro-batch, and its share of each loss term in the step's mean."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            output = self.model(inputs_BS, targets_BS, ranking=self.balancer.ranking_TE)
        assert output.loss is not None
        terms = {"loss": output.loss}
        if output.routings:
            balance = self.balancer.loss(output.routings, num_sequences=inputs_BS.shape[0], step_load_LE=step_load_LE)
            terms |= {} if balance is None else {"aux_loss": balance}
            if self.run.router.z_loss:
                terms["z_loss"] = self.run.router.z_loss * z_loss(output.routings)
        share = 1 / self.run.trainer.micro_batches
        total = torch.stack(list(terms.values())).sum() * share
        total.backward()
        if output.routings:
            self.balancer.observe(output.routings, progress=self._progress)
            load.add(output.routings)
        self.monitor.add_micro_batch(output.routings)
        return {name: term.detach() * share for name, term in terms.items()}

    @property
    def _progress(self) -> float:
        """Share of the run's steps that lie behind."""
        return self.step / self.run.trainer.steps

    def _micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs_BS, targets_BS = self.batches.batch(self.step)
        size = self.run.trainer.micro_batch_size
        for inputs, targets in zip(inputs_BS.split(size), targets_BS.split(size), strict=True):
            yield inputs.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)

    def _set_learning_rates(self) -> float:
        factor = self.run.schedule.factor(self.step, self.run.trainer.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        return factor

    # --- evaluation and logging -----------------------------------------------------------------------------------

    def _require_finite(self, values: dict[str, Tensor]) -> None:
        if not math.isfinite(values["loss"].item()) or not math.isfinite(values["grad_norm"].item()):
            raise Diverged(f"the loss or its gradient became NaN or infinite at step {self.step}")

    def _log_interval(self) -> None:
        values = self.interval.read_and_reset()
        if not all(math.isfinite(v) for v in values.values()):
            raise Diverged(f"a mean over the steps up to {self.step} is NaN or infinite")
        speed = self.step * self.run.trainer.tokens_per_step / max(self.clock.train_seconds, 1e-9)
        routing = self.monitor.log(self.step) | {"tokens_per_second": round(speed, 1)}
        self.metrics.append({"step": self.step, "split": "train"} | values | routing)
        self.last_good = {f"train_{k}": v for k, v in values.items()} | self._last_validation()
        self.observer.logged(self.step, values | {"collapsed": float(self.health.collapsed_at() is not None)}, speed)

    def _last_validation(self) -> dict[str, float]:
        return {k: v for k, v in self.last_good.items() if k.startswith("val_")}

    def _evaluate_during_training(self) -> None:
        result = self.evaluate(self.run.trainer.eval_sequences)
        self._require_finite_evaluation(result)
        self.metrics.append({"step": self.step, "split": "val", "tokens": result.tokens} | result.metrics())
        self._log_routing(result)
        self.last_good |= {f"val_{k}": v for k, v in result.metrics().items()}

    def _log_routing(self, result: Evaluation) -> None:
        if not self.monitor.enabled or result.load_LE is None:
            return
        inputs_BS = sample_inputs_BS(self.data.val, self.run.trainer.seq_len)
        ranking, device, autocast = self.balancer.ranking_TE, self.device, self.autocast
        sample_LTK = picks_LTK(self.model, inputs_BS, ranking=ranking, device=device, autocast=autocast)
        self.monitor.log_evaluation(self.step, result, sample_LTK, self.data.domains)

    def _require_finite_evaluation(self, result: Evaluation) -> None:
        if not math.isfinite(result.loss):
            raise Diverged(f"the validation loss after step {self.step} is NaN or infinite")

    def evaluate(self, max_sequences: int | None = None) -> Evaluation:
        """Evaluate on `max_sequences` windows spread over the validation set, or on all of it."""
        settings = self.run.trainer
        batches = val_batches(self.data.val, settings.seq_len, settings.eval_batch_size, max_sequences)
        return evaluate(
            self.model,
            self._alive_while(batches),
            ranking=self.balancer.ranking_TE,
            device=self.device,
            autocast=self.autocast,
            domains=domain_loads(self.data, settings.seq_len, max_sequences) if self.monitor.enabled else None,
        )

    def _alive_while(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            self.observer.alive(self.step)
            yield batch

    # --- start, save, finish --------------------------------------------------------------------------------------

    def _start_or_resume(self) -> None:
        found = self.checkpoints.load_latest(self.device)
        if found is None:
            self._start()
        else:
            self._load(*found)
            log.info("resumed after step %d of %d", self.step, self.run.trainer.steps)
        self.metrics.truncate_after(self.step)
        self.monitor.truncate_after(self.step)

    def _start(self) -> None:
        order = batch_order_digest(self.batches, self.data.fingerprint)
        self.folder.update_provenance(pairing={"initial_weights": weights_digest(self.model), "batches": order})
        torch.manual_seed(self.run.seed)

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        if self.step in self.checkpoints.steps():
            return
        self.clock.lap()
        self.metrics.sync()
        self.monitor.log_file.sync()
        self.checkpoints.save(self.step, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers alone, so that it loads without unpickling code."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
            "interval": self.interval.state_dict(),
            "tail_maxvio": self.tail_maxvio.state_dict(),
            "monitor": self.monitor.state_dict(),
            "health": self.health.state_dict(),
            "last_good": self.last_good,
            "clock": {"train_seconds": self.clock.train_seconds, "wall_seconds": self.clock.wall_seconds},
            "random": random_state(self.device),
            "autocast": self.autocast,
        }

    def _load(self, step: int, state: dict[str, Any]) -> None:
        if state["autocast"] != self.autocast:
            here, there = ("bfloat16", "float32") if self.autocast else ("float32", "bfloat16")
            rule = f"the run began in {there}, and on {self.device.type} it would go on in {here}"
            raise ConfigError(
                "engine.device", self.device.type, rule, "Go on where it began, or set trainer.precision."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.balancer.load_state_dict(state["balancer"])
        self.interval.load_state_dict(state["interval"])
        self.tail_maxvio.load_state_dict(state["tail_maxvio"])
        self.monitor.load_state_dict(state["monitor"])
        self.health.load_state_dict(state["health"])
        self.last_good = state["last_good"]
        self.clock.train_seconds, self.clock.wall_seconds = (
            state["clock"]["train_seconds"],
            state["clock"]["wall_seconds"],
        )
        restore_random_state(state["random"], self.device)
        self.step = step

    def _finish(self) -> dict[str, Any]:
        self.save()  # a run that was stopped early has not saved its last step yet
        result = self.evaluate(self.run.trainer.final_eval_sequences)
        self._require_finite_evaluation(result)
        self.metrics.drop(self.step, "val")  # written by an attempt that died between here and its summary
        self.metrics.append({"step": self.step, "split": "val", "tokens": result.tokens} | result.metrics())
        self.monitor.forget_ending(self.step)
        self._log_routing(result)
        self.monitor.log_saturation(self.step)
        self.clock.lap()
        summary: dict[str, Any] = {f"val_{name}": value for name, value in result.metrics().items()}
        tail = self.tail_maxvio.value()
        summary |= {} if tail is None else {"train_maxvio_batch": tail}
        summary |= {"stopped_early": True} if self.step < self.run.trainer.steps else {}
        return summary | self._health() | self._costs()

    def _health(self) -> dict[str, Any]:
        collapsed_at = self.health.collapsed_at()
        found: dict[str, Any] = {"collapsed": collapsed_at is not None}
        return found | ({} if collapsed_at is None else {"collapsed_at_step": collapsed_at})

    def summary_when_diverged(self) -> dict[str, Any]:
        """The last good numbers, named as such so that nobody averages them."""
        self.clock.lap()
        return {"diverged_at_step": self.step, "last_good": dict(self.last_good)} | self._health() | self._costs()

    def _costs(self) -> dict[str, Any]:
        tokens = self.step * self.run.trainer.tokens_per_step
        speed = tokens / max(self.clock.train_seconds, 1e-9)
        size = sizes(self.run, self.data.vocab_size)
        costs = {
            "tokens": tokens,
            "wall_seconds": round(self.clock.wall_seconds, 3),
            "train_seconds": round(self.clock.train_seconds, 3),
            "tokens_per_second": round(speed, 1),
            "params_total": size.params_total,
            "params_active": size.params_active,
            "flops_per_token": size.flops_per_token,
        }
        return costs | (share_of_peak(speed * size.flops_per_token) if self.device.type == "cpu" else {})


def build_balancer(run: RunConfig) -> Balancer:
    """The balancer of a run; the do-nothing one for a model without experts."""
    if not isinstance(run.experts, MoEExpertsConfig):
        return Balancer()
    return run.balancer.build(run, run.model.layers, run.experts.num_experts)


def collapse_watch(run: RunConfig, device: torch.device) -> CollapseWatch:
    """The watch over a run's router; nothing can collapse in a model without experts."""
    experts = run.experts
    num_experts, top_k = (experts.num_experts, experts.top_k) if isinstance(experts, MoEExpertsConfig) else (1, 1)
    return CollapseWatch(run.trainer, num_experts, top_k, device)


def clip_gradients(model: torch.nn.Module, limit: float) -> Tensor:
    """Scale the gradients to a global norm of at most `limit` (0: not at all); returns the norm before."""
    norm = torch.nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
    if limit:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    return norm


def clip_router_gradients(model: torch.nn.Module, config: RouterConfig) -> None:
    """Clip the router's gradients alone: each entry to `clip_value`, then their common norm to `clip_norm`; 0: not."""
    if not (config.clip_value or config.clip_norm):
        return
    params = [p for name, p in model.named_parameters() if role_of(name) is Role.router]
    if config.clip_value:
        torch.nn.utils.clip_grad_value_(params, config.clip_value)
    if config.clip_norm:
        torch.nn.utils.clip_grad_norm_(params, config.clip_norm)


def uses_autocast(precision: Precision, device: torch.device) -> bool:
    """Whether the model computes in bfloat16: on a GPU unless told otherwise, on CPU only when told."""
    return precision is Precision.bfloat16 or (precision is Precision.auto and device.type == "cuda")


def share_of_peak(flops: float) -> dict[str, float]:
    """`flops` per second beside the measured peak of float32 matrix products with the same threads."""
    peak = gemm_peak()
    return {"gemm_peak_gflops": round(peak / 1e9, 1), "share_of_gemm_peak": round(flops / peak, 4)}


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
