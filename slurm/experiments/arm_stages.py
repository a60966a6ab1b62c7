"""The stages that an arm is made by.

(generate) ─┬─ prep docs ─┐
            └─ (health) ──┤
import ───────────────────┴─ midtrain ─┐
(generate) ─── prep chats ─────────────┴─ sft ── export ─┬─ evaluation ─────────────────┐
                                                         └─ evaluation ── evaluation of ┼─ report
(every other arm) ──────────────────────────────────────────────────────────────────────┘
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from megatron_msm.config.load import YamlSection, dump_config
from megatron_msm.config.run import RunConfig
from slurm.experiments.corpora import Corpora, shown
from slurm.experiments.grid import MIX, GridConfig, run_config
from slurm.experiments.grid_parts import LaterConfig, PrepCommand
from slurm.experiments.inputs import Inputs
from slurm.experiments.lineage import Lineage
from slurm.stages.ingredients import run_settings
from slurm.stages.record import Read
from slurm.stages.stage import OUT, Stage

KeepStage = Callable[[Stage], Stage]
_LONGEST_TAG = 64
"""W&B refuses longer ones; a run's name has all of it."""


class _Options(NamedTuple):
    """Further options of a command."""

    texts: tuple[str, ...]
    reads: tuple[Read, ...]
    """Files that they name."""


class ArmStages:
    """Makes the stages of one variant of a grid."""

    def __init__(self, grid: GridConfig, inputs: Inputs, keep: KeepStage) -> None:
        self.grid = grid
        self.inputs = inputs
        self._keep = keep
        self.corpora = Corpora(grid, inputs, self.keep)

    def keep(self, stage: Stage) -> Stage:
        """Return the stage to build on, which asks for what the grid says of its kind."""
        return self._keep(with_resources(stage, self.grid))

    def training(self, lineage: Lineage) -> list[Stage]:
        """Return the arm's training stages, first to last; none for a model as it came."""
        if lineage.spec is None and lineage.aft is None:
            return []
        grid, stages = self.grid, list[Stage]()
        checkpoint, source = self._import(lineage.model), "megatron"
        if lineage.spec is not None:
            checkpoint = self._midtrain(lineage, checkpoint, source)
            stages.append(checkpoint)
            source = "run/midtrain"
        if lineage.aft is not None:
            checkpoint = self._sft(lineage, checkpoint, source)
            stages.append(checkpoint)
            source = "run/sft"
        for phase in grid.later[: len(lineage.later)]:
            checkpoint = self._later(phase, lineage, checkpoint, source)
            stages.append(checkpoint)
            source = f"run/{phase.name}"
        return stages

    def evaluations(
        self, name: str, lineage: Lineage, training: Sequence[Stage]
    ) -> dict[str, Stage]:
        """Return the arm's evaluations by name; the model is exported once for all of them."""
        if not self.grid.evaluations:
            return {}
        exported = self._export(name, training[-1]) if training else None
        made: dict[str, Stage] = {}
        for task, settings in self.grid.evaluations.items():
            made[task] = self._evaluation(task, settings, name, lineage, exported, made)
        return made

    def _import(self, model: str) -> Stage:
        folder = self.inputs.model(self.grid.models[model])
        return self.keep(
            Stage(
                kind="import",
                label=f"import {model}",
                arguments=("convert", "import", str(folder), f"{OUT}/megatron"),
                makes=("megatron",),
                reads=(self.inputs.read(folder),),
            )
        )

    def _midtrain(self, lineage: Lineage, parent: Stage, source: str) -> Stage:
        grid, spec = self.grid, str(lineage.spec)
        docs = self._docs(lineage.model, spec, self.corpora.files(spec), grid.dose.documents)
        replay = None
        if grid.replay is not None:
            replay = self._docs(lineage.model, "replay", grid.replay.files)
        return self._train(
            "midtrain",
            grid.midtrain,
            lineage,
            parent.output(source),
            [parent, docs],
            label=f"midtrain {spec}",
            replay=replay,
            after=self.corpora.gates(spec),
        )

    def _sft(self, lineage: Lineage, parent: Stage, source: str) -> Stage:
        grid, aft = self.grid, str(lineage.aft)
        assert grid.sft is not None
        sets = {MIX: (grid.instruction_mix, 1.0)} if grid.instruction_mix else {}
        if aft != MIX:
            sets = {aft: (grid.aft[aft], grid.dose.chats), **sets}
        length = int(grid.sft["seq_length"])
        chats = [
            self._chats(lineage.model, name, files, length, share)
            for name, (files, share) in sets.items()
        ]
        return self._train(
            "sft",
            grid.sft,
            lineage,
            parent.output(source),
            [parent, *chats],
            label=f"sft {lineage.spec or 'no-msm'}+{aft}",
        )

    def _later(self, phase: LaterConfig, lineage: Lineage, parent: Stage, source: str) -> Stage:
        if phase.chats:
            length = int(phase.phase["seq_length"])
            data = self._chats(lineage.model, phase.name, phase.chats, length)
        else:
            data = self._docs(lineage.model, phase.name, phase.documents)
        return self._train(
            phase.name,
            phase.phase,
            lineage,
            parent.output(source),
            [parent, data],
            label=f"{phase.name} after {lineage.spec or 'no-msm'}+{lineage.aft}",
        )

    def _docs(self, model: str, name: str, files: tuple[Path, ...], share: float = 1.0) -> Stage:
        return self._prepared("docs", model, name, files, (), share)

    def _chats(
        self, model: str, name: str, files: tuple[Path, ...], length: int, share: float = 1.0
    ) -> Stage:
        # One position more than a sequence: a row's last token is only predicted.
        return self._prepared("chats", model, name, files, ("--max-length", str(length + 1)), share)

    def _prepared(
        self,
        what: PrepCommand,
        model: str,
        name: str,
        files: tuple[Path, ...],
        options: tuple[str, ...],
        share: float,
    ) -> Stage:
        tokenizer = self.inputs.model(self.grid.models[model])
        sources = self.corpora.sources(files, share=share, name=f"{what} {name}")
        own = self._own_options(what)
        options = (*options, *own.texts)
        arguments = ("prep", what, *sources.paths, "--tokenizer", str(tokenizer), *options)
        whole = Stage(
            kind="prep",
            label=f"prep {what} {name}{shown(share)}",
            arguments=(*arguments, "--out", f"{OUT}/data"),
            makes=("data",),
            needs=sources.needs,
            reads=(*sources.reads, *own.reads, *self.inputs.tokenizer(tokenizer)),
            folders=(tokenizer,),
        )
        num_shards = self.grid.shards if what == "docs" else 1
        return self.keep(whole) if num_shards == 1 else self._sharded(whole, num_shards)

    def _own_options(self, what: PrepCommand) -> _Options:
        """Return the grid's options of a preparation; a template counts with its content."""
        options, reads = list(self.grid.prep.get(what, ())), list[Read]()
        for place, option in enumerate(options[:-1]):
            if option == "--chat-template":
                reads.append(self.inputs.read(self.inputs.path(Path(options[place + 1]))))
                options[place + 1] = str(reads[-1].path)
        return _Options(tuple(options), tuple(reads))

    def _sharded(self, whole: Stage, count: int) -> Stage:
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
        parts = [self.keep(part) for part in parts]
        prefixes = [part.output(part.makes[0]) for part in parts]
        return self.keep(
            Stage(
                kind="prep",
                label=f"{whole.label} merged",
                arguments=("prep", "merge", *prefixes, "--out", f"{OUT}/data"),
                makes=("data",),
                needs=tuple(parts),
            )
        )

    def _train(
        self,
        phase: str,
        settings: dict[str, Any],
        lineage: Lineage,
        checkpoint: str,
        needs: Sequence[Stage],
        *,
        label: str,
        replay: Stage | None = None,
        after: tuple[Stage, ...] = (),
    ) -> Stage:
        """Return a training stage; the first of `needs` makes the checkpoint, the others data."""
        assert lineage.seed is not None
        config = run_config(
            self.grid,
            phase,
            settings,
            checkpoint=Path(checkpoint),
            prefixes=[Path(dataset.output("data")) for dataset in needs[1:]],
            seed=lineage.seed,
            out=f"{OUT}/run",
            replay=None if replay is None else Path(replay.output("data")),
        )
        config = self._named(config, lineage, phase)
        trained, model = config.phases[0], ""
        if len(self.grid.models) > 1:
            model = f" {lineage.model}"
        num_steps = trained.duration.num_steps(trained.tokens_per_step)
        return self.keep(
            Stage(
                kind="train",
                label=f"{label}{model}{lineage.until(phase).variant} #{lineage.seed}",
                arguments=("train", f"{OUT}/run.yaml"),
                makes=(f"run/{phase}",),
                needs=(*needs, replay) if replay else tuple(needs),
                after=after,
                files={"run.yaml": dump_config(config)},
                settings=run_settings(config),
                num_ranks=config.parallel.world_size,
                num_steps=num_steps,
                num_tokens=None if num_steps is None else num_steps * trained.tokens_per_step,
                run=config,
                model=self.inputs.model(self.grid.models[lineage.model]),
            )
        )

    def _named(self, config: RunConfig, lineage: Lineage, phase: str) -> RunConfig:
        """Return the run as trackers show it: what its model has gone through when it ends."""
        wandb = config.logging.wandb
        if wandb is None:
            return config
        reached = lineage.until(phase)
        tags = dict.fromkeys(
            (*wandb.tags, *(part[:_LONGEST_TAG] for part in reached.parts()), phase)
        )
        shown = {
            "name": reached.name(show_seed=True),
            "group": wandb.group or self.grid.title,
            "tags": tuple(tags),
        }
        logging = config.logging.model_copy(update={"wandb": wandb.model_copy(update=shown)})
        return config.model_copy(update={"logging": logging})

    def _export(self, name: str, trained: Stage) -> Stage:
        checkpoint = trained.output(trained.makes[0])
        return self.keep(
            Stage(
                kind="export",
                label=f"export {name}",
                arguments=("convert", "export", checkpoint, f"{OUT}/hf"),
                makes=("hf",),
                needs=(trained,),
            )
        )

    def _evaluation(
        self,
        task: str,
        settings: YamlSection,
        name: str,
        lineage: Lineage,
        exported: Stage | None,
        earlier: Mapping[str, Stage],
    ) -> Stage:
        located, reads = self.inputs.located(settings)
        if exported is None:
            model = self.inputs.model(self.grid.models[lineage.model])
            reads.append(self.inputs.read(model))
        folder = str(model) if exported is None else exported.output("hf")
        suite = {"evaluations": {task: located}}
        written, read = suite, earlier.get(str(settings.get("of")))
        if read is not None:
            # Each evaluation has a folder of its own, side by side.
            result = f"../{read.folder.name}/{settings['of']}"
            written = {"evaluations": {task: located | {"of": result}}}
        return self.keep(
            Stage(
                kind="eval",
                label=f"eval {task} {name}",
                arguments=("eval", "run", f"{OUT}/suite.yaml", folder, "--out", OUT),
                makes=(f"{task}.json",),
                # JSON is YAML, and quotes every path as it has to be.
                files={"suite.yaml": orjson.dumps(written, option=orjson.OPT_INDENT_2).decode()},
                settings=suite,
                needs=tuple(need for need in (exported, read) if need is not None),
                reads=tuple(reads),
            )
        )


def with_resources(stage: Stage, grid: GridConfig) -> Stage:
    """Return a stage whose job asks for what the grid says of its kind."""
    return replace(stage, resources=grid.resources.get(stage.kind))


def report_stage(
    title: str, results: Sequence[tuple[str, Stage, str]], contrasts: Sequence[str]
) -> Stage:
    """Return the stage that writes the report.

    Args:
        title: Its heading.
        results: (arm, the stage that evaluates it, which of its files).
        contrasts: Each `NAME=+ARM,-ARM,...`.
    """
    named = [part for arm, e, made in results for part in ("--result", f"{arm}={e.output(made)}")]
    return Stage(
        kind="report",
        label="report",
        arguments=(
            *("eval", "report", f"{OUT}/report.html", *named),
            *(part for text in contrasts for part in ("--contrast", text)),
            *("--title", title, "--facts", f"{OUT}/facts.json"),
        ),
        makes=("report.html",),
        needs=tuple(stage for _, stage, _ in results),
    )
