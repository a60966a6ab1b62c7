"""SUITE.yaml: which evaluations a model goes through.

    evaluations:
      values: {task: choice, items: items.jsonl, target: homemade}

A grid's `evaluations:` is the same mapping. Paths start at the suite's folder. An evaluation whose
result stands in the folder already is not asked again: a killed run goes on.
"""

import difflib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from evals.kept_results import ASKED, KeptResults, asked_sha256
from evals.models.local import LocalModel
from evals.tasks.registry import TASKS
from evals.tasks.task import Work
from megatron_msm.config.json_schema import SchemaByName
from megatron_msm.config.load import YamlSection, checked, load_config
from megatron_msm.config.paths import input_path
from megatron_msm.config.section import Section
from megatron_msm.errors import ConfigError
from megatron_msm.formats.eval_result import EvalResult
from megatron_msm.formats.files import write_json_atomic
from megatron_msm.progress import Progress

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


Evaluation = Annotated[
    YamlSection, SchemaByName("task", {name: task.settings for name, task in TASKS.items()})
]
"""`task`, and that task's settings."""


class SuiteConfig(Section):
    """A whole SUITE.yaml."""

    evaluations: Annotated[dict[Name, Evaluation], Field(min_length=1)]
    """By name: `task`, and that task's settings."""


@dataclass(frozen=True)
class Prepared:
    """An evaluation that can start."""

    work: Work
    asked_sha256: str
    """Hash of all that decides its result, but the weights."""
    keeps_result: bool
    """Whether a finished result may stand."""


@dataclass(frozen=True)
class Ran:
    """An evaluation's result, and where it came from."""

    result: EvalResult
    was_kept: bool
    """Whether an earlier run had made it."""


def prepare_suite(
    path: Path, model: LocalModel, *, only: Sequence[str] = ()
) -> dict[str, Prepared]:
    """Read and check everything; return the evaluations by name.

    Args:
        path: SUITE.yaml.
        model: What is judged.
        only: Names of the evaluations to keep; all without it.

    Raises:
        MsmError: The suite, an input or the model's folder is broken.
    """
    evaluations = load_config(path, SuiteConfig).evaluations
    for name in only:
        if name not in evaluations:
            known = _known("evaluations", name, evaluations)
            raise ConfigError(f"--only {name}: not in {path}. {known}")
    model.check()
    kept = {name: evaluations[name] for name in evaluations if not only or name in only}
    return {name: _prepare(path, name, kept[name], model) for name in kept}


def run_suite(
    evaluations: dict[str, Prepared],
    out: Path,
    model: LocalModel,
    progress: Callable[[str], AbstractContextManager[Progress]],
) -> Iterator[Ran]:
    """Yield the result of each evaluation: OUT/NAME.json where it stands, else a new one.

    Args:
        evaluations: What `prepare_suite` returned.
        out: The folder of the results.
        model: What is judged.
        progress: Shows the progress of the evaluation of that name.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = KeptResults(out, model)
    for name, prepared in evaluations.items():
        found = kept.find(name, prepared.asked_sha256) if prepared.keeps_result else None
        if found is not None:
            yield Ran(found, was_kept=True)
            continue
        with progress(name) as shown, model.telling(shown):
            result = prepared.work(shown.reach)
        runtime = result.runtime | {ASKED: prepared.asked_sha256}
        result = result.model_copy(update={"runtime": runtime})
        write_json_atomic(out / f"{name}.json", result.model_dump(mode="json"))
        yield Ran(result, was_kept=False)


def _prepare(path: Path, name: str, content: YamlSection, model: LocalModel) -> Prepared:
    where = f"{path}: evaluations.{name}"
    task_name = content.get("task")
    if not isinstance(task_name, str) or task_name not in TASKS:
        found = "required, but missing." if task_name is None else f"no task {task_name!r}."
        raise ConfigError(f"{where}.task: {found} {_known('tasks', str(task_name), TASKS)}")
    task = TASKS[task_name]
    settings = {key: value for key, value in content.items() if key != "task"}
    config = checked(settings, task.settings, file=path, at=("evaluations", name))
    located = {key: input_path(path, value) for key, value in config if isinstance(value, Path)}
    work = task.prepare(config.model_copy(update=located), model, name)
    return Prepared(work, asked_sha256(task_name, dict(config) | located, model), task.keeps_result)


def _known(what: str, name: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"There are the {what} {', '.join(known)}.{hint}"
