"""Every task by the name that suites and grids call it. A new task is a folder and a line here."""

from collections.abc import Mapping
from typing import Any

from evals.tasks.choice.task import ChoiceSettings, prepare_choice
from evals.tasks.task import Task

TASKS: Mapping[str, Task[Any]] = {
    "choice": Task(ChoiceSettings, prepare_choice),
}
