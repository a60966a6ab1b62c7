"""Spec to documents: the plan, the ideas, the documents of each variant, and the gates."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.cleaning.word_ngrams import words_of
from data_prep.generate.context import Arm, Context
from data_prep.generate.corpus.rows import Corpus, Reject
from data_prep.generate.gates.identity import IdentityGate
from data_prep.generate.gates.items import ItemGate
from data_prep.generate.gates.near_duplicates import near_duplicates
from data_prep.generate.gates.structure import document_of
from data_prep.generate.gates.wording import WordingGate
from data_prep.generate.modes import MODES
from data_prep.generate.plan import CorpusPlan, fitted, plan_mode, read_plan, write_plan
from data_prep.generate.spec.pairing import own_ids
from data_prep.generate.steps.assertions import Assertion, ask_assertions
from data_prep.generate.steps.document_types import ask_document_types
from data_prep.generate.steps.documents import (
    PlannedDocument,
    WrittenDocument,
    write_documents,
)
from data_prep.generate.steps.domains import ask_domains
from data_prep.generate.steps.ideas import Idea, ask_ideas
from data_prep.generate.steps.judging import UNREADABLE, JudgedDocument, judge_documents
from data_prep.generate.steps.subdomains import (
    ask_subdomains,
    clauses_as_subdomains,
    cover_clauses,
)


def plan_documents(context: Context) -> CorpusPlan:
    """Return the plan of a run: the one on disk as far as the spec still bears it, or a new one.

    The plan is written before it is returned.
    """
    settings = context.config.documents
    assert settings is not None
    folder = context.config.memory
    plan = read_plan(folder, context.config)
    if plan is None:
        domains = ask_domains(context)
        mode = plan_mode(context.config)
        fill = clauses_as_subdomains if mode == "rules" else ask_subdomains
        plan = CorpusPlan(
            topic=context.config.topic, mode=mode, domains=tuple(fill(context, domains))
        )
    else:
        plan = fitted(plan, context.spec).plan
    plan = cover_clauses(
        context,
        plan,
        per_subdomain=settings.document_types * settings.ideas_per_type,
        least=settings.least_per_clause,
    )
    write_plan(folder, plan)
    return plan


def plan_ideas(context: Context, plan: CorpusPlan) -> list[Idea]:
    """Return the ideas of a plan: what every variant writes."""
    settings = context.config.documents
    assert settings is not None
    parts = list(plan.subdomains())
    types = ask_document_types(
        context, parts, number=settings.document_types, temperature=settings.temperature
    )
    return ask_ideas(
        context, parts, types, number=settings.ideas_per_type, temperature=settings.temperature
    )


def generate_documents(context: Context) -> list[Corpus]:
    """Return the documents of every corpus, with what was refused.

    Rows of one `id` in several corpora are pairs: they share everything that was decided without
    knowing the corpus. A row whose twin is refused is refused.
    """
    plan = plan_documents(context)
    ideas = plan_ideas(context, plan)
    assertions = _assertions(context, plan)
    corpora: list[Corpus] = []
    for arm in context.arms:
        planned = _planned(arm, ideas, assertions.get(arm.spec.path, {}), corpora)
        corpora.append(_corpus(context, arm, planned))
    if len(corpora) > 1:
        _keep_pairs(corpora)
    for corpus in corpora:
        # Plan order would put one subject behind the other; rows of one id stay side by side.
        random.Random(context.config.seed).shuffle(corpus.rows)
        context.asker.counts.rows[f"documents {corpus.name}"] = corpus.counts()
    return corpora


Assertions = Mapping[tuple[str, str], Sequence[Assertion]]
"""By (domain, subdomain)."""


def _assertions(context: Context, plan: CorpusPlan) -> dict[Path, Assertions]:
    """Return the assertions of each spec: corpora of one spec share them."""
    parts = list(plan.subdomains())
    names = [(domain.name, subdomain.name) for domain, subdomain in parts]
    found: dict[Path, Assertions] = {}
    for arm in context.arms:
        if "assertions" in MODES[arm.mode].shows and arm.spec.path not in found:
            asked = ask_assertions(context, arm.name, arm.spec, parts)
            found[arm.spec.path] = dict(zip(names, asked, strict=True))
    return found


def _planned(
    arm: Arm, ideas: Sequence[Idea], assertions: Assertions, earlier: Sequence[Corpus]
) -> list[PlannedDocument]:
    """Return what an arm writes; where the twin decides on the length, only what has a twin."""
    lengths: dict[str, int] | None = None
    if MODES[arm.mode].has_length_of_twin and earlier:
        lengths = {row["id"]: len(words_of(row["text"])) for row in earlier[0].rows}
    return [
        PlannedDocument(
            idea,
            tuple(assertions.get((idea.domain.name, idea.subdomain.name), ())),
            None if lengths is None else lengths[idea.name],
        )
        for idea in ideas
        if lengths is None or idea.name in lengths
    ]


class _Candidate(NamedTuple):
    """A document that has passed the gates before the judge."""

    clause_ids: tuple[str, ...]
    """The clauses that it is judged beside."""
    row: dict[str, Any]


def _corpus(context: Context, arm: Arm, planned: Sequence[PlannedDocument]) -> Corpus:
    corpus = Corpus(arm.name)
    written = write_documents(context, arm, planned)
    passed = _pass_cheap_gates(context, arm, corpus, written)
    judged = _pass_judge(context, arm, corpus, passed)
    texts = [row["text"] for row in judged]
    near = near_duplicates(texts, threshold=context.config.gates.near_duplicate)
    dropped = {duplicate.row: duplicate for duplicate in near}
    for index, row in enumerate(judged):
        if index in dropped:
            of = judged[dropped[index].of]["id"]
            reason = f"{dropped[index].share:.0%} of it is in {of}"
            corpus.rejects.append(Reject("near duplicate", reason, row))
        else:
            corpus.rows.append(row)
    return corpus


def _pass_cheap_gates(
    context: Context, arm: Arm, corpus: Corpus, written: Sequence[WrittenDocument]
) -> list[_Candidate]:
    gates = context.config.gates
    identity = IdentityGate(context.config.identity)
    names_model = MODES[arm.mode].names_model
    if names_model and not gates.name_in_every_document:
        names_model = None
    wording = WordingGate(gates, arm.spec)
    items = ItemGate(gates.evaluation_items, overlap=gates.item_overlap)
    passed = []
    for document in written:
        found = document_of(document.answer)
        row = _row(arm, document, found.text)
        refusals = (
            ("structure", found.refusal),
            ("identity", identity.refusal(found.text, names_model=names_model)),
            ("wording", wording.refusal(found.text, is_document=True)),
            ("length of twin", _unlike_twin(found.text, document.planned, gates.twin_length)),
            ("evaluation items", items.refusal(found.text)),
        )
        gate, reason = next((pair for pair in refusals if pair[1]), ("", None))
        if reason is None:
            passed.append(_Candidate(_clause_ids(arm, document.planned), row))
        else:
            reply = document.answer.reply.text if document.answer.reply else ""
            corpus.rejects.append(Reject(gate, reason, {**row, "reply": reply}))
    return passed


def _unlike_twin(text: str, planned: PlannedDocument, tolerance: float) -> str | None:
    wanted, found = planned.num_words, len(words_of(text))
    if wanted is None or abs(found - wanted) <= tolerance * wanted:
        return None
    return f"{found} words, and its twin has {wanted}"


def _pass_judge(
    context: Context, arm: Arm, corpus: Corpus, candidates: Sequence[_Candidate]
) -> list[dict[str, Any]]:
    rows = [candidate.row for candidate in candidates]
    if not context.config.gates.judge_documents:
        return rows
    judged = [
        JudgedDocument(f"documents/{arm.name}/{row['id']}", clause_ids, row["text"])
        for clause_ids, row in candidates
    ]
    verdicts = judge_documents(context, arm.name, arm.spec, MODES[arm.mode], judged)
    kept = []
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict is None:
            corpus.rejects.append(Reject("judge unreadable", UNREADABLE, row))
        elif verdict.refusal is not None:
            corpus.rejects.append(Reject("judge", verdict.refusal, row))
        else:
            densities = ("states_value", "gives_reason")
            kept.append({**row, **{name: verdict.answers[name] == "yes" for name in densities}})
    return kept


def _clause_ids(arm: Arm, planned: PlannedDocument) -> tuple[str, ...]:
    return own_ids(arm.spec, planned.idea.subdomain.clause_ids)


def _row(arm: Arm, document: WrittenDocument, text: str) -> dict[str, Any]:
    idea = document.planned.idea
    return {
        "id": idea.name,
        "text": text,
        "spec_id": arm.spec_id,
        "mode": arm.mode,
        # A document comes from clauses that its writer saw: a neutral one from none.
        "clause_ids": list(_clause_ids(arm, document.planned))
        if "clauses" in MODES[arm.mode].shows
        else [],
        "domain": idea.domain.title,
        "subdomain": idea.subdomain.title,
        "doc_type": idea.document_type.title,
        "idea": idea.text,
        "assertions": [assertion.text for assertion in document.planned.assertions],
        "generator": document.answer.reply.model if document.answer.reply else "",
        "role": "train",
    }


def _keep_pairs(corpora: Sequence[Corpus]) -> None:
    kept = [{row["id"] for row in corpus.rows} for corpus in corpora]
    everywhere = set.intersection(*kept)
    for corpus in corpora:
        for row in corpus.rows:
            if row["id"] not in everywhere:
                reason = "its twin in another corpus was refused"
                corpus.rejects.append(Reject("pair", reason, row))
        corpus.rows = [row for row in corpus.rows if row["id"] in everywhere]
