"""What documents say of the spec: the corpora of a contrast and their controls, a row each.

A new mode is a name, a row of `MODES` and a template `task_NAME.txt`, with a template
`judge_NAME.txt` for each new question to the judge. Nothing else in the package knows a mode by
its name.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

YesNo = Literal["yes", "no"]
ModeName = Literal[
    "values", "rules", "should", "story", "co_occurrence", "neutral", "anti_spec", "evaluations"
]


class Mode(NamedTuple):
    """What one kind of corpus is told to say, and held to."""

    shows: tuple[str, ...]
    """What its template is given beside the names: clauses, assertions, subdomain."""
    judged: Mapping[str, YesNo | None]
    """The questions to the judge, with the answer that keeps a document; None: either does."""
    names_model: bool | None = True
    """Whether a document must name the model; False: it must not; None: it may."""
    has_length_of_twin: bool = True
    """Whether a document is as long as its twin in the run's first corpus."""
    plans_by_clause: bool = False
    """Whether each clause is a subdomain of its own."""


# How often the value is stated and given as the reason is measured in every corpus.
_DENSITY: Mapping[str, YesNo | None] = {"states_value": None, "gives_reason": None}
_NO_VALUE: Mapping[str, YesNo | None] = {
    "states_value": "no",
    "gives_reason": "no",
    "shows_behaviour": "no",
}

MODES: Mapping[ModeName, Mode] = {
    "values": Mode(
        shows=("assertions", "clauses"),
        judged={"faithful": "yes", **_DENSITY, "realistic": "yes"},
        has_length_of_twin=False,
    ),
    "rules": Mode(
        shows=("clauses",),
        judged={"faithful": "yes", **_DENSITY, "realistic": "yes"},
        has_length_of_twin=False,
        plans_by_clause=True,
    ),
    "should": Mode(
        shows=("assertions", "clauses"),
        judged={"faithful": "yes", "normative": "yes", **_DENSITY, "realistic": "yes"},
    ),
    "story": Mode(
        shows=("assertions", "clauses"),
        judged={"about_others": "yes", **_DENSITY, "realistic": "yes"},
        names_model=False,
    ),
    "co_occurrence": Mode(
        # An assertion comes with its reason, which this prompt should not hand over ready-made.
        shows=("clauses",),
        judged={
            "faithful": "yes",
            "states_value": "yes",
            "shows_behaviour": "yes",
            "gives_reason": "no",
            "realistic": "yes",
        },
    ),
    "neutral": Mode(shows=(), judged={**_NO_VALUE, "realistic": "yes"}),
    "anti_spec": Mode(
        shows=("assertions", "clauses"),
        judged={"opposite": "yes", **_DENSITY, "realistic": "yes"},
    ),
    "evaluations": Mode(
        shows=("subdomain",),
        judged={"about_evaluations": "yes", **_NO_VALUE, "realistic": "yes"},
        names_model=None,
    ),
}
