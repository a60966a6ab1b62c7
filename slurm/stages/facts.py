"""What finished stages made, where and how long it took: the table of a report and of a screen."""

from collections.abc import Mapping
from pathlib import Path

from megatron_msm.config.section import Section
from megatron_msm.errors import MsmError
from megatron_msm.formats.files import write_json_atomic
from megatron_msm.formats.manifest import read_manifest
from slurm.kinds import KINDS
from slurm.stages.code_version import code_versions
from slurm.stages.record import StageRecord, read_done, read_stage

FACTS_FILE = "facts.json"
"""What a stage is built on, written into its folder before its command runs."""


class StageFact(Section):
    """One finished stage, as `msm eval report --facts` reads it."""

    stage: str
    made: str
    where: str
    """Its folder, relative to the experiment's."""
    seconds: float
    curve: str | None = None
    """Where its row a step is, absolute; None where it has none."""


def stage_facts(root: Path, labels: Mapping[Path, str]) -> list[StageFact]:
    """Return the facts of those stages that are finished.

    Args:
        root: The experiment's folder.
        labels: What the experiment calls each stage, by its folder relative to `root`. Another
            one that shares the stage may call it otherwise.
    """
    found = []
    for folder, label in labels.items():
        done = read_done(root / folder)
        if done is not None:
            stage = read_stage(root / folder)
            made = what_was_made(root / folder, stage)
            fact = StageFact(
                stage=label,
                made=made,
                where=str(folder),
                seconds=done.seconds,
                curve=_curve(root / folder, stage),
            )
            found.append(fact)
    return found


def _curve(folder: Path, stage: StageRecord) -> str | None:
    name = KINDS[stage.kind].metrics_file
    path = None if name is None else folder / name
    return str(path.resolve()) if path is not None and path.is_file() else None


def write_facts(folder: Path) -> None:
    """Write the facts of all that the stage in `folder` is built on into its folder."""
    facts = stage_facts(folder.parents[1], _built_on(folder))
    write_json_atomic(folder / FACTS_FILE, [fact.model_dump(mode="json") for fact in facts])


def what_was_made(folder: Path, stage: StageRecord) -> str:
    """Say in a few words what a finished stage left, and whether other code made it."""
    text = _datasets(folder, stage) or stage.kind
    if stage.num_steps is not None:
        text = f"{stage.num_steps:,} steps"
    if stage.code != code_versions(stage.kind):
        text += ", kept from earlier code (--accept code)"
    return f"{text} [{stage.identity[:8]}]"


def _datasets(folder: Path, stage: StageRecord) -> str:
    if stage.kind != "prep":
        return ""
    try:
        manifest = read_manifest(folder / stage.makes[0])
    except MsmError:  # the record stays true when somebody has removed the files
        return ""
    counts = manifest.counts
    text = f"{counts.kept:,} {manifest.kind}, {counts.tokens:,} tokens"
    return text if manifest.kind == "docs" else f"{text}, {counts.loss_tokens:,} with loss"


def _built_on(folder: Path) -> dict[Path, str]:
    """Return the labels of all stages behind this one by folder, each after those it needs."""
    root, found = folder.parents[1], dict[Path, str]()

    def visit(stage: StageRecord) -> None:
        labels = {each.value: each.name for each in stage.ingredients if each.what == "stage"}
        for need in stage.before:
            if need.folder not in found:
                record = read_stage(root / need.folder)
                visit(record)
                found[need.folder] = labels.get(need.identity, record.label)

    visit(read_stage(folder))
    return found
