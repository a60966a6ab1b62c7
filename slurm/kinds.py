"""Every kind of stage in one table: what it asks of a machine, its code, where progress is shown.

A new kind is one row here, and in `experiments/` the function that makes such stages. Site files
name kinds in `stages`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator


@dataclass(frozen=True)
class Kind:
    """What is true of all stages of one kind."""

    packages: tuple[str, ...]
    """Packages whose sources decide the result."""
    data: tuple[str, ...] = ()
    """Packages whose files that are no Python decide it too: prompts, items, templates."""
    without_effect: tuple[str, ...] = ()
    """Options of its command, each with a value, that change nothing in what it makes."""
    uses_gpus: bool = False
    """Takes `gpus` from a site's defaults; else only when the site's `stages` say so."""
    has_ranks: bool = False
    """Takes `exclusive` from a site's defaults; else it is one process, which fills no node."""
    most_time_min: int | None = None
    """Longest time limit that it takes from the site's defaults."""
    makes_checkpoints: bool = False
    """What it leaves is large, and can be made again from what it was built on."""
    replaces_nothing: bool = False
    """Its command refuses to write where something is: what an earlier end left is deleted first.
    Others go on from it, or write over it."""
    metrics_file: str | None = None
    """Where it writes a row a step, relative to its folder."""


KINDS: Mapping[str, Kind] = {
    "generate": Kind(
        ("data_prep.generate", "data_prep.cleaning", "megatron_msm.llm"),
        data=("data_prep.generate",),
    ),
    "health": Kind(
        ("data_prep.health", "data_prep.cleaning", "data_prep.reading"), data=("data_prep.health",)
    ),
    "prep": Kind(("data_prep", "megatron_msm.formats"), without_effect=("--workers",)),
    "import": Kind(("megatron_msm",), makes_checkpoints=True, replaces_nothing=True),
    "train": Kind(
        ("megatron_msm",),
        uses_gpus=True,
        has_ranks=True,
        makes_checkpoints=True,
        metrics_file="run/metrics.jsonl",
    ),
    "export": Kind(("megatron_msm",), replaces_nothing=True),
    "eval": Kind(("evals", "megatron_msm.formats"), data=("evals.tasks",), uses_gpus=True),
    "report": Kind(
        ("evals", "megatron_msm.formats"),
        data=("evals.report", "evals.reference"),
        most_time_min=60,
    ),
}


def _known(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"no kind of stage {name!r}; there are {', '.join(map(repr, KINDS))}")
    return name


StageKind = Annotated[str, AfterValidator(_known)]
"""A name in `KINDS`."""
