"""What flows through a preparation: lines in, items out.

    LineReader -> Block -> | lines -> parse -> Document | Chat | Reject | Blank -> encode |
                           |                     in a worker process                      |
                           -> EncodedBlock -> DatasetWriter

Every line becomes exactly one item, in order, so counts add up by construction and the reject file
is in line order whatever the blocks are.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.reading.messages import Message
from megatron_msm.errors import ConfigError
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.formats.provenance import CARRIED_TEXT_FIELDS, COLUMNS
from megatron_msm.formats.rejects import Reject, snippet_of


class RejectLineError(ValueError):
    """A line cannot become a row; the text is the reason that goes into the reject file."""


class Line(NamedTuple):
    """One line of an input file."""

    file: str
    """The path as given on the command line."""
    number: int
    """1-based."""
    byte_offset: int
    raw: bytes
    """With its line end; only the beginning if the line is over the limit."""
    over_limit: int | None = None
    """The limit in bytes, when the line is longer than that."""
    unreadable: str | None = None
    """Why there is nothing to parse, when the file's own format cannot give the row."""

    def reject(self, reason: str) -> Reject:
        """Return the record of this line's rejection."""
        return Reject(self.file, self.number, self.byte_offset, reason, snippet_of(self.raw))


def check_carry(fields: Sequence[str]) -> None:
    """Check the names given with `--carry`.

    Raises:
        ConfigError: A name is empty, given twice, or that of a column that is there anyway.
    """
    for index, name in enumerate(fields):
        if not name or name in fields[:index] or name in (*COLUMNS, "extra"):
            raise ConfigError(
                f"--carry {name}: name each field once, and none that is always a column of the "
                f"provenance ({', '.join(COLUMNS)})."
            )


def clause_number(clause_id: str) -> str:
    """Return by what a clause corresponds to that of a paired spec: 3 for P3, L3 and SP-3."""
    return re.sub(r"^[A-Za-z]+-?(?=\d)", "", clause_id)


class Blank(NamedTuple):
    """A line of nothing but white space."""

    line: Line


class Carried(NamedTuple):
    """Fields of an input line that are carried into the provenance."""

    clause_ids: list[str] | None
    extra: Mapping[str, str | None]
    """The fields named by `--carry`; what is no text, as JSON."""
    id: str | None
    spec_id: str | None
    domain: str | None
    subdomain: str | None
    doc_type: str | None
    idea: str | None
    role: str | None


assert Carried._fields[2:] == CARRIED_TEXT_FIELDS


class Document(NamedTuple):
    """A line with a text."""

    line: Line
    text: str
    utf8: bytes
    """The text as UTF-8."""
    carried: Carried


@dataclass(frozen=True, slots=True)
class Chat:
    """A line with a conversation."""

    line: Line
    messages: list[Message]
    """As the template sees them: without fields that say what is trained, or that are null."""
    trained: list[bool]
    """For each message whether it carries loss; True only for the assistant's."""
    tools: list[JsonObject] | None
    carried: Carried
    changes: tuple[str, ...] = ()
    """What was changed to bring the row into this form."""


Item = Document | Chat | Reject | Blank


def kind_of(value: object) -> str:
    """Return what a JSON value is, for a message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null or missing"
    return names.get(type(value), "a number")
