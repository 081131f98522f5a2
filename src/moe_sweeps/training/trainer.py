"""Training of one run: from its first step, or from its last checkpoint, to its summary."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.balancing import build_balancer
from moe_sweeps.balancing.metrics import maxvio
from moe_sweeps.data.batches import Batch, TrainBatches, batch_order_digest
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.distributed.sharding import place
from moe_sweeps.engines.build import build_engine_model, is_filled_in_place
from moe_sweeps.engines.filling import fill
from moe_sweeps.errors import Diverged, Interrupted, Paused
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.compiling import compiling
from moe_sweeps.model.dense import ProductUse
from moe_sweeps.model.fused import KernelUse
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.transformer import Transformer, weights_digest
from moe_sweeps.optim.build import state_bytes
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.clock import Clock
from moe_sweeps.training.collapse import CollapseWatch
from moe_sweeps.training.costs import costs
from moe_sweeps.training.evaluate import Evaluation, Validation
from moe_sweeps.training.forking import Trunk, continued, perturbed
from moe_sweeps.training.gradients import Gradients
from moe_sweeps.training.journal import Journal, Observer
from moe_sweeps.training.monitor import RouterMonitor
from moe_sweeps.training.randomness import RandomStreams, seed_streams
from moe_sweeps.training.saving import Saver
from moe_sweeps.training.state import ModelState, Stateful, restore, state_of
from moe_sweeps.training.step_timer import StepTimer
from moe_sweeps.training.stepper import Stepper

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
        self.step = 0
        self._build_model()
        self._build_step()
        self._build_records(observer)

    def _build_model(self) -> None:
        """The model in its place, its balancer, and what decides how it computes."""
        run, data, device = self.run, self.data, self.device
        self.compute = Compute.of(run.trainer.precision, device)
        boundary_id = data.end_of_text_id if run.data.mask_documents else None
        empty = is_filled_in_place(run, device.type == "cuda", self.ranks.size)
        self.model: Transformer = build_engine_model(run, data.vocab_size, boundary_id, device, empty=empty)
        place(self.model, device, run.engine.parallel, self.ranks.size, autocast=self.compute.autocast)
        if empty:
            fill(self.model, run, data.vocab_size)
        self.balancer = build_balancer(run, self.ranks).to(device)
        self.compiling = compiling(run, data.vocab_size, device, self.ranks.size)
        log.info("torch.compile is %s: %s", "on" if self.compiling.on else "off", self.compiling.why)

    def _build_step(self) -> None:
        """What one step needs: batches, gradients, the optimizer, and what watches them."""
        run, ranks = self.run, self.ranks
        self.stepper = Stepper(run, self.model, ranks)
        self.batches = TrainBatches(
            self.data.train, run.trainer.seq_len, run.trainer.batch_size, run.effective_data_seed
        )
        self.monitor = RouterMonitor(run.trainer, self.folder, self.model, self.balancer, ranks)
        self.timer = StepTimer(self.device, run.trainer.time_every)
        self.gradients = Gradients(
            run,
            self.model,
            self.balancer,
            self.monitor,
            self.compute,
            self.timer,
            ranks,
            compiles=self.compiling.on,
            leaves_division=self.stepper.divides(self.device),
        )

    def _build_records(self, observer: Observer) -> None:
        """What writes: evaluations, logs and checkpoints."""
        settings = self.run.trainer
        self.validation = Validation(settings, self.data, self.model, self.balancer, self.compute, self.ranks)
        self.journal = Journal(self.folder, self.validation, self.monitor, observer, self.compute, self.ranks)
        self.collapse = CollapseWatch.of(self.run, self.device)
        self.clock = Clock()
        self.saver = Saver(self.parts(), self.model, self.folder, settings, self.device, self.ranks)

    def parts(self) -> dict[str, Stateful]:
        """All that the rest of the run depends on, by its name in a checkpoint.

        Parts that may refuse to be resumed here come first, so that they do before anything is changed.
        """
        own: dict[str, Stateful] = {
            "autocast": self.compute,
            "compiled": self.compiling,
            "kernels": KernelUse(self.model, self.compute),
            "products": ProductUse(self.model, self.compute),
            "random": RandomStreams(self.device, self.ranks),
            "model": ModelState(self.model),
            "stepper": self.stepper,
            "balancer": self.balancer,
            "health": self.collapse,
            "clock": self.clock,
            "timer": self.timer,
        }
        return own | self.journal.parts()

    # --- the loop -------------------------------------------------------------------------------------------------

    def train(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Train to the end and return the summary.

        Raises:
            Interrupted: `should_stop` said so; the state is saved.
            Paused: step `trainer.stop_at` is over; it was evaluated, and the state is saved.
            Diverged: the loss became NaN or infinite.
        """
        self._start_or_resume()
        while self.step < self.run.last_step and not self.collapse.says_stop(self.step):
            self._pause_where_told()
            values = self._timed_step()
            self._after_step(values)
            self._save_or_stop(values, should_stop())
        return self._finish()

    def _pause_where_told(self) -> None:
        """Evaluate, save and raise Paused at `trainer.stop_at`, or beyond it if the run was resumed there."""
        settings = self.run.trainer
        if settings.stop_at is None or self.step < settings.stop_at:
            return
        if self.step == settings.stop_at:
            self.journal.ensure_evaluation(self.step, settings.eval_sequences, self.clock.train_seconds)
        self.save()
        raise Paused(f"stopped after step {self.step} of {settings.steps}, as trainer.stop_at says")

    def _timed_step(self) -> dict[str, Tensor]:
        """One step, with its time on the clock.

        It is checked to be finite where that costs nothing: on a CPU, and before something else synchronises a GPU.
        """
        started = time.perf_counter()
        values = self._train_step()
        self.step += 1
        if self.device.type == "cpu" or self._synchronises():
            self._require_finite(values)
        self.clock.train_seconds += time.perf_counter() - started
        return values

    def _train_step(self) -> dict[str, Tensor]:
        """One update from one global batch. Returns scalars on the device, without synchronising with it."""
        progress = self.step / self.run.trainer.steps
        self.monitor.begin_step(self.step + 1)
        self.timer.begin_step(self.step + 1)
        found = self.gradients.accumulate(self._own_batch(), progress=progress)
        with self.timer.part("optimizer"):
            rates = self.stepper.step(self.step, found.load_LE, found.divisor)
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
        """Log, evaluate and save where the step is one to do so after."""
        settings, last = self.run.trainer, self.step == self.run.trainer.steps
        is_over = self.step == self.run.last_step
        self.journal.add_step(self.step, settings.steps, values)
        if "maxvio_batch" in values:
            self.collapse.add(self.step, values["maxvio_batch"])
        if self._is_due(settings.log_every):
            self._log_interval()
        if self._is_due(settings.eval_every) and not last:
            self.journal.log_evaluation(self.step, settings.eval_sequences, self.clock.train_seconds)
        if is_over or self.saver.schedule.is_due_by_steps(self.step):
            self._save_finite(values)

    def _save_or_stop(self, values: dict[str, Tensor], stop: bool) -> None:
        """Save where it is time to. Save and raise Interrupted where any process was told to `stop`."""
        due = self.ranks.is_first and self.saver.schedule.is_due_by_clock()
        stop, due = self.ranks.any_of_each(stop, due)
        if stop or due:
            self._save_finite(values)
        if stop:
            raise Interrupted(f"stopped after step {self.step} of {self.run.trainer.steps}; its state is saved")

    def _save_finite(self, values: dict[str, Tensor]) -> None:
        """Save a state that is worth resuming. The time that a GPU needs to finish the step counts as training."""
        started = time.perf_counter()
        self._require_finite(values)
        self.clock.train_seconds += time.perf_counter() - started
        self.save()

    def _log_interval(self) -> None:
        speed = self.clock.tokens_per_second(self.step * self.run.trainer.tokens_per_step)
        seconds, collapsed = self.timer.read_interval(), self.collapse.collapsed_at() is not None
        self.journal.log_interval(self.step, speed, seconds, collapsed)

    def _synchronises(self) -> bool:
        """Whether something after this step synchronises with the device. The step's time must be taken before it."""
        settings = self.run.trainer
        logs = self._is_due(settings.log_every) or self._is_due(settings.eval_every)
        return logs or self.saver.schedule.is_due_by_steps(self.step)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.run.trainer.steps

    def evaluate(self, max_sequences: int | None = None) -> Evaluation:
        """Evaluate on `max_sequences` windows spread over the validation set, or on all of it."""
        return self.validation.evaluate(max_sequences)

    # --- start, save, finish --------------------------------------------------------------------------------------

    def _start_or_resume(self) -> None:
        saved_step = self.saver.resume()
        if saved_step is None:
            self._fork(Trunk.of(self.run, self.folder)) if self.run.fork.continues else self._start()
        else:
            self.step = saved_step
            log.info("resumed after step %d of %d", self.step, self.run.trainer.steps)
        self.journal.truncate_after(self.step)

    def _start(self) -> None:
        weights = weights_digest(self.model)
        if self.ranks.is_first:
            order = batch_order_digest(self.batches, self.data.fingerprint)
            pairing = {"initial_weights": weights, "batches": order}
            self.folder.update_provenance(pairing=pairing, arithmetic=self._arithmetic())
        seed_streams(self.run.seed, self.ranks)

    def _arithmetic(self) -> dict[str, str]:
        """How the model computes, for provenance.json."""
        kernels, products = KernelUse(self.model, self.compute), ProductUse(self.model, self.compute)
        return {"kernels": kernels.record(), "products": products.record()}

    def _fork(self, trunk: Trunk) -> None:
        """Begin where the trunk ended, with the run's own settings."""
        state = trunk.state()
        with self.saver.checkpoints.explaining(trunk.step):
            found = continued(state, state_of(self.parts()), trunk.run, self.run)
            found["model"] = perturbed(found["model"], self.run)
            restore(self.parts(), found, self.device)
        self.step = trunk.step
        weights = weights_digest(self.model)
        if self.ranks.is_first:
            order = batch_order_digest(self.batches, self.data.fingerprint)
            pairing = {"initial_weights": weights, "batches": order}
            self.folder.update_provenance(pairing=pairing, trunk=trunk.record(), arithmetic=self._arithmetic())
        log.info("continues from %s after step %d", trunk.folder.path.name, trunk.step)

    def save(self) -> None:
        """Write a checkpoint, unless this step has one. All processes must call it."""
        if self.saver.saved_step == self.step:
            return
        self.clock.lap()
        schedule = self.saver.schedule
        with schedule.measured():
            self.journal.sync()
            self.saver.save(self.step)
        if schedule.is_automatic:
            log.info("checkpoint of step %d %s", self.step, schedule)

    def _finish(self) -> dict[str, Any]:
        self.save()  # the last step of a run that was stopped early is not saved yet
        most = self.run.trainer.final_eval_sequences
        found = self.journal.log_final_evaluation(self.step, most, self.clock.train_seconds)
        summary: dict[str, Any] = {f"val_{name}": value for name, value in found.items()}
        tail = self.journal.tail_maxvio.value()
        summary |= {} if tail is None else {"train_maxvio_batch": tail}
        summary |= {"stopped_early": True} if self.step < self.run.last_step else {}
        return summary | self._outcome_and_costs()

    def summary_when_diverged(self) -> dict[str, Any]:
        """The summary of a run that diverged. Its last good numbers are nested, so that nobody averages them."""
        last_good = dict(self.journal.last_good.values)
        return {"diverged_at_step": self.step, "last_good": last_good} | self._outcome_and_costs()

    def _outcome_and_costs(self) -> dict[str, Any]:
        self.clock.lap()
        found = costs(self.run, self.data.vocab_size, self.step, self.clock, self.compute, self.ranks.size)
        found |= self.collapse.summary()
        return found | self.timer.means() | {"optimizer_state_bytes": state_bytes(self.stepper.optimizer)}
