"""What a step's prompt is made from, for endpoints that do not read prose."""

from dataclasses import dataclass
from typing import Literal

from data_prep.generate.spec.clauses import Clause

StepName = Literal[
    "domains",
    "subdomains",
    "assertions",
    "document types",
    "ideas",
    "documents",
    "situations",
    "questions",
    "answers",
]


@dataclass(frozen=True)
class StepInputs:
    """The same facts as in the prompt, by name; what a step does not use is empty."""

    step: StepName
    clauses: tuple[Clause, ...] = ()
    """What the model is shown of the spec."""
    variant: str = ""
    """The corpus; empty where all share what is asked for."""
    domain: str = ""
    subdomain: str = ""
    document_type: str = ""
    idea: str = ""
    situation: str = ""
    side: str = "one"
    question: str = ""
    number: int = 0
    """Items that are wanted."""
    existing: tuple[str, ...] = ()
    """Titles of items that are there already."""
