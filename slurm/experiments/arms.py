"""A grid's arms, named by lineage, and the stages that each is made by.

prep docs ─┐
import ────┴─ midtrain ─┐
prep chats ─────────────┴─ sft ── export ── eval ─┐
                                                  ├─ report
(every other arm) ────────────────────────────────┘
"""

from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from megatron_msm.config.load import dump_config
from slurm.experiments.grid import PACKAGED_MODEL, GridConfig, run_config
from slurm.experiments.inputs import Inputs
from slurm.experiments.lineage import MIX, NEUTRAL, Lineage, lineages
from slurm.stages.stage import OUT, Stage, in_order


@dataclass(frozen=True)
class Arm:
    """One model of the experiment and how it is made."""

    name: str
    lineage: Lineage
    training: tuple[Stage, ...]
    evaluation: Stage | None


@dataclass(frozen=True)
class Experiment:
    """All arms, and the report over them."""

    root: Path
    title: str
    arms: tuple[Arm, ...]
    report: Stage | None

    def final_stages(self) -> list[Stage]:
        """Return the stages that nothing else builds on."""
        ends = [arm.evaluation or arm.training[-1] for arm in self.arms if arm.training]
        ends += [arm.evaluation for arm in self.arms if not arm.training and arm.evaluation]
        return [self.report] if self.report else ends


def build_experiment(grid: GridConfig, inputs: Inputs, root: Path) -> Experiment:
    """Return the arms of a grid and the graph of stages behind them.

    Args:
        grid: The experiment.
        inputs: Finds and hashes files from outside.
        root: The experiment's folder, absolute.
    """
    arms: dict[str, Arm] = {}
    for label, variant in grid.variants():
        builder = _Builder(variant, inputs)
        for lineage in lineages(variant, label):
            name = lineage.name(show_seed=len(grid.seeds) > 1)
            arms[name] = builder.arm(name, lineage)
    report = _report(grid.title, list(arms.values()))
    return Experiment(root, grid.title, tuple(arms.values()), report)


class _Builder:
    """Makes the stages of one variant of a grid."""

    def __init__(self, grid: GridConfig, inputs: Inputs) -> None:
        self.grid = grid
        self.inputs = inputs

    def arm(self, name: str, lineage: Lineage) -> Arm:
        grid, training = self.grid, []
        checkpoint, source = self._import(lineage.model), "megatron"
        if lineage.spec is not None:
            files = grid.neutral if lineage.spec == NEUTRAL else grid.specs[lineage.spec]
            docs = self._docs(lineage.model, lineage.spec, files)
            checkpoint = self._train("midtrain", lineage, checkpoint, source, [docs])
            training.append(checkpoint)
            source = "run/midtrain"
        if lineage.aft is not None:
            sets = {MIX: grid.instruction_mix}
            if lineage.aft != MIX:
                sets = {
                    lineage.aft: grid.aft[lineage.aft],
                    **(sets if grid.instruction_mix else {}),
                }
            chats = [self._chats(lineage.model, key, files) for key, files in sets.items()]
            checkpoint = self._train("sft", lineage, checkpoint, source, chats)
            training.append(checkpoint)
        return Arm(name, lineage, tuple(training), self._evaluation(name, lineage, training))

    def _model(self, name: str) -> Path:
        path = self.grid.models[name]
        if str(path) == PACKAGED_MODEL:
            return self.inputs.packaged_model()
        return self.inputs.path(path)

    def _import(self, model: str) -> Stage:
        folder = self._model(model)
        return Stage(
            kind="import",
            label=f"import {model}",
            arguments=("convert", "import", str(folder), f"{OUT}/megatron"),
            makes=("megatron",),
            reads=(self.inputs.read(folder),),
        )

    def _docs(self, model: str, spec: str, files: tuple[Path, ...]) -> Stage:
        tokenizer = self._model(model)
        documents = [self.inputs.read(self.inputs.path(path)) for path in files]
        reads = (*documents, *self.inputs.tokenizer(tokenizer))
        paths = [str(read.path) for read in documents]
        arguments = ("prep", "docs", *paths, "--tokenizer", str(tokenizer), "--out", f"{OUT}/data")
        whole = Stage(
            kind="prep",
            label=f"prep docs {spec}",
            arguments=arguments,
            makes=("data",),
            reads=reads,
        )
        return whole if self.grid.shards == 1 else _sharded(whole, self.grid.shards)

    def _chats(self, model: str, name: str, files: tuple[Path, ...]) -> Stage:
        tokenizer = self._model(model)
        assert self.grid.sft is not None
        # One position more than a sequence: a row's last token is only predicted.
        length = str(int(self.grid.sft["seq_length"]) + 1)
        reads = [self.inputs.read(self.inputs.path(path)) for path in files]
        chats = [str(read.path) for read in reads]
        reads += self.inputs.tokenizer(tokenizer)
        arguments = ["prep", "chats", *chats, "--tokenizer", str(tokenizer)]
        return Stage(
            kind="prep",
            label=f"prep chats {name}",
            arguments=(*arguments, "--max-length", length, "--out", f"{OUT}/data"),
            makes=("data",),
            reads=tuple(reads),
        )

    def _train(
        self, phase: str, lineage: Lineage, parent: Stage, source: str, datasets: list[Stage]
    ) -> Stage:
        settings = self.grid.midtrain if phase == "midtrain" else self.grid.sft
        assert settings is not None
        assert lineage.seed is not None
        config = run_config(
            self.grid,
            phase,
            settings,
            checkpoint=Path(parent.output(source)),
            prefixes=[Path(dataset.output("data")) for dataset in datasets],
            seed=lineage.seed,
            out=f"{OUT}/run",
        )
        trained = config.phases[0]
        num_steps = trained.duration.num_steps(trained.tokens_per_step)
        what = lineage.spec if phase == "midtrain" else f"{lineage.spec or 'no-msm'}+{lineage.aft}"
        return Stage(
            kind="train",
            label=f"{phase} {what}{lineage.variant} #{lineage.seed}",
            arguments=("train", f"{OUT}/run.yaml"),
            makes=(f"run/{phase}",),
            needs=(parent, *datasets),
            files={"run.yaml": dump_config(config)},
            num_ranks=config.parallel.world_size,
            num_steps=num_steps,
            num_tokens=None if num_steps is None else num_steps * trained.tokens_per_step,
            run=config,
            model=self._model(lineage.model),
        )

    def _evaluation(self, name: str, lineage: Lineage, training: list[Stage]) -> Stage | None:
        choice = self.grid.choice
        if choice is None:
            return None
        items = self.inputs.read(self.inputs.path(choice.items))
        reads, needs = [items], []
        if training:
            exported = self._export(name, training[-1])
            folder, needs = exported.output("hf"), [exported]
        else:
            model = self._model(lineage.model)
            folder = str(model)
            reads.append(self.inputs.read(model))
        arguments = ["eval", "choice", folder, "--items", str(items.path), "--split", choice.split]
        arguments += ["--target", choice.target] if choice.target else []
        arguments += ["--dtype", choice.dtype, "--batch-size", str(choice.batch_size)]
        return Stage(
            kind="eval",
            label=f"eval {name}",
            arguments=(*arguments, "--label", name, "--out", f"{OUT}/choice.json"),
            makes=("choice.json",),
            needs=tuple(needs),
            reads=tuple(reads),
        )

    def _export(self, name: str, trained: Stage) -> Stage:
        checkpoint = trained.output(trained.makes[0])
        return Stage(
            kind="export",
            label=f"export {name}",
            arguments=("convert", "export", checkpoint, f"{OUT}/hf"),
            makes=("hf",),
            needs=(trained,),
        )


def _sharded(whole: Stage, count: int) -> Stage:
    """Return the stage that merges `count` parts of a preparation, each a stage of its own."""
    parts = [
        replace(
            whole,
            label=f"{whole.label} {index}/{count}",
            arguments=(*whole.arguments, "--shard", f"{index}/{count}"),
            makes=(f"data-{index:05d}-of-{count:05d}",),
            group=whole.identity,
        )
        for index in range(count)
    ]
    prefixes = [part.output(part.makes[0]) for part in parts]
    return Stage(
        kind="prep",
        label=f"{whole.label} merged",
        arguments=("prep", "merge", *prefixes, "--out", f"{OUT}/data"),
        makes=("data",),
        needs=tuple(parts),
    )


def _report(title: str, arms: list[Arm]) -> Stage | None:
    evaluations = [arm.evaluation for arm in arms if arm.evaluation is not None]
    if not evaluations:
        return None
    facts = [
        {"stage": stage.label, "made": stage.identity[:16], "where": str(stage.folder)}
        for stage in in_order(evaluations)
    ]
    choices = [part for e in evaluations for part in ("--choice", e.output("choice.json"))]
    return Stage(
        kind="report",
        label="report",
        arguments=(
            *("eval", "report", f"{OUT}/report.html", *choices),
            *("--title", title, "--facts", f"{OUT}/facts.json"),
        ),
        makes=("report.html",),
        needs=tuple(evaluations),
        files={"facts.json": orjson.dumps(facts).decode()},
    )
