"""The step loop: phases in order, each from the weights the one before ended with.

Rerunning the same command resumes: finished phases are skipped, an unfinished one continues from
its newest checkpoint. Midtraining and SFT are two configurations of this loop.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron.core.optimizer import MegatronOptimizer

from megatron_msm.config.load import dump_config
from megatron_msm.data.batch import MicroBatch, micro_batches_of_step
from megatron_msm.data.order import PackOrder
from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import CheckpointState, LineageEntry
from megatron_msm.formats.files import sha256_of_json, write_text_atomic
from megatron_msm.models.build import build_model
from megatron_msm.runtime.device import Runtime
from megatron_msm.runtime.process_groups import ParallelRanks
from megatron_msm.runtime.versions import installed_versions
from megatron_msm.train.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from megatron_msm.train.metrics import MetricsWriter, StepMetrics
from megatron_msm.train.preflight import PhasePlan, RunPlan
from megatron_msm.train.progress import ProgressBar
from megatron_msm.train.schedule import learning_rate
from megatron_msm.train.step import StepResult, build_optimizer, train_step, wrap_data_parallel

logger = logging.getLogger(__name__)


class Trainer:
    """Trains the phases of one run on this rank."""

    def __init__(self, plan: RunPlan, runtime: Runtime, ranks: ParallelRanks) -> None:
        self.plan = plan
        self.runtime = runtime
        self.ranks = ranks
        self.is_writer = ranks.rank == 0
        self.out = plan.config.out
        self.run_yaml = dump_config(plan.config)

    def fit(self) -> Path:
        """Train every phase that is not finished; return the last phase's checkpoint folder."""
        if self.is_writer:
            self.out.mkdir(parents=True, exist_ok=True)
            write_text_atomic(self.out / "msm_run.yaml", self.run_yaml)
        parent, parent_state = self.plan.base_folder, self.plan.base_state
        for phase in self.plan.phases:
            parent, parent_state = self._finish_phase(phase, parent, parent_state)
        return parent

    def _finish_phase(
        self, phase: PhasePlan, parent: Path, parent_state: CheckpointState
    ) -> tuple[Path, CheckpointState]:
        root = self.out / phase.config.name
        saved = newest_checkpoint(root)
        if saved is not None:
            _check_same_run(saved[1], saved[0], phase, parent_state)
        if saved is None or not saved[1].phase_complete:
            self._train_phase(phase, parent, parent_state, saved)
            saved = newest_checkpoint(root)
            assert saved is not None, "a phase ends with a checkpoint"
        else:
            logger.info("%s is finished already: %s", phase.config.name, saved[0])
        return saved

    def _train_phase(
        self,
        phase: PhasePlan,
        parent: Path,
        parent_state: CheckpointState,
        saved: tuple[Path, CheckpointState] | None,
    ) -> None:
        config = phase.config
        model = build_model(self.plan.shape, self.plan.config.parallel, self.runtime, self.ranks)
        first_step = 0
        if saved is None:
            load_checkpoint(parent, model, optimizer=None)
        wrapped = wrap_data_parallel(model, self.runtime, self.ranks)
        optimizer = build_optimizer(wrapped, config.optimizer, self.runtime)
        if saved is not None:
            load_checkpoint(saved[0], model, optimizer)
            first_step = saved[1].iteration
            logger.info("resuming %s after step %d", config.name, first_step)
        order = PackOrder(len(phase.dataset), total=phase.total_packs, seed=phase.seed)
        with (
            _metrics_writer(self.is_writer, self.out, config.name, first_step) as metrics,
            ProgressBar(config.name, phase.num_steps, first_step, shown=self.is_writer) as bar,
        ):
            for step in range(first_step, phase.num_steps):
                started = time.perf_counter()
                lr = learning_rate(
                    config.schedule, peak=config.optimizer.lr, step=step, num_steps=phase.num_steps
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
                if is_last or (step + 1) % config.checkpoint.save_interval_steps == 0:
                    if metrics is not None:
                        metrics.flush_to_disk()
                    bar.note("saving")
                    self._save(phase, step + 1, model, None if is_last else optimizer, parent_state)

    def _micro_batches(self, phase: PhasePlan, order: PackOrder, step: int) -> Iterator[MicroBatch]:
        return micro_batches_of_step(
            phase.dataset,
            order,
            step=step,
            global_batch_size=phase.config.global_batch_size,
            micro_batch_size=phase.config.micro_batch_size,
            data_rank=self.ranks.data_rank,
            data_size=self.ranks.data_size,
            device=self.runtime.device,
        )

    def _save(
        self,
        phase: PhasePlan,
        num_done: int,
        model: Any,
        optimizer: MegatronOptimizer | None,
        parent_state: CheckpointState,
    ) -> None:
        root = self.out / phase.config.name
        state = parent_state.model_copy(
            update={
                "iteration": num_done,
                "phase": phase.config.name,
                "phase_complete": num_done == phase.num_steps,
                "consumed_packs": min(num_done * phase.config.global_batch_size, phase.total_packs),
                "config_sha256": phase.config_sha256,
                "lineage": (*parent_state.lineage, _lineage_entry(phase, parent_state)),
                "versions": installed_versions(),
                "files": {},
            }
        )
        save_checkpoint(
            root,
            model,
            optimizer,
            state,
            hf_folder=self.plan.hf_folder,
            run_yaml=self.run_yaml,
        )
        if self.is_writer:
            remove_old_checkpoints(root, phase.config)


def _lineage_entry(phase: PhasePlan, parent_state: CheckpointState) -> LineageEntry:
    data = {
        str(prefix): manifest.sha256
        for prefix, manifest in zip(
            phase.config.data.prefixes, phase.dataset.manifests, strict=True
        )
    }
    return LineageEntry(
        stage=phase.config.name,
        identity=sha256_of_json([parent_state.identity, phase.config_sha256]),
        details={
            "parent": parent_state.identity,
            "config_sha256": phase.config_sha256,
            "data": data,
            "steps": phase.num_steps,
            "processed_tokens": phase.processed_tokens,
            "lr": phase.config.optimizer.lr,
            "seed": phase.seed,
        },
    )


def _check_same_run(
    state: CheckpointState, folder: Path, phase: PhasePlan, parent_state: CheckpointState
) -> None:
    """Refuse to continue a phase that was trained from other weights or with other settings."""
    expected = _lineage_entry(phase, parent_state)
    found = state.lineage[-1]
    if found.identity == expected.identity:
        return
    differing = [
        f"{key}: was {found.details.get(key)}, now {value}"
        for key, value in expected.details.items()
        if found.details.get(key) != value
    ]
    raise ConfigError(
        f"{folder}: was trained with another configuration, data or parent checkpoint "
        f"({'; '.join(differing)}). Restore the run file, or choose another `out` folder."
    )


def _metrics_writer(is_writer: bool, out: Path, phase: str, first_step: int) -> Any:
    """Return the metrics writer on rank 0, a context that yields None elsewhere."""
    if is_writer:
        return MetricsWriter(out, phase=phase, first_step=first_step)
    return contextlib.nullcontext()


def _metrics_row(
    phase: PhasePlan, step: int, lr: float, result: StepResult, seconds: float
) -> StepMetrics:
    processed = phase.config.global_batch_size * phase.config.seq_length
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
