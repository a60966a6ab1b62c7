"""Where corpora come from, files from outside or a generation stage, and the gates before them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from slurm.experiments.grid import NEUTRAL, GridConfig
from slurm.experiments.grid_parts import GENERATED, Generated, generated
from slurm.experiments.inputs import Inputs
from slurm.stages.record import Read
from slurm.stages.stage import OUT, Stage

KEPT_FOLDER = "generated"
"""Below the experiment's folder: what generations paid and decided, by name and what they make.
It outlives stages: one that is killed, or made anew after an edit, asks only for what is new."""

PATHS = (
    "spec",
    "variants.*",
    "variants.*.spec",
    "templates",
    "endpoints.*.path",
    "gates.evaluation_items.*",
)
"""Where a GENERATE.yaml names files and folders."""
_WITHOUT_EFFECT = ("out", "kept_in", "budget")
_WITHOUT_EFFECT_OF_ENDPOINT = (
    *("base_url", "concurrency", "timeout_s", "max_attempts", "batch", "price", "api_key_env"),
)
"""Fields of a GENERATE.yaml that change no row: where a server is, how fast and at what price."""


@dataclass(frozen=True)
class Sources:
    """The files of a corpus."""

    paths: tuple[str, ...]
    """As a command names them."""
    reads: tuple[Read, ...]
    needs: tuple[Stage, ...]


class Corpora:
    """Finds the corpora of a grid, and makes the stages behind them."""

    def __init__(self, grid: GridConfig, inputs: Inputs, keep: Callable[[Stage], Stage]) -> None:
        self._grid = grid
        self._inputs = inputs
        self._keep = keep

    def sources(self, files: Sequence[Path], *, share: float = 1.0, name: str = "") -> Sources:
        """Return where some files are, or where a share of their rows is, and what makes them.

        Args:
            files: The files of a corpus.
            share: Of its rows.
            name: What people call the corpus.

        Raises:
            ConfigError: One is not there.
        """
        whole = self._whole(files)
        if share == 1.0:
            return whole
        stage = self._keep(
            Stage(
                kind="prep",
                label=f"prep subset {name}{shown(share)}",
                arguments=(
                    *("prep", "subset", *whole.paths, "--share", f"{share:g}"),
                    *("--out", f"{OUT}/rows.jsonl"),
                ),
                makes=("rows.jsonl",),
                needs=whole.needs,
                reads=whole.reads,
            )
        )
        return Sources((stage.output("rows.jsonl"),), (), (stage,))

    def _whole(self, files: Sequence[Path]) -> Sources:
        paths, reads, needs = list[str](), list[Read](), dict[str, Stage]()
        for path in files:
            made = generated(path)
            if made is None:
                reads.append(self._inputs.read(self._inputs.path(path)))
                paths.append(str(reads[-1].path))
            else:
                stage = self._generation(made)
                needs[stage.identity] = stage
                paths.append(f"{stage.output('corpus')}/{made.file}")
        return Sources(tuple(paths), tuple(reads), tuple(needs.values()))

    def gates(self, spec: str | None) -> tuple[Stage, ...]:
        """Return the stages that must pass before anything is trained on a spec's documents."""
        health = self._grid.health.get(spec or "")
        if health is None:
            return ()
        own = self._documents(str(spec))
        arguments = ["prep", "health", *own.paths]
        reads, needs = [*own.reads], [*own.needs]
        if health.other is not None:
            other = self._documents(health.other)
            arguments += [part for path in other.paths for part in ("--other", path)]
            reads += other.reads
            needs += [stage for stage in other.needs if stage not in needs]
        outside = {
            "--values": health.values,
            "--other-values": health.other_values,
            "--items": health.items,
        }
        found = {option: self._inputs.path(path) for option, path in outside.items() if path}
        if health.model is not None:
            found["--model"] = self._inputs.model(self._grid.models[health.model])
        for option, path in found.items():
            reads.append(self._inputs.read(path))
            arguments += [option, str(path)]
        arguments += [part for text in health.require for part in ("--require", text)]
        stage = Stage(
            kind="health",
            label=f"health {spec}{shown(self._grid.dose.documents)}",
            arguments=(*arguments, "--html", f"{OUT}/health.html"),
            makes=("health.html",),
            needs=tuple(needs),
            reads=tuple(reads),
        )
        return (self._keep(stage),)

    def _documents(self, spec: str) -> Sources:
        """Return the documents that arms of a spec are trained on."""
        return self.sources(self.files(spec), share=self._grid.dose.documents, name=f"docs {spec}")

    def files(self, spec: str) -> tuple[Path, ...]:
        """Return the files of a spec's documents, or of the neutral ones."""
        return self._grid.neutral if spec == NEUTRAL else self._grid.specs[spec]

    def _generation(self, made: Generated) -> Stage:
        path = self._inputs.path(self._grid.generate[made.name])
        content, reads = self._inputs.config_file(path, PATHS)
        # A grammar's templates lie beside its file.
        reads += [self._inputs.read(folder) for folder in _grammar_folders(content)]
        # Names of generations are an experiment's own, so a store of several does not hold these.
        home = Path() if self._grid.store is None else self._grid.out.absolute()
        kept = home / KEPT_FOLDER / f"{made.name}-{made.makes}"
        content |= {"out": f"{OUT}/corpus", "kept_in": str(kept)}
        return self._keep(
            Stage(
                kind="generate",
                label=f"generate {made.makes} {made.name}",
                arguments=("generate", GENERATED[made.makes], f"{OUT}/generate.yaml"),
                makes=("corpus",),
                reads=tuple(reads),
                # Beside a store, `out` is a folder that the job needs too.
                folders=() if self._grid.store is None else (home,),
                # JSON is YAML, and quotes every path as it has to be.
                files={"generate.yaml": orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()},
                settings=_settings(content),
            )
        )


def shown(share: float) -> str:
    """Return a share as labels of stages show it; nothing for the whole."""
    return "" if share == 1.0 else f" {share:g}"


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a GENERATE.yaml decides the rows."""
    settings = {key: value for key, value in content.items() if key not in _WITHOUT_EFFECT}
    settings["endpoints"] = {
        name: {k: v for k, v in endpoint.items() if k not in _WITHOUT_EFFECT_OF_ENDPOINT}
        for name, endpoint in _endpoints(content)
    }
    return settings


def _grammar_folders(content: Mapping[str, Any]) -> Iterator[Path]:
    for _, endpoint in _endpoints(content):
        if endpoint.get("kind") == "grammar" and isinstance(endpoint.get("path"), str):
            yield Path(endpoint["path"]).parent


def _endpoints(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the endpoints that are mappings; what is none is refused when the stage runs."""
    endpoints = content.get("endpoints")
    for name, endpoint in endpoints.items() if isinstance(endpoints, Mapping) else ():
        if isinstance(endpoint, Mapping):
            yield str(name), endpoint
