"""What a run on a known GPU is expected to need, by the formulas of `msm plan`. No torch."""

from megatron_msm.models.sizes.gpus import Gpu
from megatron_msm.plan.estimate import estimate_run
from megatron_msm.train.resolved_run import ResolvedRun


def expected_lines(run: ResolvedRun, gpu: Gpu) -> list[str]:
    """Return memory of the fullest rank, step times and the whole time, one line each."""
    estimate = estimate_run(
        run.config,
        run.shape,
        {phase.config.name: phase.num_steps for phase in run.phases},
        num_gpus=run.config.parallel.world_size,
        gpu=gpu,
    )
    own = estimate.own
    seconds = estimate.seconds
    assert own is not None, "the number of GPUs is its own layout's"
    assert seconds is not None, "the steps of every phase are known"
    steps = ", ".join(f"{name} {step.total_s:.2f} s a step" for name, step in own.steps.items())
    verdict = "" if own.fits else ", which does not fit"
    return [
        f"expected   {own.memory.total_bytes / 2**30:.1f} GiB on the fullest rank{verdict} "
        f"({gpu.name})",
        f"expected   {steps}; {seconds / 3600:.2f} hours in all",
    ]
