"""A generation run from its configuration: specs read, endpoints opened, corpora written."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from data_prep.generate.asking import Asker, Watcher
from data_prep.generate.chat_pipeline import generate_chats
from data_prep.generate.context import Arm, Context
from data_prep.generate.corpus.folder import (
    SUMMARY_FILE,
    Written,
    write_chats,
    write_documents,
    write_summary,
)
from data_prep.generate.corpus.rows import Corpus
from data_prep.generate.counts import GenerationCounts
from data_prep.generate.document_pipeline import generate_documents
from data_prep.generate.gates.identity import IdentityGate
from data_prep.generate.gates.outliers import outliers
from data_prep.generate.grammar.opening import with_grammars
from data_prep.generate.prompts import Prompts
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.spec.clauses import Spec, read_spec
from data_prep.generate.spec.pairing import check_pairing
from megatron_msm.config.load import dump_config
from megatron_msm.config.paths import input_path
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_text_atomic
from megatron_msm.llm.call import Client
from megatron_msm.llm.endpoints import OfflineEndpoint
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.pool import Pool

JOURNAL_FILE = "journal.jsonl"
CONFIG_FILE = "generate.yaml"


class Made(NamedTuple):
    """What a run wrote."""

    files: list[Written]
    summary: dict[str, Any]


class OpenRun(NamedTuple):
    """A run whose endpoints are open."""

    context: Context
    pool: Pool
    journal: Journal


class Specs(NamedTuple):
    """The specs of a run."""

    spec: Spec
    """What plan and chats are made from."""
    arms: tuple[Arm, ...]
    """The corpora of documents; with `spec` itself where there is one."""


def read_specs(config: GenerateConfig) -> Specs:
    """Read the specs of a run.

    Raises:
        ConfigError: They do not pair, or name another model than the configuration.
        DataFormatError: One cannot be read.
    """
    spec = read_spec(config.spec)
    specs = {
        name: spec if variant.spec is None else read_spec(variant.spec)
        for name, variant in config.variants.items()
    }
    check_pairing(spec, specs)
    for one in (spec, *specs.values()):
        _check_identity(config, one)
    return Specs(spec, tuple(_arms(config, spec, specs)))


def _arms(config: GenerateConfig, shared: Spec, specs: Mapping[str, Spec]) -> Iterator[Arm]:
    """Yield the corpora; a spec is named after the first one that has it, the run's by its file."""
    names = {shared.path: shared.path.stem}
    for name, mode in config.modes.items():
        spec = specs.get(name, shared)
        if spec.path not in names and name in names.values():
            raise ConfigError(
                f"variants.{name}: is called as another spec of the run is, and rows name their "
                "spec so. Rename it."
            )
        yield Arm(name, spec, names.setdefault(spec.path, name), mode)


@contextlib.contextmanager
def opened(
    config: GenerateConfig,
    *,
    watcher: Watcher | None = None,
    clients: Mapping[str, Client] | None = None,
) -> Iterator[OpenRun]:
    """Open a run: its specs, its journal and its endpoints.

    Args:
        config: What to generate.
        watcher: A screen.
        clients: Clients in the place of those that the endpoints describe.

    Raises:
        ConfigError: A file of the configuration does not fit the others.
        DataFormatError: A spec cannot be read.
    """
    spec, arms = read_specs(config)
    for folder in (config.out, config.memory):
        folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(config.out / CONFIG_FILE, dump_config(config))
    counts = GenerationCounts()
    config, composers = with_grammars(config, spec, {arm.name: arm.spec for arm in arms})
    clients = {**composers, **(clients or {})}
    with (
        Journal(config.memory / JOURNAL_FILE) as journal,
        Pool(config.endpoints, journal=journal, budget=config.budget, clients=clients) as pool,
    ):
        asker = Asker(pool, config, counts, watcher=watcher)
        yield OpenRun(Context(config, spec, arms, Prompts(config.templates), asker), pool, journal)


def make_documents(run: OpenRun) -> Made:
    """Generate documents and write them."""
    if run.context.config.documents is None:
        raise ConfigError("no section `documents` in the configuration. Add it.")
    corpora = generate_documents(run.context)
    files = write_documents(run.context.config.out, corpora)
    return Made(files, _write_summary(run, documents=corpora))


def make_chats(run: OpenRun) -> Made:
    """Generate chats and write them."""
    if run.context.config.chats is None:
        raise ConfigError("no section `chats` in the configuration. Add it.")
    corpus = generate_chats(run.context)
    files = write_chats(run.context.config.out, corpus)
    return Made(files, _write_summary(run, chats=corpus))


def _write_summary(
    run: OpenRun, *, documents: list[Corpus] | None = None, chats: Corpus | None = None
) -> dict[str, Any]:
    """Write what this command did beside what the folder's other command did before."""
    context, folder = run.context, run.context.config.out
    path = folder / SUMMARY_FILE
    before = orjson.loads(path.read_bytes()) if path.exists() else {}
    counts = context.asker.counts.as_json()
    for part in ("replies", "rows", "judged_twice"):
        counts[part] = {**before.get("counts", {}).get(part, {}), **counts[part]}
    summary: dict[str, Any] = {
        "spec_sha256": context.spec.sha256,
        "variants": {
            arm.name: {"spec_sha256": arm.spec.sha256, "mode": arm.mode} for arm in context.arms
        },
        "counts": counts,
        "spent": {step: spent._asdict() for step, spent in sorted(run.journal.spent.items())},
        "total_spent": run.journal.total._asdict(),
        "judge": context.config.endpoints[context.config.judge_name].model,
        "documents": before.get("documents"),
        "clauses": before.get("clauses"),
        "chats": before.get("chats"),
    }
    if documents is not None:
        summary["documents"] = {corpus.name: _about(context, corpus) for corpus in documents}
        summary["clauses"] = {
            arm.name: _per_clause(arm.spec, corpus)
            for arm, corpus in zip(context.arms, documents, strict=True)
        }
    if chats is not None:
        summary["chats"] = {"rows": len(chats.rows), "clauses": _per_clause(context.spec, chats)}
    write_summary(folder, context.config, summary)
    return summary


def _about(context: Context, corpus: Corpus) -> dict[str, Any]:
    texts = [row["text"] for row in corpus.rows]
    identity = context.config.identity
    found = outliers(
        texts,
        share=context.config.gates.phrase_share,
        expected=(identity.model, identity.provider),
    )
    about: dict[str, Any] = {
        "rows": len(texts),
        "words": sum(len(text.split()) for text in texts),
        "outliers": [outlier._asdict() for outlier in found],
    }
    if corpus.rows and "gives_reason" in corpus.rows[0]:
        for name, key in (
            ("assertion_density", "states_value"),
            ("attribution_density", "gives_reason"),
        ):
            about[name] = sum(row[key] for row in corpus.rows) / len(corpus.rows)
    return about


def _per_clause(spec: Spec, corpus: Corpus) -> dict[str, int]:
    counts = dict.fromkeys(spec.by_id, 0)
    for row in corpus.rows:
        for clause in row["clause_ids"]:
            counts[clause] += 1
    return counts


def _check_identity(config: GenerateConfig, spec: Spec) -> None:
    if config.identity.model not in spec.text:
        raise ConfigError(
            f"{spec.path}: does not name the model {config.identity.model!r} of identity.model. "
            "Write the name into the spec, or correct the configuration."
        )
    name = IdentityGate(config.identity).foreign_name(spec.text)
    if name is not None:
        raise ConfigError(
            f"{spec.path}: names {name!r}, neither {config.identity.model!r} nor its maker. "
            "Correct the spec, or add the name to identity.also_allowed."
        )


def resolved_paths(config: GenerateConfig, file: Path) -> GenerateConfig:
    """Return the configuration with its inputs taken from the folder of its file.

    `out` stays as it is: the shell's folder is meant, as with every other output.
    """

    def at(path: Path) -> Path:
        return input_path(file, path)

    gates = config.gates.model_copy(
        update={"evaluation_items": tuple(map(at, config.gates.evaluation_items))}
    )
    endpoints = {
        name: endpoint.model_copy(update={"path": at(endpoint.path)})
        if isinstance(endpoint, OfflineEndpoint)
        else endpoint
        for name, endpoint in config.endpoints.items()
    }
    return config.model_copy(
        update={
            "spec": at(config.spec),
            "variants": {
                name: variant
                if variant.spec is None
                else variant.model_copy(update={"spec": at(variant.spec)})
                for name, variant in config.variants.items()
            },
            "templates": None if config.templates is None else at(config.templates),
            "gates": gates,
            "endpoints": endpoints,
        }
    )
