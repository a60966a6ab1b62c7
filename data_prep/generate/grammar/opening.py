"""The grammars of a run: read, held to its specs, and named by what is in them."""

from collections.abc import Mapping

from data_prep.generate.grammar.client import GrammarClient
from data_prep.generate.grammar.grammar import Grammar
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.spec.clauses import Spec
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.llm.call import Client
from megatron_msm.llm.endpoints import GrammarEndpoint, WriterEndpoint


def with_grammars(
    config: GenerateConfig, spec: Spec, corpora: Mapping[str, Spec]
) -> tuple[GenerateConfig, dict[str, Client]]:
    """Return the clients of the grammar endpoints by name, and the configuration that names them.

    An endpoint's model gets a hash of grammar and seed: replies are journalled under it, so that an
    edited grammar is not answered by what an earlier one said.

    Args:
        config: The run's.
        spec: What its plan and chats are made from.
        corpora: The specs of its corpora of documents.

    Raises:
        ConfigError: A grammar cannot be read, lacks a corpus, or cites clauses that are not there.
        DataFormatError: A template is broken.
    """
    clients: dict[str, Client] = {}
    endpoints: dict[str, WriterEndpoint] = dict(config.endpoints)
    for name, endpoint in config.endpoints.items():
        if isinstance(endpoint, GrammarEndpoint):
            grammar = Grammar(endpoint.path)
            _check(endpoint, grammar, spec, corpora)
            digest = sha256_of_json([grammar.sha256, endpoint.seed])[:12]
            model = f"{endpoint.model} {digest}"
            clients[name] = GrammarClient(grammar, seed=endpoint.seed, model=model)
            endpoints[name] = endpoint.model_copy(update={"model": model})
    return config.model_copy(update={"endpoints": endpoints}), clients


def _check(
    endpoint: GrammarEndpoint, grammar: Grammar, spec: Spec, corpora: Mapping[str, Spec]
) -> None:
    if missing := sorted(set(corpora) - set(grammar.fillers)):
        raise ConfigError(
            f"{endpoint.path}: marks: no corpus {', '.join(missing)}. The names are those of "
            f"`variants` (or of the spec's file): {', '.join(corpora)}."
        )
    parts, chats = grammar.config.documents, grammar.config.chats
    cited = {clause for ids in parts.clauses.values() for clause in ids}
    cited |= {clause for kind in chats.values() for clause in kind.clauses}
    if unknown := sorted(cited - set(spec.by_id)):
        raise ConfigError(
            f"{endpoint.path}: clauses {', '.join(unknown)} are not in {spec.path}, which has "
            f"{', '.join(spec.by_id)}."
        )
