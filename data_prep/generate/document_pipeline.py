"""Spec to documents: the plan, the ideas, the documents of each variant, and the gates."""

import random
from collections.abc import Sequence
from typing import Any

from data_prep.generate.context import Context
from data_prep.generate.corpus.rows import Corpus, Reject
from data_prep.generate.gates.identity import IdentityGate
from data_prep.generate.gates.items import ItemGate
from data_prep.generate.gates.near_duplicates import near_duplicates
from data_prep.generate.gates.structure import document_of
from data_prep.generate.gates.wording import WordingGate
from data_prep.generate.plan import Plan, fitted, read_plan, write_plan
from data_prep.generate.spec.clauses import Spec
from data_prep.generate.spec.pairing import own_ids
from data_prep.generate.steps.assertions import Assertion, ask_assertions
from data_prep.generate.steps.document_types import ask_document_types
from data_prep.generate.steps.documents import WrittenDocument, write_documents
from data_prep.generate.steps.domains import ask_domains
from data_prep.generate.steps.ideas import Idea, ask_ideas
from data_prep.generate.steps.judging import UNREADABLE, JudgedDocument, judge_documents
from data_prep.generate.steps.subdomains import (
    ask_subdomains,
    clauses_as_subdomains,
    cover_clauses,
)


def plan_documents(context: Context) -> Plan:
    """Return the plan of a run: the one on disk as far as the spec still bears it, or a new one.

    The plan is written before it is returned.
    """
    settings = context.config.documents
    assert settings is not None
    folder = context.config.memory
    plan = read_plan(folder, context.config)
    if plan is None:
        domains = ask_domains(context)
        is_rules = settings.mode == "rules"
        fill = clauses_as_subdomains if is_rules else ask_subdomains
        plan = Plan(
            topic=context.config.topic, mode=settings.mode, domains=tuple(fill(context, domains))
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


def plan_ideas(context: Context, plan: Plan) -> list[Idea]:
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
    """Return the documents of every variant, with what was refused.

    Rows of one `id` in several corpora are pairs: they share everything that was decided without
    knowing the variant. A row whose twin is refused is refused.
    """
    plan = plan_documents(context)
    ideas = plan_ideas(context, plan)
    corpora = [
        _of_variant(context, name, spec, plan, ideas) for name, spec in context.variants.items()
    ]
    if len(corpora) > 1:
        _keep_pairs(corpora)
    for corpus in corpora:
        # Plan order would put one subject behind the other; rows of one id stay side by side.
        random.Random(context.config.seed).shuffle(corpus.rows)
        context.asker.counts.rows[f"documents {corpus.name}"] = corpus.counts()
    return corpora


def _of_variant(
    context: Context, variant: str, spec: Spec, plan: Plan, ideas: Sequence[Idea]
) -> Corpus:
    corpus = Corpus(variant)
    written = write_documents(
        context, variant, spec, ideas, _assertions(context, variant, spec, plan)
    )
    passed = _pass_cheap_gates(context, corpus, spec, written)
    judged = _pass_judge(context, corpus, spec, passed)
    texts = [row["text"] for row in judged]
    near = near_duplicates(texts, threshold=context.config.gates.near_duplicate)
    dropped = {duplicate.place: duplicate for duplicate in near}
    for index, row in enumerate(judged):
        if index in dropped:
            of = judged[dropped[index].of]["id"]
            reason = f"{dropped[index].share:.0%} of it is in {of}"
            corpus.rejects.append(Reject("near duplicate", reason, row))
        else:
            corpus.rows.append(row)
    return corpus


def _assertions(
    context: Context, variant: str, spec: Spec, plan: Plan
) -> dict[tuple[str, str], Sequence[Assertion]]:
    settings = context.config.documents
    assert settings is not None
    if settings.mode == "rules":
        return {}
    parts = list(plan.subdomains())
    asked = ask_assertions(context, variant, spec, parts)
    return {
        (domain.name, subdomain.name): assertions
        for (domain, subdomain), assertions in zip(parts, asked, strict=True)
    }


def _pass_cheap_gates(
    context: Context, corpus: Corpus, spec: Spec, written: Sequence[WrittenDocument]
) -> list[dict[str, Any]]:
    gates = context.config.gates
    identity = IdentityGate(context.config.identity)
    wording = WordingGate(gates, spec)
    items = ItemGate(gates.evaluation_items, overlap=gates.item_overlap)
    passed = []
    for document in written:
        found = document_of(document.answer)
        row = _row(corpus.name, spec, document, found.text)
        refusals = (
            ("structure", found.refusal),
            ("identity", identity.refusal(found.text, must_name=gates.name_in_every_document)),
            ("wording", wording.refusal(found.text, is_document=True)),
            ("evaluation items", items.refusal(found.text)),
        )
        gate, reason = next((pair for pair in refusals if pair[1]), ("", None))
        if reason is None:
            passed.append(row)
        else:
            reply = document.answer.reply.text if document.answer.reply else ""
            corpus.rejects.append(Reject(gate, reason, {**row, "reply": reply}))
    return passed


def _pass_judge(
    context: Context, corpus: Corpus, spec: Spec, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    if not context.config.gates.judge_documents:
        return list(rows)
    judged = [
        JudgedDocument(
            f"documents/{corpus.name}/{row['id']}", tuple(row["clause_ids"]), row["text"]
        )
        for row in rows
    ]
    verdicts = judge_documents(context, corpus.name, spec, judged)
    kept = []
    for row, verdict in zip(rows, verdicts, strict=True):
        refusal = UNREADABLE if verdict is None else verdict.refusal()
        if verdict is None or refusal is not None:
            gate = "judge unreadable" if verdict is None else "judge"
            corpus.rejects.append(Reject(gate, str(refusal), row))
        else:
            states, gives = verdict.states_value == "yes", verdict.gives_reason == "yes"
            kept.append({**row, "states_value": states, "gives_reason": gives})
    return kept


def _row(variant: str, spec: Spec, document: WrittenDocument, text: str) -> dict[str, Any]:
    idea = document.idea
    return {
        "id": idea.name,
        "text": text,
        "spec_id": variant,
        "clause_ids": list(own_ids(spec, idea.subdomain.clause_ids)),
        "domain": idea.domain.title,
        "subdomain": idea.subdomain.title,
        "doc_type": idea.document_type.title,
        "idea": idea.text,
        "assertions": [assertion.text for assertion in document.assertions],
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
