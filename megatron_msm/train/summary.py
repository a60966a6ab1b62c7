"""The start-up summary: what a resolved run will do, in lines. No torch."""

import sys
from pathlib import Path

from megatron_msm.config.run import RunConfig
from megatron_msm.data.accounting import account
from megatron_msm.models.sizes.adapter_sizes import num_adapter_parameters
from megatron_msm.models.sizes.freezing import frozen_keys
from megatron_msm.plan.weights import weights_of_rank
from megatron_msm.train.checkpoints.resume import PhaseStart
from megatron_msm.train.resolved_run import ResolvedPhase, ResolvedRun

# Stages of a few dozen steps looked trained and were not.
FEW_STEPS = 100


def tell(run: ResolvedRun, start: PhaseStart | None) -> None:
    """Write what the run will do, and where it goes on, to stdout.

    Args:
        run: The run.
        start: The phase that is next; None when all are finished.
    """
    for line in (*describe(run), _whereabouts(run, start)):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def not_checked(config: RunConfig) -> list[str]:
    """Return what only the machine of the ranks can tell, where this one has no GPU."""
    runtime = config.runtime
    wanted = [
        f"runtime.{name}"
        for name, is_wanted in (
            ("device=cuda", runtime.device == "cuda"),
            ("fp8", runtime.fp8 is not None),
        )
        if is_wanted
    ]
    if not wanted or any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    return [
        f"note       {' and '.join(wanted)}: not checked, this machine has no GPU. `msm doctor` "
        "says it on the one that has."
    ]


def _whereabouts(run: ResolvedRun, start: PhaseStart | None) -> str:
    if start is None:
        return f"finished   {run.config.out / run.config.phases[-1].name}: nothing left to train"
    if not start.is_resumed:
        return f"starting   {start.phase.config.name}"
    return f"resuming   {start.phase.config.name} after step {start.first_step}"


def describe(run: ResolvedRun) -> list[str]:
    """Return the start-up summary, one line each."""
    lines = [
        f"model      {run.shape.model_type}, {run.shape.num_layers} layers, hidden "
        f"{run.shape.hidden_size}, from {run.config.model.hf or run.base.folder}",
        f"layout     {run.config.parallel.summary}, {run.config.runtime.precision}",
        f"weights    {_weights_of_ranks(run)} on each rank",
    ]
    if run.config.lora is not None:
        lora, trainable = run.config.lora, num_adapter_parameters(run.shape, run.config.lora)
        lines.append(
            f"lora       rank {lora.rank}, scale {lora.record.scale:g}, {', '.join(lora.targets)}: "
            f"{trainable:,} trainable parameters beside {run.shape.num_parameters:,} frozen ones"
        )
    if run.config.freeze:
        frozen = frozen_keys(run.shape, run.config.freeze)
        lines.append(f"frozen     {', '.join(run.config.freeze)}: {len(frozen)} weights")
    for phase in run.phases:
        lines += _describe_phase(phase, run.config.num_micro_batches(phase.config))
    return lines


def _weights_of_ranks(run: ResolvedRun) -> str:
    parallel = run.config.parallel
    counts = {
        weights_of_rank(run.shape, parallel, run.config.lora, rank).total
        for rank in range(parallel.pipeline)
    }
    lowest, highest = min(counts), max(counts)
    return f"{highest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"


def _describe_phase(phase: ResolvedPhase, num_micro_batches: int) -> list[str]:
    config, accounts = phase.config, account(phase.blend)
    lines = [
        f"{config.name:<10} {phase.num_steps} steps of {config.global_batch_size} x "
        f"{config.seq_length} = {config.tokens_per_step:,} positions ({num_micro_batches} micro "
        f"batches on each rank): {phase.processed_tokens:,} processed tokens, "
        f"{sum(a.loss_tokens for a in accounts):,} with loss"
    ]
    for source, drawn in zip(phase.dataset.sources, accounts, strict=True):
        loss = "loss" if source.masks is None else "assistant (loss)"
        plan = source.packing_index
        padding = f", {plan.align_cost:.1%} spent on alignment" if plan.align > 1 else ""
        lines.append(
            f"  {drawn.prefix}: {drawn.rows:,} rows ({drawn.epochs:.2f} epochs), "
            f"{drawn.loss_tokens:,} {loss} of {drawn.rendered_tokens:,} rendered tokens, "
            f"{drawn.processed_tokens:,} processed in {drawn.packs:,} packed sequences "
            f"({plan.fill:.1%} full{padding})"
        )
        if drawn.packs == 0:
            lines.append(
                f"warning    {drawn.prefix} is not drawn from at all: its share is less than one "
                "packed sequence. Raise its weight, or the duration."
            )
    lines += [
        f"  {data.prefix}: held out, {data.num_batches} batches every "
        f"{config.validation.interval_steps} steps"
        for data in phase.held_out
        if config.validation is not None
    ]
    empty = config.global_batch_size - phase.total_packs
    if empty > 0:
        lines.append(
            f"warning    {config.name}: global_batch_size {config.global_batch_size:,} is more "
            f"than the {phase.total_packs:,} packed sequences of the whole phase, so {empty:,} of "
            "its only step are empty and cost time. Lower global_batch_size."
        )
    if phase.num_steps < FEW_STEPS:
        lines.append(
            f"warning    {config.name} has only {phase.num_steps} optimizer steps; under "
            f"{FEW_STEPS} a stage often changes little. Lower global_batch_size or add epochs."
        )
    return lines
