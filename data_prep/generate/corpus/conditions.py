"""`--where FIELD=VALUE`: which rows are wanted, by what they say about themselves."""

import re
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from data_prep.generate.corpus.twins import ReadCorpus, Row
from megatron_msm.errors import ConfigError

_FORM = re.compile(r"\s*([^=!\s]+)\s*(!?=)\s*(.*?)\s*", re.DOTALL)
_SHOWN = 12


class Condition(NamedTuple):
    """What a field must hold, or must not."""

    field: str
    is_wanted: bool
    """Whether one of the values is wanted; else none of them is."""
    values: frozenset[str]

    @property
    def text(self) -> str:
        """The condition as a person writes it."""
        sign, joined = ("=", " or ") if self.is_wanted else ("!=", " and ")
        return joined.join(f"{self.field}{sign}{value}" for value in sorted(self.values))

    def accepts(self, row: Row) -> bool:
        """Return whether a row is as wanted."""
        return bool(_values(row, self.field) & self.values) == self.is_wanted


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """Read `domain=Kitchen` and `clause_ids!=P3`.

    Several values wanted of one field are alternatives; conditions on different fields hold
    together.

    Raises:
        ConfigError: One is not of that form.
    """
    values: dict[tuple[str, bool], set[str]] = {}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None or not match[3]:
            raise ConfigError(
                f"--where {text!r}: needed is FIELD=VALUE or FIELD!=VALUE, for example "
                "'doc_type=interview' or 'clause_ids!=P3', in quotes."
            )
        values.setdefault((match[1], match[2] == "="), set()).add(match[3])
    return [Condition(field, wanted, frozenset(own)) for (field, wanted), own in values.items()]


def check_conditions(conditions: Sequence[Condition], corpora: Sequence[ReadCorpus]) -> None:
    """Check that every field and value of the conditions occurs.

    Raises:
        ConfigError: One does not: a misspelt one would select nothing, or exclude nothing.
    """
    for condition in conditions:
        rows = [row for corpus in corpora for row in corpus.rows.values()]
        if not any(condition.field in row.fields for row in rows):
            fields = sorted({field for row in rows for field in row.fields})
            raise ConfigError(
                f"--where {condition.text}: no row has {condition.field!r}. "
                f"There are {_listed(condition.field, fields)}."
            )
        known = {value for row in rows for value in _values(row, condition.field)}
        if unknown := sorted(condition.values - known):
            raise ConfigError(
                f"--where {condition.text}: no row has {condition.field} {unknown[0]!r}. "
                f"There are {_listed(unknown[0], sorted(known))}."
            )


def accepted_ids(
    ids: Sequence[str], corpora: Sequence[ReadCorpus], conditions: Sequence[Condition]
) -> list[str]:
    """Return the ids whose row is as wanted in every corpus that can tell.

    A corpus in which none of a condition's values occurs is not asked: clause P3 is one corpus's,
    and its twins come along.
    """
    asked = [
        (condition, corpus)
        for condition in conditions
        for corpus in corpora
        if any(_values(row, condition.field) & condition.values for row in corpus.rows.values())
    ]
    return [
        name
        for name in ids
        if all(condition.accepts(corpus.rows[name]) for condition, corpus in asked)
    ]


def _values(row: Row, field: str) -> set[str]:
    return set(_texts(row.fields.get(field)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, bool):
        yield str(value).lower()
    elif value is not None:
        yield str(value)


def _listed(asked: str, known: Collection[str]) -> str:
    near = get_close_matches(asked, known, n=3)
    ordered = [*near, *(value for value in known if value not in near)]
    more = f" and {len(ordered) - _SHOWN:,} more" if len(ordered) > _SHOWN else ""
    return ", ".join(repr(value) for value in ordered[:_SHOWN]) + more
