"""The step loop: phases in order, each from the weights the one before ended with.

Rerunning the same command resumes: finished phases are skipped, an unfinished one continues from
its newest checkpoint. Midtraining and SFT are two configurations of this loop.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_msm.config.load import dump_config
from megatron_msm.data.batch import MicroBatch, micro_batches_of_step
from megatron_msm.data.order import PackOrder
from megatron_msm.errors import PreemptedError
from megatron_msm.formats.checkpoint_folder import RUN_FILE, CheckpointState
from megatron_msm.formats.files import write_text_atomic
from megatron_msm.models.build import build_model
from megatron_msm.models.context import ContextShare
from megatron_msm.models.lora import initialize_adapters
from megatron_msm.models.trainable import check_trainable
from megatron_msm.runtime.device import Runtime
from megatron_msm.runtime.process_groups import ParallelRanks
from megatron_msm.runtime.versions import installed_versions
from megatron_msm.train.adapter import adapter_record
from megatron_msm.train.checkpoint import load_checkpoint
from megatron_msm.train.metrics import MetricsWriter, StepMetrics
from megatron_msm.train.origin import verified_start
from megatron_msm.train.preflight import PhasePlan, RunPlan
from megatron_msm.train.progress import ProgressBar
from megatron_msm.train.replicas import check_replicas
from megatron_msm.train.resume import PhaseStart
from megatron_msm.train.saving import CheckpointSaver
from megatron_msm.train.schedule import learning_rate
from megatron_msm.train.step import StepResult, build_optimizer, train_step, wrap_data_parallel
from megatron_msm.train.stop import StopSignal, agree_to_stop


class Trainer:
    """Trains the phases of one run on this rank."""

    def __init__(
        self, plan: RunPlan, runtime: Runtime, ranks: ParallelRanks, stop: StopSignal
    ) -> None:
        self.plan = plan
        self._stop = stop
        self.runtime = runtime
        self.ranks = ranks
        self.is_writer = ranks.rank == 0
        self.out = plan.config.out
        self.run_yaml = dump_config(plan.config)

    def fit(self) -> None:
        """Train every phase that is not finished."""
        if self.is_writer:
            self.out.mkdir(parents=True, exist_ok=True)
            write_text_atomic(self.out / RUN_FILE, self.run_yaml)
        while (start := verified_start(self.plan)) is not None:
            self._train_phase(start)

    def _train_phase(self, start: PhaseStart) -> None:
        phase, first_step = start.phase, start.first_step
        config = phase.config
        run = self.plan.config
        chunks = build_model(
            self.plan.shape, run.parallel, self.runtime, self.ranks, run.lora, run.memory
        )
        main_weights = None if start.is_resumed else self._load_parent(start, chunks)
        check_trainable(chunks, self.plan.shape, run.lora, self.ranks)
        wrapped = wrap_data_parallel(chunks, self.runtime)
        optimizer = build_optimizer(
            wrapped, config.optimizer, self.runtime, offload=run.memory.optimizer_offload
        )
        if main_weights is not None:
            optimizer.reload_model_params(main_weights)
            del main_weights
        if start.is_resumed:
            load_checkpoint(start.origin.folder, chunks, optimizer)
        check_replicas(chunks, self.ranks)
        saver = CheckpointSaver(
            self.out / config.name,
            config.checkpoint,
            hf_folder=self.plan.hf_folder,
            run_yaml=self.run_yaml,
        )
        order = phase.order
        if agree_to_stop(self._stop, self.runtime.device):
            raise PreemptedError(f"before step {first_step + 1} of {config.name}: nothing to save")
        with (
            _metrics_writer(self.is_writer, self.out, config.name, first_step) as metrics,
            ProgressBar(config.name, phase.num_steps, first_step, shown=self.is_writer) as bar,
        ):
            for step in range(first_step, phase.num_steps):
                started = time.perf_counter()
                lr = learning_rate(
                    config.schedule,
                    peak=config.optimizer.lr,
                    step=step,
                    num_steps=phase.num_steps,
                    tokens_per_step=config.tokens_per_step,
                )
                result = train_step(
                    wrapped,
                    optimizer,
                    self._micro_batches(phase, order, step),
                    num_microbatches=self.plan.config.num_microbatches(config),
                    tokens_per_micro_batch=config.micro_batch_size * config.seq_length,
                    lr=lr,
                    ranks=self.ranks,
                )
                row = _metrics_row(phase, step, lr, result, time.perf_counter() - started)
                bar.advance(row)
                is_last = step + 1 == phase.num_steps
                if metrics is not None:
                    metrics.write(row)
                must_stop = agree_to_stop(self._stop, self.runtime.device)
                is_due = (step + 1) % config.checkpoint.save_interval_steps == 0
                if is_last or is_due or must_stop:
                    if metrics is not None:
                        metrics.flush_to_disk()
                    bar.note("saving")
                    saver.save(
                        chunks,
                        None if is_last else optimizer,
                        self._state(start, step + 1),
                        wait=is_last or must_stop,
                    )
                else:
                    saver.poll()
                if must_stop:
                    raise PreemptedError(
                        f"after step {step + 1} of {config.name}, which is saved; "
                        "the same command goes on with the next one"
                    )

    def _load_parent(self, start: PhaseStart, chunks: list[Any]) -> dict[str, Any] | None:
        """Load the weights that a phase starts from.

        Returns:
            The weights as they were read where the model keeps its own in FP8: the optimizer's main
            weights would start from rounded ones.
        """
        run, parent = self.plan.config, start.origin
        if run.lora is not None:
            for chunk in chunks:
                initialize_adapters(chunk, run.seed)
        has_adapters = parent.state.adapter is not None
        read = load_checkpoint(parent.folder, chunks, None, with_adapters=has_adapters)
        return read if self.runtime.has_fp8_weights else None

    def _micro_batches(self, phase: PhasePlan, order: PackOrder, step: int) -> Iterator[MicroBatch]:
        return micro_batches_of_step(
            phase.dataset,
            order,
            step=step,
            global_batch_size=phase.config.global_batch_size,
            micro_batch_size=phase.config.micro_batch_size,
            data_rank=self.ranks.data_rank,
            data_size=self.ranks.data_size,
            context=ContextShare(self.ranks.context_rank, self.ranks.context_size),
            device=self.runtime.device,
        )

    def _state(self, start: PhaseStart, num_done: int) -> CheckpointState:
        """Return what a checkpoint after `num_done` steps records."""
        phase = start.phase
        return start.origin.state.model_copy(
            update={
                "iteration": num_done,
                "phase": phase.config.name,
                "phase_complete": num_done == phase.num_steps,
                "consumed_packs": min(num_done * phase.config.global_batch_size, phase.total_packs),
                "config_sha256": phase.config_sha256,
                "adapter": adapter_record(self.plan.config.lora),
                "lineage": start.lineage,
                "versions": installed_versions(),
                "files": {},
            }
        )


def _metrics_writer(is_writer: bool, out: Path, phase: str, first_step: int) -> Any:
    """Return the metrics writer on rank 0, a context that yields None elsewhere."""
    if is_writer:
        return MetricsWriter(out, phase=phase, first_step=first_step)
    return contextlib.nullcontext()


def _metrics_row(
    phase: PhasePlan, step: int, lr: float, result: StepResult, seconds: float
) -> StepMetrics:
    processed = phase.config.tokens_per_step
    return StepMetrics(
        phase=phase.config.name,
        step=step + 1,
        loss=result.loss_nats,
        lr=lr,
        grad_norm=result.grad_norm,
        loss_tokens=result.num_loss_tokens,
        processed_tokens=processed,
        tokens_per_s=processed / seconds,
        step_s=seconds,
    )
