"""What a run will need on a number of GPUs: memory, layouts by time, GPU hours. No torch, no GPU.

Weights, gradients and optimizer state are counted; activations and times are estimates (see
activations.py and speed.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from megatron_msm.config.memory import MemoryConfig, RecomputeModule
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import ConfigError
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.batch_shape import BatchShape, batch_shape
from megatron_msm.models.sizes.gpus import Gpu, MatmulPrecision
from megatron_msm.models.sizes.layout import layout_overrides, legal_layouts
from megatron_msm.plan.memory import RESERVE_BYTES, MemoryModel, Precision, RankMemory
from megatron_msm.plan.saves import SaveEstimate, estimate_save
from megatron_msm.plan.speed import SpeedModel, StepTime

_OFFLOADED = (0.25, 0.5, 1.0)
"""Shares of the optimizer on the CPU that a plan tries where nothing else fits."""


def recompute_choices(shape: ModelShape, own: MemoryConfig) -> dict[str, MemoryConfig]:
    """Return the ways to recompute that a plan compares, by name; all else is as in `own`."""
    selections: tuple[tuple[RecomputeModule, ...], ...] = (("mlp",),)
    if shape.experts is not None:
        selections = (("layernorm",), ("layernorm", "moe"))
    return {
        "none": own.model_copy(update={"recompute": "none"}),
        **{
            f"selective: {', '.join(modules)}": own.model_copy(
                update={"recompute": "selective", "recompute_modules": modules}
            )
            for modules in selections
        },
        "full": own.model_copy(update={"recompute": "full"}),
    }


def _memory_choices(shape: ModelShape, own: MemoryConfig) -> Iterator[Sequence[MemoryConfig]]:
    """Yield settings to try, those that cost more time later: the next where none fits."""
    ways = [own, *recompute_choices(shape, own).values()]
    yield ways
    for share in _OFFLOADED:
        if share > own.optimizer_offload:
            yield [way.model_copy(update={"optimizer_offload": share}) for way in ways]


@dataclass(frozen=True)
class LayoutEstimate:
    """One layout: its fullest rank over all phases, and a step of each phase."""

    parallel: ParallelConfig
    settings: MemoryConfig
    """What it computes again and keeps on the CPU."""
    overrides: tuple[str, ...]
    """What turns the run file into one with this layout and these settings."""
    memory: RankMemory
    fits: bool
    steps: Mapping[str, StepTime]
    """By phase."""

    def seconds(self, num_steps: Mapping[str, int]) -> float:
        """Return the time of that many steps of each phase."""
        return sum(self.steps[name].total_s * steps for name, steps in num_steps.items())


@dataclass(frozen=True)
class RunEstimate:
    """What a run needs."""

    gpu: Gpu
    num_gpus: int
    own: LayoutEstimate | None
    """The run file's own layout and settings; None when it is for another number of GPUs."""
    layouts: Sequence[LayoutEstimate]
    """Legal layouts that fit, the fastest first, with the settings under which they do: of those
    that differ in these, chunks, uneven stages or sequence parallelism only, the fastest."""
    recompute: Mapping[str, float]
    """Activation bytes of the chosen layout for each way to recompute."""
    save: SaveEstimate | None
    """A checkpoint under the chosen layout."""
    num_steps: Mapping[str, int | None]
    """Optimizer steps of each phase; None where its datasets are not there to count."""
    tokens_per_step: Mapping[str, int]
    """Positions of an optimizer step."""

    @property
    def chosen(self) -> LayoutEstimate | None:
        """The run's own layout, else the fastest that fits."""
        return self.own or self.fastest

    @property
    def fastest(self) -> LayoutEstimate | None:
        """The fastest that fits."""
        return next(iter(self.layouts), None)

    @property
    def own_settings(self) -> LayoutEstimate | None:
        """The run's own split of the model with settings that make it fit."""
        if self.own is None:
            return None
        wanted = _split(self.own)
        return next((it for it in self.layouts if _split(it) == wanted), None)

    @property
    def seconds(self) -> float | None:
        """All phases under the chosen layout; None while a phase's steps are not known."""
        if self.chosen is None or None in self.num_steps.values():
            return None
        return self.chosen.seconds({name: steps or 0 for name, steps in self.num_steps.items()})

    @property
    def gpu_hours(self) -> float | None:
        """GPUs times hours."""
        return None if self.seconds is None else self.num_gpus * self.seconds / 3600


def estimate_run(
    config: RunConfig,
    shape: ModelShape,
    num_steps: Mapping[str, int | None],
    *,
    num_gpus: int,
    gpu: Gpu,
) -> RunEstimate:
    """Estimate a run on `num_gpus` GPUs of one kind.

    Args:
        config: The run; its own layout is estimated when it is for as many GPUs.
        shape: The model.
        num_steps: Optimizer steps of each phase, None where not known.
        num_gpus: Of the whole run.
        gpu: The kind.

    Raises:
        ConfigError: The GPU has no FP8, and the run asks for it.
    """
    planner = _Planner(config, shape, gpu)
    batches = [batch_shape(phase) for phase in config.phases]
    weights = {batch.name: num_steps[batch.name] or 1 for batch in batches}
    found = [
        layout
        for parallel in legal_layouts(shape, num_gpus, batches, config.runtime.fp8)
        for layout in planner.fitting(parallel, batches)
    ]
    fitting = _best_of_each_split(
        sorted(found, key=lambda it: (it.seconds(weights), it.memory.total_bytes))
    )
    is_own = config.parallel.world_size == num_gpus
    own = planner.layout(config.parallel, config.memory, batches) if is_own else None
    shown = own or next(iter(fitting), None)
    return RunEstimate(
        gpu=gpu,
        num_gpus=num_gpus,
        own=own,
        layouts=fitting,
        recompute=planner.recompute(shown.parallel, batches) if shown else {},
        save=planner.save(shown.parallel) if shown else None,
        num_steps=num_steps,
        tokens_per_step={b.name: b.global_batch_size * b.seq_length for b in batches},
    )


def _best_of_each_split(layouts: Sequence[LayoutEstimate]) -> list[LayoutEstimate]:
    """Keep the first of the layouts with the same sizes of tensor, pipeline, context and data."""
    best: dict[tuple[int, ...], LayoutEstimate] = {}
    for layout in layouts:
        best.setdefault(_split(layout), layout)
    return list(best.values())


def _split(layout: LayoutEstimate) -> tuple[int, ...]:
    it = layout.parallel
    return it.tensor, it.pipeline, it.context, it.data


@dataclass(frozen=True)
class _Planner:
    config: RunConfig
    shape: ModelShape
    gpu: Gpu

    @property
    def _precision(self) -> Precision:
        return Precision(2 if self.config.runtime.dtype == "bf16" else 4)

    @property
    def _matmul(self) -> MatmulPrecision:
        found: MatmulPrecision = "fp8" if self.config.runtime.fp8 else self.config.runtime.dtype
        if found not in self.gpu.peak_tflops:
            raise ConfigError(
                f"runtime.fp8: the {self.gpu.name} has no FP8. Leave the section out, or plan for "
                "h100, h200 or b200."
            )
        return found

    def _memory(self, memory: MemoryConfig) -> MemoryModel:
        return MemoryModel(self.shape, self.config.lora, memory, self._precision)

    def fitting(
        self, parallel: ParallelConfig, batches: Sequence[BatchShape]
    ) -> list[LayoutEstimate]:
        """Estimate one layout with each of the cheapest settings under which it fits."""
        for choices in _memory_choices(self.shape, self.config.memory):
            found = [self.layout(parallel, memory, batches) for memory in choices]
            if any(layout.fits for layout in found):
                return [layout for layout in found if layout.fits]
        return []

    def layout(
        self, parallel: ParallelConfig, memory: MemoryConfig, batches: Sequence[BatchShape]
    ) -> LayoutEstimate:
        """Estimate one layout with one choice of settings."""
        speed = self._speed(memory)
        ranks = [self._memory(memory).fullest_rank(parallel, batch) for batch in batches]
        fullest = max(ranks, key=lambda rank: rank.total_bytes)
        room = self.gpu.memory_gib * 2**30 - RESERVE_BYTES
        steps = {batch.name: speed.step_time(parallel, batch) for batch in batches}
        overrides = (
            *layout_overrides(parallel, self.config.parallel, batches),
            *memory.overrides_on(self.config.memory, "memory"),
        )
        fits = fullest.total_bytes <= room
        return LayoutEstimate(parallel, memory, overrides, fullest, fits, steps)

    def save(self, parallel: ParallelConfig) -> SaveEstimate:
        """Estimate a checkpoint."""
        return estimate_save(self.shape, parallel, self.config.lora, self._precision)

    def _speed(self, memory: MemoryConfig) -> SpeedModel:
        return SpeedModel(
            self.shape,
            self.config.lora,
            memory,
            self._precision,
            self._matmul,
            self.gpu,
        )

    def recompute(
        self, parallel: ParallelConfig, batches: Sequence[BatchShape]
    ) -> dict[str, float]:
        """Return the activations of the fullest rank for each way to recompute."""
        return {
            name: max(
                self._memory(memory).fullest_rank(parallel, b).activations_bytes for b in batches
            )
            for name, memory in recompute_choices(self.shape, self.config.memory).items()
        }
