"""One rank's model, optimizer and data of a phase: built, loaded, and run a step at a time."""

from collections.abc import Iterator

import torch
from megatron.core.optimizer import MegatronOptimizer

from megatron_msm.data.batch import MicroBatch, micro_batches_of_step
from megatron_msm.data.blend import Blend
from megatron_msm.data.loss_groups import LossGroups
from megatron_msm.errors import CheckpointError
from megatron_msm.models.build import build_model
from megatron_msm.models.layers.context import ContextShare
from megatron_msm.models.layers.freezing import freeze
from megatron_msm.models.layers.lora import initialize_adapters
from megatron_msm.models.sizes.freezing import frozen_keys
from megatron_msm.models.sizes.trainable import check_trainable
from megatron_msm.progress import SILENT, Progress
from megatron_msm.runtime.device import Runtime
from megatron_msm.runtime.process_groups import ParallelRanks
from megatron_msm.train.checkpoints.checkpoint import (
    chunk_name,
    load_checkpoint,
    sharded_state,
)
from megatron_msm.train.checkpoints.hf_loading import load_hf
from megatron_msm.train.checkpoints.replicas import check_replicas
from megatron_msm.train.checkpoints.resume import PhaseStart, SavedCheckpoint
from megatron_msm.train.resolved_run import ResolvedRun
from megatron_msm.train.steps.schedule import learning_rate
from megatron_msm.train.steps.step import (
    StepResult,
    build_optimizer,
    train_step,
    validation_loss,
    wrap_data_parallel,
)
from megatron_msm.train.steps.timing import PartTimes


class PhaseModel:
    """A phase's model on this rank, with the weights and optimizer state of `start`.

    Raises:
        CheckpointError: The checkpoint does not fit, or ranks that hold the same weights differ.
    """

    def __init__(
        self,
        run: ResolvedRun,
        start: PhaseStart,
        runtime: Runtime,
        ranks: ParallelRanks,
        progress: Progress = SILENT,
    ) -> None:
        self._run, self._phase = run, start.phase
        self._runtime, self._ranks = runtime, ranks
        config = run.config
        self.chunks = build_model(
            run.shape, config.parallel, runtime, ranks, config.lora, config.memory
        )
        main_weights = None if start.is_resumed else self._load_parent(start, progress)
        self._freeze()
        check_trainable(self.chunks, run.shape, config.lora, ranks)
        self.wrapped = wrap_data_parallel(self.chunks, runtime)
        self.optimizer: MegatronOptimizer = build_optimizer(
            self.wrapped,
            self._phase.config.optimizer,
            runtime,
            offload=config.memory.optimizer_offload,
        )
        if main_weights is not None:
            self.optimizer.reload_model_params(main_weights)
            del main_weights
        if start.is_resumed:
            with progress.waiting(f"loading weights and optimizer from {start.origin.folder}"):
                load_checkpoint(start.origin.folder, self.chunks, self.optimizer)
        elif self._phase.config.optimizer_state == "carry":
            self._carry_on(start.origin)
        check_replicas(self.chunks, ranks)
        self.groups = LossGroups(self._phase.dataset, config.logging.loss_by)

    def _freeze(self) -> None:
        """Leave the named weights as they are."""
        keys = frozen_keys(self._run.shape, self._run.config.freeze)
        if keys:
            states = sharded_state(self.chunks, None, is_loading=False)
            for index, chunk in enumerate(self.chunks):
                freeze(chunk, states[chunk_name(index)], keys)

    def _carry_on(self, parent: SavedCheckpoint) -> None:
        """Take over the optimizer state that the phase before ended with."""
        try:
            load_checkpoint(parent.folder, self.chunks, self.optimizer)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error} Phase {self._phase.config.name} asks for optimizer_state: carry, and the "
                "last checkpoint of a phase has such a state only if the run file asked for it "
                "when that phase ended. Use optimizer_state: fresh, or train that phase again."
            ) from error
        settings = self._phase.config.optimizer
        for group in self.optimizer.param_groups:  # those of the phase before came with its state
            group["betas"], group["eps"] = (settings.beta1, settings.beta2), settings.eps

    def load_again(self, saved: SavedCheckpoint) -> None:
        """Put back weights and optimizer state of one of the phase's checkpoints."""
        load_checkpoint(saved.folder, self.chunks, self.optimizer)
        check_replicas(self.chunks, self._ranks)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        config = self._phase.config
        return learning_rate(
            config.schedule,
            peak=config.optimizer.lr,
            step=step,
            num_steps=self._phase.num_steps,
            tokens_per_step=config.tokens_per_step,
        )

    def step(self, step: int, times: PartTimes) -> StepResult:
        """Make optimizer step `step`, counted from 0."""
        groups = self.groups if self.groups.names else None
        return train_step(
            self.wrapped,
            self.optimizer,
            times.timed(self._micro_batches(self._phase.blend, step, groups)),
            num_micro_batches=self._run.config.num_micro_batches(self._phase.config),
            tokens_per_micro_batch=self._tokens_per_micro_batch,
            lr=self.learning_rate(step),
            ranks=self._ranks,
            num_groups=len(self.groups.names),
            times=times,
        )

    def validation_loss(self, blend: Blend, step: int) -> tuple[float, float]:
        """Return the sum of the losses of one global batch of `blend`, and their number."""
        return validation_loss(
            self.wrapped,
            self._micro_batches(blend, step),
            num_micro_batches=self._run.config.num_micro_batches(self._phase.config),
            tokens_per_micro_batch=self._tokens_per_micro_batch,
            ranks=self._ranks,
        )

    @property
    def _tokens_per_micro_batch(self) -> int:
        return self._phase.config.micro_batch_size * self._phase.config.seq_length

    def _load_parent(
        self, start: PhaseStart, progress: Progress
    ) -> dict[str, dict[str, torch.Tensor]] | None:
        """Load the weights that a phase starts from.

        Returns:
            The weights as they were read where the model keeps its own in FP8: the optimizer's main
            weights would start from rounded ones.
        """
        config, parent = self._run.config, start.origin
        if config.lora is not None:
            for chunk in self.chunks:
                initialize_adapters(chunk, config.seed)
        if config.model.hf is not None and parent.folder == self._run.base.folder:
            read = load_hf(
                config.model.hf,
                self.chunks,
                keep=self._runtime.has_fp8_weights,
                progress=progress,
            )
        else:
            has_adapters = parent.state.adapter is not None
            with progress.waiting(f"loading weights from {parent.folder}"):
                read = load_checkpoint(parent.folder, self.chunks, None, with_adapters=has_adapters)
        return read if self._runtime.has_fp8_weights else None

    def _micro_batches(
        self, blend: Blend, step: int, groups: LossGroups | None = None
    ) -> Iterator[MicroBatch]:
        config, ranks = self._phase.config, self._ranks
        return micro_batches_of_step(
            blend.dataset,
            blend.order,
            step=step,
            global_batch_size=config.global_batch_size,
            micro_batch_size=config.micro_batch_size,
            data_rank=ranks.data_rank,
            data_size=ranks.data_size,
            context=ContextShare(ranks.context_rank, ranks.context_size),
            device=self._runtime.device,
            groups=groups,
        )
