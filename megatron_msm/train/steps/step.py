"""One optimizer step: micro batches through the pipeline, gradients together, weights updated.

Loss: the sum of the unmasked tokens' cross entropy over the global batch, divided by their number.
megatron-core does the division after all micro batches and data parallel ranks are in
(`calculate_per_token_loss`, distributed/finalize_model_grads.py), so the result does not depend on
how the batch is cut.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_msm.config.optimization import OptimizerConfig
from megatron_msm.data.batch import MicroBatch
from megatron_msm.runtime.device import Runtime
from megatron_msm.runtime.fp8 import megatron_precision
from megatron_msm.runtime.optimizer_state import begin_state
from megatron_msm.runtime.process_groups import ParallelRanks
from megatron_msm.train.steps.offload import offload_settings
from megatron_msm.train.steps.timing import PartTimes


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step showed; the same on every rank."""

    loss_nats: float
    """Mean cross entropy of the global batch's unmasked tokens."""
    num_loss_tokens: int
    """Unmasked tokens of the global batch."""
    grad_norm: float
    """Global gradient norm before clipping."""
    group_losses: tuple[float | None, ...] = ()
    """Mean cross entropy of each group's unmasked tokens; None where a group has none."""

    @property
    def is_finite(self) -> bool:
        """False when the step was skipped: no weight and no optimizer state has changed."""
        return math.isfinite(self.loss_nats) and math.isfinite(self.grad_norm)


def masked_loss(
    losses_1T: torch.Tensor, loss_mask_1T: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum the losses that count.

    A masked loss is left out, not multiplied by zero: a NaN at a padded position must not spread.

    Returns:
        The sum (float32 scalar), the number of tokens (int32 scalar), and both as a float64 [2]
        for reporting.
    """
    loss = torch.where(loss_mask_1T, losses_1T.float(), 0.0).sum()
    num_tokens = loss_mask_1T.sum().to(torch.int32)
    report = torch.stack([loss.detach().double(), num_tokens.double()])
    return loss, num_tokens, report


def forward_step(
    micro_batches: Iterator[MicroBatch], model: torch.nn.Module
) -> tuple[torch.Tensor, Callable[[torch.Tensor], tuple[torch.Tensor, ...]]]:
    """Run one micro batch through this rank's stage, in megatron-core's schedule interface."""
    batch = next(micro_batches)
    output = model(
        batch.tokens_1T,
        batch.position_ids_1T,
        None,
        labels=batch.labels_1T,
        loss_mask=batch.loss_mask_1T,
        packed_seq_params=batch.packed_seq_params,
    )
    return output, lambda losses_1T: _loss_and_report(losses_1T, batch)


def _loss_and_report(
    losses_1T: torch.Tensor, batch: MicroBatch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    loss, num_tokens, report = masked_loss(losses_1T, batch.loss_mask_1T)
    if batch.groups is None:
        return loss, num_tokens, report
    return loss, num_tokens, torch.cat([report, group_sums(losses_1T.detach(), batch)])


def group_sums(losses_1T: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    """Return float64 [2G]: the sum of the losses that count in each group, and their numbers."""
    assert batch.groups is not None, "asked for the groups of a batch without"
    counted_T = torch.where(batch.loss_mask_1T, losses_1T.double(), 0.0)[0]
    is_counted_T = batch.loss_mask_1T[0].double()
    sums = torch.zeros(2, batch.groups.num_groups, dtype=torch.float64, device=losses_1T.device)
    for ids_T in batch.groups.ids_FT:
        sums[0].index_add_(0, ids_T, counted_T)
        sums[1].index_add_(0, ids_T, is_counted_T)
    return sums.view(-1)


Function = TypeVar("Function")


def wrap_data_parallel(
    chunks: Sequence[GPTModel], runtime: Runtime
) -> list[DistributedDataParallel]:
    """Put a rank's model chunks behind megatron-core's gradient buffers (fp32, sharded optimizer).

    On a GPU gradients are reduced while the backward pass runs, and weights gathered while the
    forward pass does. The buffers of later chunks stay whole: their traffic is not waited for.
    """
    config = chunks[0].config
    wrapped = [
        DistributedDataParallel(
            config=config,
            ddp_config=DistributedDataParallelConfig(
                grad_reduce_in_fp32=True,
                use_distributed_optimizer=True,
                overlap_grad_reduce=runtime.is_cuda,
                overlap_param_gather=runtime.is_cuda,
                **megatron_precision(runtime.fp8).data_parallel,
            ),
            module=chunk,
            disable_bucketing=index > 0,
        )
        for index, chunk in enumerate(chunks)
    ]
    config.finalize_model_grads_func = finalize_model_grads
    if runtime.is_cuda:
        # One function, or a list for the interleaved schedule (schedules.py:941).
        config.no_sync_func = _only([chunk.no_sync for chunk in wrapped])
        config.grad_sync_func = _only([chunk.start_grad_sync for chunk in wrapped])
        config.param_sync_func = _only([chunk.start_param_sync for chunk in wrapped])
    return wrapped


def _only(functions: list[Function]) -> Function | list[Function]:
    return functions[0] if len(functions) == 1 else functions


def build_optimizer(
    chunks: Sequence[DistributedDataParallel],
    config: OptimizerConfig,
    runtime: Runtime,
    *,
    offload: float = 0.0,
) -> MegatronOptimizer:
    """Build megatron-core's distributed optimizer over the model's current weights.

    Args:
        chunks: Wrapped, weights loaded.
        config: The phase's AdamW settings.
        runtime: Device and dtype.
        offload: Share of state and update on the CPU.
    """
    is_bf16 = runtime.params_dtype is torch.bfloat16
    clip = config.clip_grad_norm if config.clip_grad_norm is not None else float("inf")
    optimizer = get_megatron_optimizer(
        MegatronOptimizerConfig(
            optimizer="adam",
            lr=config.lr,
            min_lr=0.0,
            weight_decay=config.weight_decay,
            adam_beta1=config.beta1,
            adam_beta2=config.beta2,
            adam_eps=config.eps,
            clip_grad=clip,
            bf16=is_bf16,
            params_dtype=runtime.params_dtype,
            use_distributed_optimizer=True,
            overlap_param_gather=runtime.is_cuda,
            **megatron_precision(runtime.fp8).optimizer,
            **offload_settings(offload, runtime),
        ),
        list(chunks),
        use_gloo_process_groups=False,
    )
    begin_state(optimizer)
    return optimizer


def train_step(
    chunks: Sequence[DistributedDataParallel],
    optimizer: MegatronOptimizer,
    micro_batches: Iterator[MicroBatch],
    *,
    num_micro_batches: int,
    tokens_per_micro_batch: int,
    lr: float,
    ranks: ParallelRanks,
    num_groups: int = 0,
    times: PartTimes | None = None,
) -> StepResult:
    """Make one optimizer step and return its global loss.

    A loss or gradient norm that is not finite changes nothing: all ranks skip the update.
    """
    for chunk in chunks:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    reports = _run_schedule(
        chunks,
        micro_batches,
        num_micro_batches=num_micro_batches,
        tokens_per_micro_batch=tokens_per_micro_batch,
        forward_only=False,
    )
    # The host waits for the device here, to know that the loss is finite before the update:
    # until the last backward pass is done, with no kernel of the update queued behind it.
    loss_sum, num_tokens, *groups = _sum_over_ranks(reports, ranks, 2 + 2 * num_groups)
    if times is not None:
        times.end("forward_backward")
    loss = loss_sum / max(num_tokens, 1)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]
        group["weight_decay"] = optimizer.config.weight_decay * group["wd_mult"]
    grad_norm = _update(optimizer) if math.isfinite(loss) else math.nan
    if times is not None:
        times.end("optimizer")
    sums, counts = groups[:num_groups], groups[num_groups:]
    means = [a / n if n else None for a, n in zip(sums, counts, strict=True)]
    return StepResult(loss, int(num_tokens), grad_norm, tuple(means))


def _update(optimizer: MegatronOptimizer) -> float:
    """Clip and update unless the gradient norm is not finite; return the norm before clipping.

    The same calls as in `ChainedOptimizer.step` (megatron-core 0.16.1, optimizer.py:1308), which
    looks at the gradients only under fp16.
    """
    optimizer.prepare_grads()
    # The host waits here too: whether to update at all depends on the norm. The device has nothing
    # queued until the update is launched.
    grad_norm = float(optimizer.get_grad_norm())
    if not math.isfinite(grad_norm):
        return grad_norm
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        parameters = [] if part.is_stub_optimizer else part.get_parameters()
        if parameters and part.config.clip_grad > 0.0:
            clip_grad_by_total_norm_fp32(
                parameters,
                max_norm=part.config.clip_grad,
                total_norm=grad_norm,
                use_decoupled_grad=part.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8,
            )
    optimizer.step_with_ready_grads()
    return grad_norm


def settle_weights(chunks: Sequence[DistributedDataParallel]) -> None:
    """Gather the weights that the last step changed, where the next forward pass would do it.

    Needed before anything else reads them, such as a save.
    """
    # Not by `start_param_sync(force_sync=True)`: before megatron-core 0.19 it leaves the transposes
    # of FP8 weights as they were, and the next backward pass reads those.
    for chunk in chunks:
        if chunk.ddp_config.overlap_param_gather:
            for group in (*chunk.bucket_groups, *chunk.expert_parallel_bucket_groups):
                group.finish_param_sync(skip_next_bucket_dispatch=True)


@torch.no_grad()
def validation_loss(
    chunks: Sequence[DistributedDataParallel],
    micro_batches: Iterator[MicroBatch],
    *,
    num_micro_batches: int,
    tokens_per_micro_batch: int,
    ranks: ParallelRanks,
) -> tuple[float, float]:
    """Return the sum of a global batch's unmasked losses in nats, and their number."""
    reports = _run_schedule(
        chunks,
        micro_batches,
        num_micro_batches=num_micro_batches,
        tokens_per_micro_batch=tokens_per_micro_batch,
        forward_only=True,
    )
    loss_sum, num_tokens = _sum_over_ranks(reports, ranks, 2)
    return loss_sum, num_tokens


def _run_schedule(
    chunks: Sequence[DistributedDataParallel],
    micro_batches: Iterator[MicroBatch],
    *,
    num_micro_batches: int,
    tokens_per_micro_batch: int,
    forward_only: bool,
) -> list[torch.Tensor]:
    reports: list[torch.Tensor] = get_forward_backward_func()(
        forward_step_func=forward_step,
        # Each chunk reads every micro batch: all need the document boundaries.
        data_iterator=list(itertools.tee(micro_batches, len(chunks))),
        model=list(chunks),
        num_microbatches=num_micro_batches,
        # The packed format is one long row, whatever the micro batch size.
        seq_length=tokens_per_micro_batch,
        micro_batch_size=1,
        forward_only=forward_only,
    )
    return reports


def _sum_over_ranks(reports: list[torch.Tensor], ranks: ParallelRanks, size: int) -> list[float]:
    """Add up the reports of all micro batches; only one rank of each model copy has them."""
    total = torch.zeros(size, dtype=torch.float64, device=torch.cuda.current_device())
    if ranks.is_last_stage and ranks.groups.tp.rank() == 0:
        total += torch.stack(reports).sum(dim=0)
    torch.distributed.all_reduce(total)
    found: list[float] = total.tolist()
    return found
