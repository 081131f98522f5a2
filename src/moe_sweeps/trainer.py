"""Training of one run, from its first step or from its last checkpoint to its summary."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.balancing import Balancer
from moe_sweeps.checkpoint import Checkpoints
from moe_sweeps.config.groups import MoEExpertsConfig
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.batches import Batch, TrainBatches, batch_order_digest
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.engines.build import build_model
from moe_sweeps.errors import ConfigError, Diverged, Interrupted, Paused
from moe_sweeps.evaluate import Evaluation, Validation
from moe_sweeps.gradients import Gradients
from moe_sweeps.health import CollapseWatch
from moe_sweeps.journal import Journal, Observer
from moe_sweeps.metrics import maxvio
from moe_sweeps.model.compiling import compiling, require_same_choice
from moe_sweeps.model.fused import go_on, uses_kernels
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.transformer import Transformer, weights_digest
from moe_sweeps.monitor import RouterMonitor
from moe_sweeps.optim.build import state_bytes
from moe_sweeps.optim.stepper import Stepper
from moe_sweeps.randomness import gather_random_states, restore_random_state, seed_streams
from moe_sweeps.run_report import Clock, costs, outcome
from moe_sweeps.rundir import RunDir
from moe_sweeps.saving import SavingRhythm
from moe_sweeps.sharding import load_model, on_device, place, whole_state
from moe_sweeps.stopwatch import StepTimer

log = logging.getLogger(__name__)


class Trainer:
    """One run's model, optimizer, balancer and data, and the loop over them."""

    def __init__(
        self,
        run: RunConfig,
        folder: RunDir,
        data: TokenData,
        device: torch.device,
        observer: Observer,
        ranks: Ranks = ALONE,
    ) -> None:
        ranks.require_even_split(run.trainer.batch_size, run.trainer.micro_batch_size)
        self.run, self.folder, self.data, self.device, self.ranks = run, folder, data, device, ranks
        self.compute = Compute.of(run.trainer.precision, device)
        boundary_id = data.end_of_text_id if run.data.mask_documents else None
        self.model: Transformer = build_model(run, data.vocab_size, boundary_id, device)
        place(self.model, device, run.engine.parallel, ranks.size, autocast=self.compute.autocast)
        self.balancer = build_balancer(run, ranks).to(device)
        self.stepper = Stepper(run, self.model, ranks)
        self.batches = TrainBatches(data.train, run.trainer.seq_len, run.trainer.batch_size, run.effective_data_seed)
        self.checkpoints = Checkpoints(folder.checkpoints, run.trainer.keep_checkpoints)
        self.monitor = RouterMonitor(run.trainer, folder, self.model, self.balancer, ranks)
        self.timer = StepTimer(device, run.trainer.time_every)
        self.compiling = compiling(run, data.vocab_size, device, ranks.size)
        log.info("torch.compile is %s: %s", "on" if self.compiling.on else "off", self.compiling.why)
        self.gradients = Gradients(
            run, self.model, self.balancer, self.monitor, self.compute, self.timer, ranks, compiles=self.compiling.on
        )
        self.validation = Validation(run.trainer, data, self.model, self.balancer, self.compute, ranks)
        self.journal = Journal(folder, self.validation, self.monitor, observer, self.compute, ranks)
        self.health = collapse_watch(run, device)
        self.clock = Clock()
        self.rhythm = SavingRhythm(run.trainer)
        self.step = 0
        self._saved_step: int | None = None

    # --- the loop -------------------------------------------------------------------------------------------------

    def train(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Train to the end and return the summary.

        Raises:
            Interrupted: `should_stop` said so; the state is saved.
            Paused: the step `trainer.stop_at` is over; it was evaluated, and the state is saved.
            Diverged: the loss became NaN or infinite.
        """
        self._start_or_resume()
        while self.step < self.run.trainer.steps and not self.health.says_stop(self.step):
            self._pause_where_told()
            started = time.perf_counter()
            values = self._train_step()
            self.step += 1
            # A GPU is not waited for in every step; a CPU has nothing to wait for.
            if self.device.type == "cpu" or self._will_wait():
                self._require_finite(values)
            self.clock.train_seconds += time.perf_counter() - started
            self._after_step(values)
            save = self.ranks.is_first and self.rhythm.is_due_by_clock()
            stop, save = self.ranks.any_of_each(should_stop(), save)
            if stop or save:
                self._save_between(values)
            if stop:
                raise Interrupted(f"stopped after step {self.step} of {self.run.trainer.steps}; its state is saved")
        return self._finish()

    def _pause_where_told(self) -> None:
        """Evaluate, save and raise Paused at `trainer.stop_at`, or beyond it if the run came from there."""
        stop_at = self.run.trainer.stop_at
        if stop_at is None or self.step < stop_at:
            return
        if self.step == stop_at:
            settings = self.run.trainer
            self.journal.ensure_evaluation(self.step, settings.eval_sequences, self.clock.train_seconds)
        self.save()
        raise Paused(f"stopped after step {self.step} of {self.run.trainer.steps}, as trainer.stop_at says")

    def _train_step(self) -> dict[str, Tensor]:
        """One update from one global batch; returns scalars on the device, without waiting for them."""
        progress = self.step / self.run.trainer.steps
        self.monitor.begin_step(self.step + 1)
        self.timer.begin_step(self.step + 1)
        found = self.gradients.accumulate(self._own_batch(), progress=progress)
        with self.timer.part("optimizer"):
            rates = self.stepper.step(self.step, found.load_LE)
        self.monitor.add_rates(rates)
        values = found.values | {"lr": torch.tensor(rates.base)}
        if found.load_LE is not None:
            self.balancer.update(found.load_LE, progress=progress)
            self.monitor.add_step(found.load_LE)
            values["maxvio_batch"] = maxvio(found.load_LE)
        return values

    def _own_batch(self) -> Batch:
        """This process's slice of the step's global batch."""
        return self.batches.batch(self.step, self.ranks.share_of(self.run.trainer.batch_size))

    def _require_finite(self, values: dict[str, Tensor]) -> None:
        if not math.isfinite(values["loss"].item()) or not math.isfinite(values["grad_norm"].item()):
            raise Diverged(f"the loss or its gradient became NaN or infinite at step {self.step}")

    def _after_step(self, values: dict[str, Tensor]) -> None:
        settings, last = self.run.trainer, self.step == self.run.trainer.steps
        self.journal.add_step(self.step, settings.steps, values)
        if "maxvio_batch" in values:
            self.health.add(self.step, values["maxvio_batch"])
        if self._due(settings.log_every):
            self._log_interval()
        if self._due(settings.eval_every) and not last:
            self.journal.log_evaluation(self.step, settings.eval_sequences, self.clock.train_seconds)
        if last or self.rhythm.is_due_by_steps(self.step):
            self._save_between(values)

    def _save_between(self, values: dict[str, Tensor]) -> None:
        """Save a state that is good for going on. What a GPU has still to do for it is time in training steps."""
        started = time.perf_counter()
        self._require_finite(values)
        self.clock.train_seconds += time.perf_counter() - started
        self.save()

    def _log_interval(self) -> None:
        speed = self.clock.tokens_per_second(self.step * self.run.trainer.tokens_per_step)
        seconds, collapsed = self.timer.read_interval(), self.health.collapsed_at() is not None
        self.journal.log_interval(self.step, speed, seconds, collapsed)

    def _will_wait(self) -> bool:
        """Whether something after this step waits for the device: then the step's seconds are to be the step's."""
        settings = self.run.trainer
        return self._due(settings.log_every) or self._due(settings.eval_every) or self.rhythm.is_due_by_steps(self.step)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.run.trainer.steps

    def evaluate(self, max_sequences: int | None = None) -> Evaluation:
        """Evaluate on `max_sequences` windows spread over the validation set, or on all of it."""
        return self.validation.evaluate(max_sequences)

    # --- start, save, finish --------------------------------------------------------------------------------------

    def _start_or_resume(self) -> None:
        found = self.checkpoints.load_latest(torch.device("cpu"))  # whole, of which a process may need a part
        self.ranks.require_agreement("the last intact checkpoint", -1 if found is None else found[0])
        if found is None:
            self._start()
        else:
            with self.checkpoints.explaining(found[0]):
                self._load(*found)
            log.info("resumed after step %d of %d", self.step, self.run.trainer.steps)
        self.journal.truncate_after(self.step)

    def _start(self) -> None:
        weights = weights_digest(self.model)
        if self.ranks.is_first:
            order = batch_order_digest(self.batches, self.data.fingerprint)
            self.folder.update_provenance(pairing={"initial_weights": weights, "batches": order})
        seed_streams(self.run.seed, self.ranks)

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        if self._saved_step == self.step:
            return
        self.clock.lap()
        with self.rhythm.measured():
            self.journal.sync()
            state = self.state_dict()
            if self.ranks.is_first:
                self.checkpoints.save(self.step, state)
            self.ranks.meet()  # a process that ended now could make the launcher end the one that writes
        self._saved_step = self.step
        if self.rhythm.is_automatic:
            log.info("checkpoint of step %d %s", self.step, self.rhythm)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers alone, so that it loads without unpickling code; all processes must ask.

        Of a sharded model only the first process gets it.
        """
        state = self.journal.state_dict() | {
            "step": self.step,
            "model": self.model.state_dict(),
            "stepper": self.stepper.state_dict(),
            "balancer": self.balancer.state_dict(),
            "health": self.health.state_dict(),
            "clock": self.clock.state_dict(),
            "timer": self.timer.state_dict(),
            "random": gather_random_states(self.device, self.ranks),
            "autocast": self.compute.autocast,
            "kernels": uses_kernels(self.model, self.compute),
            "compiled": self.compiling.on,
        }
        whole: dict[str, Any] = whole_state(state, keep=self.ranks.is_first)
        return whole

    def _load(self, step: int, state: dict[str, Any]) -> None:
        state = on_device(state, self.device, but=("model", "optimizer"))
        if state["autocast"] != self.compute.autocast:
            here, there = ("bfloat16", "float32") if self.compute.autocast else ("float32", "bfloat16")
            rule = f"the run began in {there}, and on {self.device.type} it would go on in {here}"
            raise ConfigError(
                "engine.device", self.device.type, rule, "Go on where it began, or set trainer.precision."
            )
        require_same_choice(state.get("compiled", False), self.compiling)
        go_on(self.model, self.compute, began_with_kernels=state.get("kernels", False))
        # Before there could be several processes the state stood there by itself.
        random = [state["random"]] if isinstance(state["random"], dict) else state["random"]
        self.ranks.require_size(len(random))
        load_model(self.model, state["model"])
        self.stepper.load_state_dict(state["stepper"])
        self.balancer.load_state_dict(state["balancer"])
        self.journal.load_state_dict(state)
        self.health.load_state_dict(state["health"])
        self.clock.load_state_dict(state["clock"])
        self.timer.load_state_dict(state["timer"])
        restore_random_state(random[self.ranks.rank], self.device)
        self.step = self._saved_step = step

    def _finish(self) -> dict[str, Any]:
        self.save()  # a run that was stopped early has not saved its last step yet
        most = self.run.trainer.final_eval_sequences
        found = self.journal.log_final_evaluation(self.step, most, self.clock.train_seconds)
        summary: dict[str, Any] = {f"val_{name}": value for name, value in found.items()}
        tail = self.journal.tail_maxvio.value()
        summary |= {} if tail is None else {"train_maxvio_batch": tail}
        summary |= {"stopped_early": True} if self.step < self.run.trainer.steps else {}
        return summary | self._outcome_and_costs()

    def summary_when_diverged(self) -> dict[str, Any]:
        """The last good numbers, named as such so that nobody averages them."""
        last_good = dict(self.journal.last_good)
        return {"diverged_at_step": self.step, "last_good": last_good} | self._outcome_and_costs()

    def _outcome_and_costs(self) -> dict[str, Any]:
        self.clock.lap()
        found = costs(self.run, self.data.vocab_size, self.step, self.clock, self.compute, self.ranks.size)
        found |= outcome(self.health)
        return found | self.timer.means() | {"optimizer_state_bytes": state_bytes(self.stepper.optimizer)}


def build_balancer(run: RunConfig, ranks: Ranks = ALONE) -> Balancer:
    """The balancer of a run; the do-nothing one for a model without experts."""
    if not isinstance(run.experts, MoEExpertsConfig):
        return Balancer()
    balancer = run.balancer.build(run, run.model.layers, run.experts.num_experts)
    balancer.ranks = ranks
    return balancer


def collapse_watch(run: RunConfig, device: torch.device) -> CollapseWatch:
    """The watch over a run's router; nothing can collapse in a model without experts."""
    experts = run.experts
    num_experts, top_k = (experts.num_experts, experts.top_k) if isinstance(experts, MoEExpertsConfig) else (1, 1)
    return CollapseWatch(run.trainer, num_experts, top_k, device)
