"""One stage of an experiment: an `msm` command, what it reads and what it leaves behind.

A stage is named by everything that decides its result (`ingredients`): the command, the settings
it is given, the code that runs, the content of outside files, and the stages it builds on. Its
folder bears that name, so equal stages of different arms are one, and nothing is ever written over
another's result.

    ROOT/stages/KIND-IDENTITY/
        stage.json    what it is; written before it starts
        run.yaml ...  configurations that its command reads
        facts.json    what it is built on, as reports show it; written when it starts
        done.json     what it made, with hashes; written last, so its presence means finished
        job/          job file, logs, attempts
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from megatron_msm.config.run import RunConfig
from megatron_msm.formats.files import delete_folder, write_json_atomic, write_text_atomic
from slurm.jobs.site import Resources
from slurm.kinds import KINDS, StageKind
from slurm.stages.code_version import code_versions
from slurm.stages.ingredients import Ingredient, What, identity_of, leaves
from slurm.stages.record import DONE_FILE, STAGE_FILE, Need, Read, StageRecord

OUT = "@OUT@"
"""Stands for the stage's own folder in its command and files: the name depends on them."""


@dataclass(frozen=True)
class Stage:
    """A node of the graph."""

    kind: StageKind
    label: str
    """What people call it; no part of the identity."""
    arguments: tuple[str, ...]
    """Command line of `msm`, run in the experiment's folder."""
    makes: tuple[str, ...]
    """What it leaves in its folder, as names relative to it."""
    needs: tuple["Stage", ...] = ()
    after: tuple["Stage", ...] = ()
    """Stages that must have ended well before, and change nothing in what this one makes: no part
    of the identity."""
    reads: tuple[Read, ...] = ()
    """Files and folders from outside."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files to write before it starts."""
    settings: Mapping[str, object] | None = None
    """What of `files` decides the result, nested as there. None: all of their text."""
    folders: tuple[Path, ...] = ()
    """Outside folders that its arguments name and of which only what is in `reads` counts."""
    code: Mapping[str, str] | None = None
    """Versions of its packages. None: those that are installed."""
    num_ranks: int | None = None
    num_steps: int | None = None
    """Optimizer steps of a training stage."""
    num_tokens: int | None = None
    """Positions that a training stage processes."""
    run: RunConfig | None = None
    """The configuration of a training stage, for estimates; its files hold the same."""
    model: Path | None = None
    """The Hugging Face folder whose sizes a training stage's model has."""
    resources: Resources | None = None
    """What its job asks for beyond the site file; no part of the identity."""
    group: str | None = None
    """Stages with the same one are elements of a job array."""

    @functools.cached_property
    def identity(self) -> str:
        """Hash of everything that decides what the stage makes."""
        return identity_of(self.kind, self.ingredients)

    @functools.cached_property
    def ingredients(self) -> tuple[Ingredient, ...]:
        """Everything that decides what the stage makes."""
        settings = self.files if self.settings is None else self.settings
        code = code_versions(self.kind) if self.code is None else self.code
        found: list[tuple[What, str, str]] = [
            *(("argument", text, self._anonymous(text)) for text in self._deciding_arguments()),
            *(("setting", path, self._anonymous(text)) for path, text in leaves(settings)),
            *(("input", str(read.path), read.sha256) for read in self.reads),
            *(("stage", need.label, need.identity) for need in self.needs),
            *(("code", package, version) for package, version in code.items()),
        ]
        return tuple(Ingredient(what=w, name=name, value=value) for w, name, value in found)

    @property
    def before(self) -> tuple["Stage", ...]:
        """All stages that must be finished before this one starts."""
        return (*self.needs, *self.after)

    @property
    def folder(self) -> Path:
        """Its folder, relative to the experiment's."""
        return Path("stages") / f"{self.kind}-{self.identity[:16]}"

    def output(self, name: str) -> str:
        """Return the path of something it makes, as other stages' commands name it."""
        assert name in self.makes
        return str(self.folder / name)

    def command(self) -> tuple[str, ...]:
        """Return the arguments of `msm` with the stage's own folder filled in."""
        return tuple(argument.replace(OUT, str(self.folder)) for argument in self.arguments)

    def write(self, root: Path) -> Path:
        """Write stage.json and the stage's files below `root`, for a start; return the folder.

        What an earlier end left does not count any more: the files may be gone.
        """
        folder = root / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DONE_FILE).unlink(missing_ok=True)
        for name in self.makes if KINDS[self.kind].replaces_nothing else ():
            if (folder / name).exists():
                delete_folder(folder / name)
        for name, text in self.files.items():
            write_text_atomic(folder / name, text.replace(OUT, str(self.folder)))
        write_json_atomic(folder / STAGE_FILE, self.record().model_dump(mode="json"))
        return folder

    def record(self) -> StageRecord:
        """Return what stage.json says."""
        return StageRecord(
            identity=self.identity,
            kind=self.kind,
            label=self.label,
            ingredients=self.ingredients,
            arguments=self.command(),
            makes=self.makes,
            needs=tuple(Need(folder=need.folder, identity=need.identity) for need in self.needs),
            after=tuple(Need(folder=gate.folder, identity=gate.identity) for gate in self.after),
            reads=self.reads,
            num_ranks=self.num_ranks,
            num_steps=self.num_steps,
        )

    def _deciding_arguments(self) -> Iterator[str]:
        options, is_value = KINDS[self.kind].without_effect, False
        for text in self.arguments:
            if not is_value and text.partition("=")[0] not in options:
                yield text
            is_value = not is_value and text in options

    def _anonymous(self, text: str) -> str:
        """Name a path by its role: moving a file makes no other stage."""
        outside = [*(read.path for read in self.reads), *self.folders]
        for number, path in enumerate(outside):
            if text == str(path):
                return f"@input {number}"
        for number, need in enumerate(self.needs):
            if text.startswith(f"{need.folder}/"):
                return f"@stage {number}{text.removeprefix(str(need.folder))}"
        return text


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """Return the stages and all they need, each once, every one after those it needs."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.identity in ordered:
            return
        for need in stage.before:
            visit(need)
        ordered[stage.identity] = stage

    for stage in stages:
        visit(stage)
    # What needs no other stage comes first: a broken file is found before hours of training.
    return sorted(ordered.values(), key=lambda stage: bool(stage.before))
