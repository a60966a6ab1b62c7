"""What a generation run keeps, and what it refuses and why."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Reject(NamedTuple):
    """A row that was not kept."""

    gate: str
    reason: str
    row: dict[str, Any]
    """What is known of it; `reply` holds what the model wrote."""

    def as_json(self) -> dict[str, Any]:
        """Return its line in the file of rejects."""
        return {"gate": self.gate, "reason": self.reason, **self.row}


@dataclass
class Corpus:
    """The rows of one corpus, in the order in which they are written."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def counts(self) -> Counter[str]:
        """Return rows kept and refused by gate; they add up to what was written."""
        counts = Counter({"kept": len(self.rows)})
        counts.update(f"refused: {reject.gate}" for reject in self.rejects)
        return counts
