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
from typing import Any

import orjson

from megatron_msm.config.load import dump_config
from slurm.experiments.corpora import Corpora
from slurm.experiments.grid import GridConfig, run_config
from slurm.experiments.inputs import Inputs
from slurm.experiments.lineage import MIX, NEUTRAL, Lineage
from slurm.stages.ingredients import run_settings
from slurm.stages.stage import OUT, Stage

KeepStage = Callable[[Stage], Stage]


class ArmStages:
    """Makes the stages of one variant of a grid."""

    def __init__(self, grid: GridConfig, inputs: Inputs, keep: KeepStage) -> None:
        self.grid = grid
        self.inputs = inputs
        self.keep = keep
        self.corpora = Corpora(grid, inputs, keep)

    def training(self, lineage: Lineage) -> list[Stage]:
        """Return the arm's training stages, first to last; none for a model as it came."""
        if lineage.spec is None and lineage.aft is None:
            return []
        grid, stages = self.grid, list[Stage]()
        checkpoint, source = self._import(lineage.model), "megatron"
        if lineage.spec is not None:
            files = grid.neutral if lineage.spec == NEUTRAL else grid.specs[lineage.spec]
            docs = self._docs(lineage.model, lineage.spec, files)
            checkpoint = self._train("midtrain", lineage, checkpoint, source, [docs])
            stages.append(checkpoint)
            source = "run/midtrain"
        if lineage.aft is not None:
            sets = {MIX: grid.instruction_mix}
            if lineage.aft != MIX:
                mix = sets if grid.instruction_mix else {}
                sets = {lineage.aft: grid.aft[lineage.aft], **mix}
            chats = [self._chats(lineage.model, key, files) for key, files in sets.items()]
            stages.append(self._train("sft", lineage, checkpoint, source, chats))
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

    def _docs(self, model: str, spec: str, files: tuple[Path, ...]) -> Stage:
        return self._prepared("docs", model, spec, files, ())

    def _chats(self, model: str, name: str, files: tuple[Path, ...]) -> Stage:
        assert self.grid.sft is not None
        # One position more than a sequence: a row's last token is only predicted.
        length = str(int(self.grid.sft["seq_length"]) + 1)
        return self._prepared("chats", model, name, files, ("--max-length", length))

    def _prepared(
        self, what: str, model: str, name: str, files: tuple[Path, ...], options: tuple[str, ...]
    ) -> Stage:
        tokenizer = self.inputs.model(self.grid.models[model])
        sources = self.corpora.sources(files)
        arguments = ("prep", what, *sources.paths, "--tokenizer", str(tokenizer), *options)
        whole = Stage(
            kind="prep",
            label=f"prep {what} {name}",
            arguments=(*arguments, "--out", f"{OUT}/data"),
            makes=("data",),
            needs=sources.needs,
            reads=(*sources.reads, *self.inputs.tokenizer(tokenizer)),
            folders=(tokenizer,),
        )
        num_shards = self.grid.shards if what == "docs" else 1
        return self.keep(whole) if num_shards == 1 else self._sharded(whole, num_shards)

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
        return self.keep(
            Stage(
                kind="train",
                label=f"{phase} {what}{lineage.variant} #{lineage.seed}",
                arguments=("train", f"{OUT}/run.yaml"),
                makes=(f"run/{phase}",),
                needs=(parent, *datasets),
                after=self.corpora.gates(lineage.spec) if phase == "midtrain" else (),
                files={"run.yaml": dump_config(config)},
                settings=run_settings(config),
                num_ranks=config.parallel.world_size,
                num_steps=num_steps,
                num_tokens=None if num_steps is None else num_steps * trained.tokens_per_step,
                run=config,
                model=self.inputs.model(self.grid.models[lineage.model]),
            )
        )

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
        settings: Mapping[str, Any],
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
        written, read = suite, earlier.get(settings.get("of", ""))
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
