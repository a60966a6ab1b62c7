"""A run's estimate as text and as data."""

import shlex
from collections.abc import Iterator

from megatron_msm.formats.json_types import JsonRow
from megatron_msm.plan.estimate import LayoutEstimate, RunEstimate
from megatron_msm.plan.memory import RankMemory
from megatron_msm.plan.saves import HASH_GB_PER_S, WRITE_GB_PER_S, SaveEstimate

_GIB = 2**30
_NOTHING_FITS = (
    "No legal layout fits, whatever is computed again or kept on the CPU. Use more GPUs, a smaller "
    "micro_batch_size, or `lora`."
)
_PARTS = ("weights", "gradients", "optimizer", "activations", "logits")


def as_text(estimate: RunEstimate, *, num_layouts: int) -> Iterator[str]:
    """Yield the lines that a user reads."""
    yield (
        f"{estimate.num_gpus} x {estimate.gpu.name}, {estimate.gpu.memory_gib:.0f} GiB each. "
        "Weights, gradients and optimizer are counted; activations and times are estimates."
    )
    chosen = estimate.chosen
    if chosen is None:
        yield _NOTHING_FITS
        return
    whose = "the run file's layout" if estimate.own else "the fastest layout that fits"
    yield f"\n{whose}: {chosen.parallel.summary}"
    if estimate.own is None:
        yield f"  with {shlex.join(chosen.overrides)}"
    yield from _memory_lines(estimate, chosen)
    yield from _save_lines(estimate)
    yield from _time_lines(estimate, chosen)
    if not chosen.fits:
        yield _remedy(estimate)
    yield (
        f"\nlegal layouts that fit, fastest first ({len(estimate.layouts)} in all), "
        "with what to add to the command:"
    )
    for layout in estimate.layouts[:num_layouts]:
        seconds = ", ".join(f"{name} {step.total_s:.2f} s" for name, step in layout.steps.items())
        gib = layout.memory.total_bytes / _GIB
        words = shlex.join(layout.overrides) or "(as in the run file)"
        yield f"  {gib:5.1f} GiB  {seconds}  {words}"


def _remedy(estimate: RunEstimate) -> str:
    """Say with what a run fits whose own layout and settings do not."""
    found = estimate.own_settings or estimate.fastest
    if found is None:
        return f"  {_NOTHING_FITS}"
    gib = found.memory.total_bytes / _GIB
    return f"  it fits in {gib:.1f} GiB with {shlex.join(found.overrides)}"


def _memory_lines(estimate: RunEstimate, chosen: LayoutEstimate) -> Iterator[str]:
    memory = chosen.memory
    verdict = "fits" if chosen.fits else "DOES NOT FIT"
    parts = ", ".join(f"{name} {getattr(memory, f'{name}_bytes') / _GIB:.1f}" for name in _PARTS)
    yield (
        f"  memory of the fullest rank (pipeline rank {memory.pipeline_rank}): "
        f"{memory.total_bytes / _GIB:.1f} GiB: {parts}; {verdict} with 3 GiB kept free"
    )
    choices = "; ".join(f"{name} {b / _GIB:.1f}" for name, b in estimate.recompute.items())
    yield f"  activations by recompute setting, GiB: {choices}"


def _save_lines(estimate: RunEstimate) -> Iterator[str]:
    save = estimate.save
    if save is None:
        return
    yield (
        f"  a checkpoint: {save.size_bytes / _GIB:.1f} GiB; saving takes "
        f"{save.rank_bytes / _GIB:.1f} GiB of host memory a rank, {save.node_bytes / _GIB:.1f} "
        f"a node, and {save.seconds:.0f} s if a rank writes {WRITE_GB_PER_S:g} GB/s and hashes "
        f"{HASH_GB_PER_S:g}"
    )


def _time_lines(estimate: RunEstimate, chosen: LayoutEstimate) -> Iterator[str]:
    for name, step in chosen.steps.items():
        steps = estimate.num_steps[name]
        rate = estimate.tokens_per_step[name] / step.total_s / estimate.num_gpus
        length = (
            "steps not known, its datasets are not there" if steps is None else f"{steps} steps"
        )
        yield f"  {name}: {step.total_s:.2f} s a step, {rate:,.0f} tokens/s and GPU, {length}"
    if estimate.seconds is not None:
        yield f"  in all {estimate.seconds / 3600:.2f} hours, {estimate.gpu_hours:.1f} GPU hours"


def as_data(estimate: RunEstimate) -> JsonRow:
    """Return the estimate for `--json`; memory in bytes, times in seconds."""
    return {
        "gpu": estimate.gpu.name,
        "num_gpus": estimate.num_gpus,
        "chosen": None if estimate.chosen is None else _layout(estimate.chosen),
        "is_own_layout": estimate.own is not None,
        "activations_by_recompute": dict(estimate.recompute),
        "save": None if estimate.save is None else _save(estimate.save),
        "num_steps": dict(estimate.num_steps),
        "tokens_per_step": dict(estimate.tokens_per_step),
        "seconds": estimate.seconds,
        "gpu_hours": estimate.gpu_hours,
        "layouts": [_layout(layout) for layout in estimate.layouts],
    }


def _layout(layout: LayoutEstimate) -> JsonRow:
    return {
        "parallel": layout.parallel.model_dump(mode="json"),
        "memory_settings": layout.settings.model_dump(mode="json"),
        "overrides": list(layout.overrides),
        "fits": layout.fits,
        "memory": _memory(layout.memory),
        "step_seconds": {
            name: {part.removesuffix("_s"): value for part, value in vars(step).items()}
            | {"total": step.total_s}
            for name, step in layout.steps.items()
        },
    }


def _memory(memory: RankMemory) -> dict[str, float]:
    return {part.removesuffix("_bytes"): value for part, value in vars(memory).items()} | {
        "total": memory.total_bytes
    }


def _save(save: SaveEstimate) -> dict[str, float]:
    return {
        "size": save.size_bytes,
        "host_of_rank": save.rank_bytes,
        "host_of_node": save.node_bytes,
        "seconds": save.seconds,
    }
