"""The step loop: phases in order, each from the weights the one before ended with.

Rerunning the same command resumes: finished phases are skipped, an unfinished one continues from
its newest checkpoint. Midtraining and SFT are two configurations of this loop.
"""

import contextlib
import sys
import time

import torch

from megatron_msm.config.load import dump_config
from megatron_msm.errors import PreemptedError
from megatron_msm.formats.checkpoint_folder import (
    RUN_FILE,
    CheckpointState,
    iteration_folder,
    read_checkpoint_state,
)
from megatron_msm.formats.files import write_text_atomic
from megatron_msm.formats.metrics_file import StepMetrics
from megatron_msm.models.sizes.gpus import gpu_of_device
from megatron_msm.progress import SILENT, Progress, readable_duration, show_progress
from megatron_msm.runtime.device import Runtime
from megatron_msm.runtime.process_groups import ParallelRanks
from megatron_msm.runtime.versions import installed_versions
from megatron_msm.train.checkpoints.adapter import adapter_record
from megatron_msm.train.checkpoints.fp8_weights import MainWeights, main_weights_of_fp8
from megatron_msm.train.checkpoints.origin import verified_start, verify_origin
from megatron_msm.train.checkpoints.proof import prove_saved, prove_state
from megatron_msm.train.checkpoints.resume import PhaseStart, SavedCheckpoint
from megatron_msm.train.checkpoints.saving import CheckpointSaver
from megatron_msm.train.reporting.expected import expected_lines
from megatron_msm.train.reporting.metrics import MetricsWriter
from megatron_msm.train.reporting.profiling import profiled
from megatron_msm.train.reporting.progress import StepProgress
from megatron_msm.train.reporting.run_record import record_start
from megatron_msm.train.reporting.step_report import StepReport
from megatron_msm.train.reporting.trackers import build_trackers
from megatron_msm.train.resolved_run import ResolvedRun
from megatron_msm.train.steps.guard import StepGuard
from megatron_msm.train.steps.phase_model import PhaseModel
from megatron_msm.train.steps.step import settle_weights
from megatron_msm.train.steps.timing import PartTimes
from megatron_msm.train.steps.validation import validate
from megatron_msm.train.stop import StopSignal, agree_to_stop


class Trainer:
    """Trains the phases of one run on this rank."""

    def __init__(
        self, run: ResolvedRun, runtime: Runtime, ranks: ParallelRanks, stop: StopSignal
    ) -> None:
        self.run = run
        self.runtime = runtime
        self.ranks = ranks
        self.is_writer = ranks.rank == 0
        self.out = run.config.out
        self.run_yaml = dump_config(run.config)
        self._stop = stop

    def fit(self) -> None:
        """Train every phase that is not finished.

        Raises:
            PreemptedError: The run was told to stop, and has saved.
        """
        if self.is_writer:
            self.out.mkdir(parents=True, exist_ok=True)
            write_text_atomic(self.out / RUN_FILE, self.run_yaml)
        is_first = True
        while (start := self._verified_start()) is not None:
            if self.is_writer and is_first:
                self._tell(start)
            is_first = False
            with self.shown() as progress:
                model = PhaseModel(self.run, start, self.runtime, self.ranks, progress)
            PhaseRun(self, start, model).train()

    def _verified_start(self) -> PhaseStart | None:
        with self.shown() as progress, progress.waiting("comparing weights with their SHA-256"):
            return verified_start(self.run)

    def shown(self, *, leaves_bar: bool = False) -> contextlib.AbstractContextManager[Progress]:
        """Return what shows progress, on rank 0 alone."""
        if not self.is_writer:
            return contextlib.nullcontext(SILENT)
        return show_progress(leaves_bar=leaves_bar)

    def _tell(self, start: PhaseStart) -> None:
        """Record the start, and say what to expect on a GPU that is known."""
        record_start(self.run, start)
        gpu = gpu_of_device(torch.cuda.get_device_name()) if self.runtime.is_cuda else None
        if gpu is not None:
            sys.stderr.write("".join(f"{line}\n" for line in expected_lines(self.run, gpu)))

    def must_stop(self) -> bool:
        """Return whether any rank was told to stop, or its time is over; called by all alike."""
        is_due = self._stop.is_due(self.run.config.runtime.stop_after_min)
        return agree_to_stop(is_due, self.runtime.device)


class PhaseRun:
    """The steps of one phase, with everything that happens between them."""

    def __init__(self, trainer: Trainer, start: PhaseStart, model: PhaseModel) -> None:
        self._trainer, self._start, self._model = trainer, start, model
        self._phase = start.phase
        self._config = start.phase.config
        self._guard = StepGuard(start)
        self._report = StepReport(trainer.run, self._phase, trainer.runtime, model.groups.names)
        self._saver = CheckpointSaver(
            trainer.out / self._config.name,
            self._config.checkpoint,
            hf_folder=trainer.run.base.hf_folder,
            run_yaml=trainer.run_yaml,
        )
        self._save_s: float | None = None

    def train(self) -> None:
        """Make the steps that are not made yet."""
        trainer, config, first_step = self._trainer, self._config, self._start.first_step
        if trainer.must_stop():
            raise PreemptedError(f"before step {first_step + 1} of {config.name}: nothing to save")
        with (
            self._metrics_writer() as metrics,
            trainer.shown(leaves_bar=True) as progress,
            profiled(
                trainer.run.config.logging.profile, trainer.out, config.name, trainer.ranks.rank
            ) as profiler,
        ):
            steps = StepProgress(
                progress, config.name, num_steps=self._phase.num_steps, first_step=first_step
            )
            self._make_up_validation(metrics)
            began_s, loss = time.monotonic(), None
            for step in range(first_step, self._phase.num_steps):
                row = self._step(step)
                loss = row.loss
                if self._is_validation_due(step + 1):
                    progress.note("validating")
                    row = self._validated(row)
                if metrics is not None:
                    metrics.write(row)
                steps.advance(row)
                profiler.after_step(step + 1)
                self._save_if_due(step + 1, metrics, progress)
        if trainer.is_writer:
            self._tell_end(loss, seconds=time.monotonic() - began_s)

    def _tell_end(self, loss: float | None, *, seconds: float) -> None:
        """Say what the phase has come to, and where its checkpoint is."""
        num_steps, first_step = self._phase.num_steps, self._start.first_step
        here = f", {num_steps - first_step} of them now" if first_step else ""
        shown = "not finite" if loss is None else f"{loss:.4f}"
        folder = iteration_folder(self._trainer.out / self._config.name, num_steps)
        sys.stderr.write(
            f"finished   {self._config.name}: {num_steps} steps{here} in "
            f"{readable_duration(seconds)}, loss {shown}; checkpoint {folder}\n"
        )

    def _step(self, step: int) -> StepMetrics:
        times = PartTimes(is_cuda=self._trainer.runtime.is_cuda)
        result = self._model.step(step, times)
        self._guard.count(step, result)
        row = self._report.line(
            step, self._model.learning_rate(step), result, times, self._guard.skipped_steps
        )
        target = self._guard.step_to_return_to(step, result)
        if target is not None:
            self._roll_back(target, step)
        return row.model_copy(update={"save_s": self._save_s, "rolled_back_to": target})

    def _roll_back(self, target: int, step: int) -> None:
        """Load the checkpoint of step `target` again; the training goes on after `step`."""
        self._saver.finish()
        folder = iteration_folder(self._trainer.out / self._config.name, target)
        saved = SavedCheckpoint(folder, read_checkpoint_state(folder))
        verify_origin(saved)
        self._model.load_again(saved)
        self._guard.roll_back(saved.state, step)

    def _save_if_due(
        self, num_done: int, metrics: MetricsWriter | None, progress: Progress
    ) -> None:
        must_stop = self._trainer.must_stop()
        is_last = num_done == self._phase.num_steps
        is_due = num_done % self._config.checkpoint.save_interval_steps == 0
        if not (is_last or is_due or must_stop):
            self._saver.poll()
            self._save_s = None
            return
        started = time.perf_counter()
        if metrics is not None:
            metrics.flush_to_disk()
        progress.note("saving")
        settle_weights(self._model.wrapped)
        self._save(num_done, wait=is_last or must_stop)
        self._save_s = time.perf_counter() - started
        if must_stop:
            raise PreemptedError(
                f"after step {num_done} of {self._config.name}, which is saved; "
                "the same command goes on with the next one"
            )

    def _save(self, num_done: int, *, wait: bool) -> None:
        model, is_last = self._model, num_done == self._phase.num_steps
        proves = is_last or self._config.checkpoint.prove
        is_needed = not is_last or self._trainer.run.is_carried_on(self._phase)
        optimizer = model.optimizer if is_needed else None
        if proves:
            prove_state(model.chunks, model.optimizer, self._trainer.ranks)
        main_weights: MainWeights = ()
        if self._trainer.runtime.has_fp8_weights:
            main_weights = main_weights_of_fp8(model.chunks, model.optimizer, self._trainer.ranks)
        self._saver.save(
            model.chunks,
            optimizer,
            self._state(num_done),
            wait=wait or proves,
            main_weights=main_weights,
        )
        if proves:
            root = self._trainer.out / self._config.name
            prove_saved(iteration_folder(root, num_done), model.chunks, optimizer)

    def _state(self, num_done: int) -> CheckpointState:
        """Return what a checkpoint after `num_done` steps records."""
        phase, config = self._phase, self._config
        return self._start.origin.state.model_copy(
            update={
                "iteration": num_done,
                "phase": config.name,
                "phase_complete": num_done == phase.num_steps,
                "consumed_packs": min(num_done * config.global_batch_size, phase.total_packs),
                **self._guard.memory(),
                "config_sha256": phase.config_sha256,
                "adapter": adapter_record(self._trainer.run.config.lora),
                "lineage": self._start.lineage,
                "versions": installed_versions(),
                "files": {},
            }
        )

    def _is_validation_due(self, num_done: int) -> bool:
        config = self._config.validation
        return config is not None and (
            num_done % config.interval_steps == 0 or num_done == self._phase.num_steps
        )

    def _validated(self, row: StepMetrics) -> StepMetrics:
        """Add the validation losses; without them when the run is told to stop meanwhile."""
        started = time.perf_counter()
        losses = self._validation_losses()
        if losses is None:
            return row
        seconds = time.perf_counter() - started
        return row.model_copy(update={"parts": {**row.parts, **losses}, "validation_s": seconds})

    def _validation_losses(self) -> dict[str, float] | None:
        settle_weights(self._model.wrapped)
        return validate(
            self._phase.held_out,
            self._model.wrapped,
            self._model.validation_loss,
            self._trainer.must_stop,
        )

    def _make_up_validation(self, metrics: MetricsWriter | None) -> None:
        """Validate first where the run was stopped in the midst of it."""
        if not (self._start.is_resumed and self._is_validation_due(self._start.first_step)):
            return
        is_missing = [metrics is not None and metrics.lacks_validation]
        torch.distributed.broadcast_object_list(is_missing, src=0)
        losses = self._validation_losses() if is_missing[0] else None
        if losses is not None and metrics is not None:
            metrics.add_to_last(losses)

    def _metrics_writer(self) -> "contextlib.AbstractContextManager[MetricsWriter | None]":
        """Return the metrics writer on rank 0, a context that yields None elsewhere."""
        trainer, name = self._trainer, self._config.name
        if not trainer.is_writer:
            return contextlib.nullcontext()
        run = trainer.run
        names = [phase.config.name for phase in run.phases]
        earlier = run.phases[: names.index(name)]
        first_step = self._start.first_step
        trackers = build_trackers(
            run.config.logging.wandb,
            trainer.out,
            phase=name,
            first_step=first_step,
            steps_before=sum(phase.num_steps for phase in earlier),
            settings=run.config.model_dump(mode="json"),
        )
        return MetricsWriter(trainer.out, phase=name, first_step=first_step, trackers=trackers)
