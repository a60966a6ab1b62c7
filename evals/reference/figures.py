"""Published figures of the MSM paper, to lay one's own results beside.

Numbers were read from the paper's text and charts. `baseline` is its instruction-tuned model.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict

from megatron_msm.errors import ConfigError
from megatron_msm.formats.json_input import check_model, parse_json

FILE = "figures.json"


class PublishedFigure(BaseModel):
    """One panel of a figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    title: str
    model: str
    """Which base model."""
    unit: str
    better: Literal["higher", "lower"] | None
    seeds: int | None
    """Training seeds behind each number; None where the paper does not say."""
    note: str
    of: Literal["arms", "groups", "contrasts"] = "arms"
    """What its numbers are of: arms; groups (conditions) of one arm; contrasts."""
    metric: str | None = None
    """Which of our metrics it is of; the headline without it."""
    arms: dict[str, float]
    """Numbers by name. The first is the reference."""


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    paper: str
    figures: tuple[PublishedFigure, ...]


def published_figures() -> Mapping[str, PublishedFigure]:
    """Return all figures by their id."""
    content = files("evals.reference").joinpath(FILE).read_bytes()
    value = parse_json(content, where=FILE)
    read = check_model(_Figures, value, where=FILE, remedy="Install the package again.")
    return {figure.id: figure for figure in read.figures}


def named_figures(name: str, *, where: str) -> list[PublishedFigure]:
    """Return the figure of this id, or all whose ids match a name with `*`.

    Args:
        name: An id, such as `fig2-america`, or `fig11-qwen3-32b-*`.
        where: What asked for it, for the message.

    Raises:
        ConfigError: There is none.
    """
    figures = published_figures()
    found = [figure for key, figure in figures.items() if fnmatchcase(key, name)]
    if not found:
        known = ", ".join(figures)
        raise ConfigError(f"{where}: no figure {name!r}. There are {known}.")
    return found
