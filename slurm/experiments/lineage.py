"""What the arms of a grid go through, and how they are named after it."""

from collections.abc import Iterable
from dataclasses import dataclass

from slurm.experiments.grid import GridConfig

NEUTRAL = "neutral"
MIX = "instruction-mix"


@dataclass(frozen=True)
class Lineage:
    """What an arm goes through."""

    model: str
    spec: str | None = None
    aft: str | None = None
    seed: int | None = None
    variant: str = ""

    def name(self, *, show_seed: bool) -> str:
        """Return `MODEL+msm(SPEC)+aft(SET)[lr=...]#SEED`."""
        parts = [self.model]
        parts += [f"msm({self.spec})"] if self.spec else []
        parts += [f"aft({self.aft})"] if self.aft else []
        seed = f"#{self.seed}" if show_seed and self.seed is not None else ""
        return "+".join(parts) + self.variant + seed


def lineages(grid: GridConfig, variant: str) -> list[Lineage]:
    """Return the arms of a grid, controls included, without those that are excluded."""
    controls, found = grid.controls, []
    for model in grid.models:
        if controls.base:
            found.append(Lineage(model))
        for seed in grid.seeds:
            found += [Lineage(model, *pair, seed, variant) for pair in _pairs(grid)]
    kept = [lineage for lineage in found if not _is_excluded(lineage, grid)]
    return list(dict.fromkeys(kept))


def _pairs(grid: GridConfig) -> Iterable[tuple[str | None, str | None]]:
    """Yield (spec, AFT set) of every arm of one model and seed."""
    controls = grid.controls
    if controls.instruction_mix_only and grid.instruction_mix:
        yield None, MIX
    for aft in grid.aft:
        if controls.aft_only:
            yield None, aft
        if controls.neutral and grid.neutral:
            yield NEUTRAL, aft
    for spec in grid.specs:
        if controls.msm_only or not grid.aft:
            yield spec, None
        for aft in grid.aft:
            yield spec, aft


def _is_excluded(lineage: Lineage, grid: GridConfig) -> bool:
    return any(
        all(str(getattr(lineage, axis)) == str(value) for axis, value in entry.items())
        for entry in grid.exclude
    )
