"""Kinds of reasons, as data; and a judge's list of those that are present.

Source: the kinds follow Li et al., arXiv 2605.02087, Figure 11; names and texts are this project's.
"""

from functools import cache
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML

from evals.judging.verdicts import read_tag
from megatron_msm.config.section import Section

FILE = Path(__file__).parent / "categories.yaml"
NONE = "none"


class Category(Section):
    """One kind of reason."""

    id: str
    side: Literal["misaligned", "aligned"]
    """Whether it speaks for the harmful act or against it."""
    text: str


@cache
def categories() -> tuple[Category, ...]:
    """Return all kinds, in the order of the report."""
    content = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    return tuple(Category.model_validate(entry) for entry in content)


def kinds_text() -> str:
    """Return the kinds as lines of the judge's question."""
    return "\n".join(f"- {one.id}: {one.text}" for one in categories())


def read_present(reply: str) -> frozenset[str] | None:
    """Return the kinds that a judge lists; None where a name is unknown or there is no list."""
    listed = read_tag(reply, "present")
    if listed is None:
        return None
    names = frozenset(name.strip() for name in listed.split(","))
    if names == {NONE}:
        return frozenset()
    return names if names <= {one.id for one in categories()} else None
