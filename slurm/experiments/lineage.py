"""What the arms of a grid go through, and how they are named after it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from slurm.experiments.grid import MIX, NEUTRAL, GridConfig

# Fields of a grid by the part of training that they change.
_OF_NONE = ("evaluations", "contrasts", "title", "resources", "health")
_OF_MIDTRAINING = (
    *("midtrain", "specs", "neutral", "replay", "dose.documents", "prep.docs", "shards"),
)
_OF_AFT = ("sft", "aft", "instruction_mix", "dose.chats", "prep.chats")


@dataclass(frozen=True)
class Lineage:
    """What an arm goes through."""

    model: str
    spec: str | None = None
    aft: str | None = None
    seed: int | None = None
    varied: tuple[tuple[str, str], ...] = ()
    """Each varied field with `[lr=0.1]`."""
    later: tuple[str, ...] = ()
    """Phases after AFT, first to last."""

    @property
    def variant(self) -> str:
        """`[lr=0.1][steps=3]`."""
        return "".join(shown for _, shown in self.varied)

    def name(self, *, show_seed: bool) -> str:
        """Return `MODEL+msm(SPEC)+aft(SET)+then(PHASE)[lr=...]#SEED`."""
        parts = [self.model]
        parts += [f"msm({self.spec})"] if self.spec else []
        parts += [f"aft({self.aft})"] if self.aft else []
        parts += [f"then({name})" for name in self.later]
        seed = f"#{self.seed}" if show_seed and self.seed is not None else ""
        return "+".join(parts) + self.variant + seed

    def until(self, phase: str) -> "Lineage":
        """Return what the model has gone through when a phase of training ends.

        Values that change nothing in it are no part of that: arms that differ in them share it.
        """
        others = [*_OF_NONE, *(() if self.spec else _OF_MIDTRAINING)]
        others += [*_OF_AFT, "later"] if phase == "midtrain" else []
        others += ["later"] if phase == "sft" else []
        varied = tuple(
            (path, shown)
            for path, shown in self.varied
            if not any(f"{path}.".startswith(f"{field}.") for field in others)
        )
        return replace(self._up_to(phase), varied=varied)

    def _up_to(self, phase: str) -> "Lineage":
        if phase == "midtrain":
            return replace(self, aft=None, later=())
        return replace(
            self, later=self.later[: self.later.index(phase) + 1] if phase != "sft" else ()
        )

    def parts(self) -> list[str]:
        """Return model, spec, AFT set, later phases, varied values and seed, each by itself."""
        varied = [shown.strip("[]") for _, shown in self.varied]
        named = [part for part in (self.spec, self.aft, *self.later) if part]
        return [self.model, *named, *varied, f"seed {self.seed}"]


def without_seed(arm: str) -> str:
    """Return an arm's name without its seed."""
    return arm.partition("#")[0]


def lineages(grid: GridConfig, varied: tuple[tuple[str, str], ...] = ()) -> list[Lineage]:
    """Return the arms of a grid, controls included, without those that are excluded."""
    found = []
    for model in grid.models:
        if grid.controls.base:
            found.append(Lineage(model))
        for seed in grid.seeds:
            for spec, aft in _pairs(grid):
                arm = Lineage(model, spec, aft, seed, varied)
                found += [arm, *(_later(arm, grid) if aft is not None else ())]
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


def _later(arm: Lineage, grid: GridConfig) -> list[Lineage]:
    """Return an arm after each of the phases that follow AFT."""
    names = tuple(phase.name for phase in grid.later)
    return [replace(arm, later=names[:number]) for number in range(1, len(names) + 1)]


def _is_excluded(lineage: Lineage, grid: GridConfig) -> bool:
    return any(_meets(lineage, entry) for entry in grid.exclude)


def _meets(lineage: Lineage, entry: Mapping[str, object]) -> bool:
    """Whether an arm has every value that an entry of `exclude` names."""
    values = {axis: value for axis, value in entry.items() if axis != "then"}
    if "then" in entry and entry["then"] not in lineage.later:
        return False
    return all(str(getattr(lineage, axis)) == str(value) for axis, value in values.items())
