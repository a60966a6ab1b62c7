"""The harness itself: loading a task, running it on an opened model, reading what it logged."""

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from ruamel.yaml import YAML

from evals.models.hf import OpenModel
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.eval_result import Row


@dataclass(frozen=True)
class Answers:
    """What the harness found."""

    rows: list[Row]
    item_hashes: list[list[str]]
    """By item: the harness's hashes of its content, its prompt and its target."""
    versions: Mapping[str, Any]
    """By task."""
    harness_version: str
    metrics: tuple[str, ...]
    """What the score is, by task; named once."""
    better: Literal["higher", "lower"] | None


class LoadedTask:
    """A task with its data."""

    def __init__(self, label: str, name: str, manager: TaskManager, folder: Path | None) -> None:
        """Load the data.

        Raises:
            DataFormatError: They cannot be had.
        """
        self.label = label
        self._manager, self._folder = manager, folder
        try:
            with self._at_its_folder():
                self._tasks = list(manager.load([name])["tasks"].values())
        except Exception as error:  # what a missing network or a broken task file makes of it
            reason = (str(error).splitlines() or [""])[0]
            raise DataFormatError(
                f"{label}: lm-eval cannot load the task ({type(error).__name__}: {reason}). Its "
                "data must be on this machine, or be reachable for `datasets`."
            ) from error

    def run(
        self,
        opened: OpenModel,
        *,
        num_fewshot: int | None,
        limit: int | None,
        chat: bool,
        batch_size: int,
    ) -> Answers:
        """Ask a model.

        Raises:
            DataFormatError: The task's first metric is no number an item.
        """
        wrapped = HFLM(pretrained=opened.model, tokenizer=opened.tokenizer, batch_size=batch_size)
        with self._at_its_folder():
            found = lm_eval.simple_evaluate(
                wrapped,
                tasks=list(self._tasks),
                task_manager=self._manager,
                num_fewshot=num_fewshot,
                limit=limit,
                apply_chat_template=chat,
                bootstrap_iters=0,
            )
        assert found is not None, "rank 0 gets the results"
        return _answers(self.label, found)

    @contextlib.contextmanager
    def _at_its_folder(self) -> Iterator[None]:
        """Take relative data files of one's own task from its folder."""
        with contextlib.nullcontext() if self._folder is None else contextlib.chdir(self._folder):
            yield


def load_harness_task(name: str | None, config: Path | None) -> LoadedTask:
    """Return a task that comes with the harness, or one of one's own, with its data.

    Raises:
        ConfigError: There is no such task or file.
        DataFormatError: The data cannot be had.
    """
    if config is not None:
        own = _own_name(config)
        manager = TaskManager(include_path=str(config.parent), include_defaults=False)
        return LoadedTask(str(config.resolve()), own, manager, config.parent)
    assert name is not None, "a name or a file"
    manager = TaskManager()
    known = [*manager.all_tasks, *manager.all_groups, *manager.all_tags]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=3)
        hint = f" Did you mean {', '.join(nearest)}?" if nearest else ""
        raise ConfigError(f"lm-eval has no task {name!r}.{hint} `lm-eval ls tasks` lists them.")
    return LoadedTask(f"lm-eval {name}", name, manager, None)


def _own_name(config: Path) -> str:
    if not config.is_file():
        raise ConfigError(f"{config}: no such file. Give a task file of lm-eval.")
    for line in config.read_text(encoding="utf-8").splitlines():
        # Not parsed whole: the file may have the harness's own tags.
        if line.startswith("task:"):
            return str(YAML(typ="safe").load(line)["task"])
    raise ConfigError(f"{config}: has no line `task: NAME`, by which lm-eval knows a task.")


def _answers(label: str, found: Mapping[str, Any]) -> Answers:
    rows, hashes, metrics, directions = [], [], dict[str, None](), set()
    for task, samples in found["samples"].items():
        for sample in samples:
            metric = sample["metrics"][0]
            if sample["filter"] != samples[0]["filter"]:
                continue  # the same reply, read in another way
            rows.append(_row(label, task, metric, sample))
            hashes.append([task, *(sample[f"{what}_hash"] for what in ("doc", "prompt", "target"))])
            metrics[metric] = None
            directions.add(found["higher_is_better"][task].get(metric))
    same = directions.pop() if len(directions) == 1 else None
    return Answers(
        rows=rows,
        item_hashes=hashes,
        versions=dict(found["versions"]),
        harness_version=installed_version("lm_eval"),
        metrics=tuple(metrics),
        better=None if same is None else "higher" if same else "lower",
    )


def _row(label: str, task: str, metric: str, sample: Mapping[str, Any]) -> Row:
    value = sample[metric]
    if not isinstance(value, int | float):
        raise DataFormatError(
            f"{label}: the first metric of {task}, {metric!r}, is no number an item but "
            f"{type(value).__name__}. Take a task whose first metric is, such as acc."
        )
    name = f"{task}/{sample['doc_id']}"
    details = {"question": str(sample["arguments"][0][0]), "target": str(sample["target"])}
    if isinstance(sample["filtered_resps"][0], str):
        details["reply"] = sample["filtered_resps"][0]
    return Row(id=name, group=task, cluster=name, numbers={"score": float(value)}, details=details)
