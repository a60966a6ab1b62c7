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
    has_log: bool = False
    """Whether it goes on by itself from a log of replies: then its result is made anew from the
    log, since a judge's weights or replies may have changed beside the settings."""
