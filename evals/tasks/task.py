"""What an evaluation is: settings, and a function that prepares it for a model.

Preparing reads and checks all inputs, and the model's folder without its weights. So whatever is
wrong in any evaluation of a suite is found before the first one starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from evals.models.local import LocalModel
from megatron_msm.config.section import Section
from megatron_msm.formats.eval_result import EvalResult

Settings = TypeVar("Settings", bound=Section)

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

Work = Callable[[Progress], EvalResult]
"""A prepared evaluation: asks the model."""


@dataclass(frozen=True)
class Task(Generic[Settings]):
    """One entry of the registry."""

    settings: type[Settings]
    """Its part of a suite; a `Path` in it starts at the suite's folder."""
    prepare: Callable[[Settings, LocalModel, str], Work]
    """Takes settings, model and the evaluation's name.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    keeps_result: bool = True
    """Whether a finished result stands as long as settings, files, model and code are the same. Not
    where it goes on by itself from a log of replies, since a judge may have changed beside them;
    and not where it reads data that no setting names."""
