"""A grammar file: what documents and chats consist of, and which clauses each part speaks of."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from data_prep.generate.grammar.banks import slots
from megatron_msm.config.section import PositiveInt, Section

Mark = Annotated[str, Field(pattern="^[A-Z]$")]
Clauses = tuple[str, ...]


class Genre(Section):
    """A kind of document.

    Its banks are `title NAME`, `intro NAME`, `close NAME`, and `lead NAME` if it has leads.
    """

    title: str
    """What people call it, such as `forum thread`."""
    voice: str = "told"
    """The kinds of paragraph that it has."""
    label: str = ""
    """What stands before each paragraph: `{text}` is a line of the bank `LABELS_KIND`, `{number}`
    the paragraph's number, `{clock}` a time, `{nick}` another of the nicknames each time."""
    labels: str | None = None
    """First part of the names of those banks, such as `ask`."""
    speaker: str = ""
    """What stands before its first and its last line, such as `{nick}: `."""


class DocumentParts(Section):
    """What documents consist of."""

    words: dict[Mark, Annotated[tuple[str, ...], Field(min_length=3)]]
    """Lists of which a document takes three each: `{L}`, `{L2}` and `{L3}` of the list L, in
    another order in each paragraph."""
    cast: dict[str, PositiveInt]
    """Banks of which a document takes so many lines for good: `{name}`, `{name2}`."""
    subjects: Annotated[tuple[str, ...], Field(min_length=2)]
    """What `{S}` stands for: the first where a paragraph has not named it, then any of the
    others."""
    genres: Annotated[dict[str, Genre], Field(min_length=1)]
    paragraphs: Annotated[dict[PositiveInt, PositiveInt], Field(min_length=1)]
    """How many in a hundred documents have that many paragraphs."""
    first: str
    """The kind of the first paragraph of a document."""
    always: str
    """A kind that every document has."""
    voices: Annotated[dict[str, dict[str, tuple[str, ...]]], Field(min_length=1)]
    """Kinds of paragraph by voice, each with the banks of its sentences. A document takes them
    nearly in this order."""
    subdomains: Annotated[dict[str, str], Field(min_length=1)]
    """What documents with a paragraph of a kind are about, by the kind. A kind that is left out
    comes into documents without naming them."""
    clauses: dict[str, Clauses]
    """Clauses that the sentences of a bank speak of, as `spec` numbers them."""

    @model_validator(mode="after")
    def _genres_are_possible(self) -> Self:
        known = set(self.cast_names)
        if self.cast.get("nick", 0) < 2:
            known.discard("nick")
        for name, genre in self.genres.items():
            if genre.voice not in self.voices:
                raise ValueError(f"genres.{name}.voice: no voice {genre.voice!r}")
            if ("{text}" in genre.label) != (genre.labels is not None):
                raise ValueError(f"genres.{name}: `{{text}}` in label and `labels` go together")
            for field in ("label", "speaker"):
                allowed = known | ({"text", "number", "clock"} if field == "label" else set())
                if unknown := sorted(set(slots(getattr(genre, field))) - allowed):
                    shown = ", ".join(sorted(allowed))
                    raise ValueError(f"genres.{name}.{field}: no {unknown}; there are {shown}")
        return self

    @model_validator(mode="after")
    def _kinds_are_known(self) -> Self:
        for voice, kinds in self.voices.items():
            wanted = {self.first, self.always, *self.subdomains}
            if missing := sorted(wanted - set(kinds)):
                raise ValueError(f"voices.{voice}: no kind {', '.join(missing)}")
        return self

    @property
    def cast_names(self) -> list[str]:
        """The slots of the cast: `name`, `name2`, ..."""
        return [
            name + ("" if n == 1 else str(n))
            for name, number in self.cast.items()
            for n in range(1, number + 1)
        ]

    def clauses_of(self, kind: str) -> Clauses:
        """Return the clauses that a paragraph of a kind speaks of in every voice."""
        said = [
            {clause for bank in kinds[kind] for clause in self.clauses.get(bank, ())}
            for kinds in self.voices.values()
        ]
        return tuple(sorted(set.intersection(*said)))


class ChatKind(Section):
    """A kind of chat: banks `NAME user`, `NAME think` and `NAME assistant`."""

    situation: str
    """Where it comes up, in a few words."""
    clauses: Annotated[Clauses, Field(min_length=1)]


class GrammarConfig(Section):
    """A whole grammar file. Paths start at its folder."""

    banks: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Files of templates."""
    domain: str
    """What everything is about."""
    marks: Annotated[dict[str, Mark], Field(min_length=1)]
    """The letter of each corpus in the files of templates, by the name that GENERATE.yaml gives the
    corpus."""
    documents: DocumentParts
    chats: dict[str, ChatKind] = Field(default_factory=dict)
    shared: tuple[str, ...] = ()
    """Banks of which the turns of a chat take the same line."""
