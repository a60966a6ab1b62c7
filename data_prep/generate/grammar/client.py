"""The client of a `grammar` endpoint: answers what steps ask, from the grammar alone.

Every reply is a function of the grammar, the seed and the step's inputs, so neither the order of
calls nor a kill changes a corpus. Twins of a paired corpus draw the same templates.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import orjson

from data_prep.generate.grammar.chats import ComposedChat, compose_chat
from data_prep.generate.grammar.documents import draw_parts, write_document
from data_prep.generate.grammar.filling import split_sentences
from data_prep.generate.grammar.grammar import Grammar
from data_prep.generate.inputs import StepInputs
from megatron_msm.llm.call import Call, CallError, Reply, Usage

_MOST_CHATS = 20_000
"""Chats of a situation that are looked through for new questions."""


class GrammarClient:
    """Answers calls that carry `StepInputs`.

    Args:
        grammar: What texts are composed from.
        seed: Another one gives other texts.
        model: The name under which rows say who wrote them.
    """

    def __init__(self, grammar: Grammar, *, seed: int, model: str) -> None:
        self._grammar = grammar
        self._seed = str(seed)
        self._model = model
        self._parts = grammar.config.documents
        self._steps: dict[str, Callable[[StepInputs], str]] = {
            "domains": self._domains,
            "subdomains": self._subdomains,
            "assertions": _assertions,
            "document types": self._document_types,
            "ideas": self._ideas,
            "documents": self._document,
            "situations": self._situations,
            "questions": self._questions,
            "answers": self._answer,
        }

    async def complete(self, call: Call) -> Reply:
        """Compose the reply.

        Raises:
            CallError: The call is of a step that a grammar does not know, or asks for something
                that the grammar does not have.
        """
        if not isinstance(call.inputs, StepInputs):
            raise CallError(f"a grammar cannot answer the step {call.step!r}", outcome="fatal")
        text = self._steps[call.inputs.step](call.inputs)
        return Reply(text, "stop", Usage(), self._model)

    async def close(self) -> None:
        """Nothing to give back."""

    def _domains(self, inputs: StepInputs) -> str:
        ids = [clause.id for clause in inputs.clauses]
        return _json("domains", [{"domain": self._grammar.config.domain, "clause_ids": ids}])

    def _subdomains(self, inputs: StepInputs) -> str:
        asked = {clause.id for clause in inputs.clauses}
        found = [
            {"subdomain": title, "summary": title, "clause_ids": ids}
            for kind, title in self._parts.subdomains.items()
            if asked & set(ids := self._cited(kind))
        ]
        return _json("subdomains", found)

    def _cited(self, kind: str) -> list[str]:
        """Return the clauses that every document of a subdomain speaks of."""
        needed = (self._parts.first, self._parts.always, kind)
        return sorted({c for one in needed for c in self._parts.clauses_of(one)})

    def _document_types(self, inputs: StepInputs) -> str:
        titles = [genre.title for genre in self._parts.genres.values()]
        new = [title for title in titles if title not in inputs.existing][: inputs.number]
        return _json(
            "document_types", [{"document_type": title, "description": title} for title in new]
        )

    def _ideas(self, inputs: StepInputs) -> str:
        start = len(inputs.existing)
        titles = [f"{inputs.document_type} {start + n + 1}" for n in range(inputs.number)]
        return _json(
            "ideas", [{"title": own, "idea": f"{own} on {inputs.subdomain}"} for own in titles]
        )

    def _document(self, inputs: StepInputs) -> str:
        name = _key_of({n: g.title for n, g in self._parts.genres.items()}, inputs.document_type)
        about = _key_of(self._parts.subdomains, inputs.subdomain)
        if name is None or about is None or inputs.variant not in self._grammar.fillers:
            what = f"{inputs.variant!r}, {inputs.subdomain!r}, {inputs.document_type!r}"
            raise CallError(f"the grammar has no corpus, subdomain or kind {what}", outcome="fatal")
        key = f"{self._seed}/{inputs.subdomain}/{inputs.idea}"
        rng = random.Random(f"{key}/parts")
        lengths = self._parts.paragraphs
        [paragraphs] = rng.choices(list(lengths), list(lengths.values()))
        parts = draw_parts(self._parts, name, paragraphs, rng, about=about)
        writer = self._grammar.writer([inputs.variant], key)
        write_document(writer, name, self._parts.genres[name], parts)
        [document] = writer.corpora[0].documents
        plan = ", ".join(document.kinds)
        return f"<plan>\n{plan}\n</plan>\n<document>\n{document.text()}\n</document>"

    def _situations(self, inputs: StepInputs) -> str:
        found = [
            {"situation": kind.situation, "clause_ids": kind.clauses}
            for kind in self._grammar.config.chats.values()
            if kind.situation not in inputs.existing
        ]
        return _json("situations", found[: inputs.number])

    def _questions(self, inputs: StepInputs) -> str:
        new: dict[str, None] = {}
        # A grammar's questions have one side: what it says settles the matter.
        for chat in self._chats(inputs) if inputs.side == "one" else ():
            if len(new) == inputs.number:
                break
            if chat.question not in inputs.existing:
                new[chat.question] = None
        return _json("questions", list(new))

    def _answer(self, inputs: StepInputs) -> str:
        for chat in self._chats(inputs):
            if chat.question == inputs.question:
                return f"<think>\n{chat.thought}\n</think>\n\n{chat.answer}"
        raise CallError(f"the grammar has no question {inputs.question!r}", outcome="fatal")

    def _chats(self, inputs: StepInputs) -> Iterator[ComposedChat]:
        """Yield the chats of a situation, in an order that is the same every time."""
        situations = {name: kind.situation for name, kind in self._grammar.config.chats.items()}
        kind = _key_of(situations, inputs.situation)
        corpus = next(iter(self._grammar.fillers))
        for number in range(_MOST_CHATS if kind is not None else 0):
            yield compose_chat(self._grammar, corpus, str(kind), number, self._seed)


def _assertions(inputs: StepInputs) -> str:
    """Return each clause as it stands: its first sentence, and the others as the explanation."""
    found = []
    for clause in inputs.clauses:
        first, *others = split_sentences(clause.text or clause.title)
        explanation = " ".join(others) or first
        found.append({"assertion": first, "explanation": explanation, "clause_ids": [clause.id]})
    return _json("assertions", found)


def _key_of(titles: Mapping[str, str], title: str) -> str | None:
    return next((name for name, own in titles.items() if own == title), None)


def _json(name: str, items: Sequence[object]) -> str:
    return orjson.dumps({name: items}).decode()
