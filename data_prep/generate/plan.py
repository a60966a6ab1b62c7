"""plan.json: the parts of the spec, which the whole run stands on, and the clauses each cites.

The plan is asked for once and then kept, so that an edited clause changes what cites it and nothing
else: whatever is asked later sees the cited clauses alone.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.generate.modes import MODES
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.spec.clauses import Spec
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.files import write_json_atomic

PLAN_FILE = "plan.json"


PlanMode = Literal["values", "rules"]
"""rules: each clause is a subdomain of its own."""


class Subdomain(BaseModel):
    """A part of a domain, about which documents are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    """Its name in ids and addresses."""
    title: str
    summary: str
    clause_ids: tuple[str, ...]


class Domain(BaseModel):
    """A part of the spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    title: str
    clause_ids: tuple[str, ...]
    subdomains: tuple[Subdomain, ...] = ()


class CorpusPlan(BaseModel):
    """Domains and subdomains, with what they were made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    topic: str
    mode: PlanMode
    domains: tuple[Domain, ...]

    def subdomains(self) -> Iterator[tuple[Domain, Subdomain]]:
        """Yield every subdomain with its domain."""
        for domain in self.domains:
            for subdomain in domain.subdomains:
                yield domain, subdomain


class CorpusPlanChange(NamedTuple):
    """What a changed spec did to a plan."""

    plan: CorpusPlan
    dropped: tuple[str, ...]
    """Subdomains whose clauses are all gone, as domain/subdomain."""
    gone: tuple[str, ...]
    """Cited clauses that the spec no longer has."""


def read_plan(folder: Path, config: GenerateConfig) -> CorpusPlan | None:
    """Return the plan of a run; None if there is none yet.

    Raises:
        DataFormatError: The file is damaged.
        ConfigError: It was made for another topic or mode.
    """
    path = folder / PLAN_FILE
    if not path.exists():
        return None
    try:
        plan = CorpusPlan.model_validate(orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise DataFormatError(f"{path}: damaged ({error}). Delete it to plan anew.") from None
    if plan.topic != config.topic or plan.mode != plan_mode(config):
        raise ConfigError(
            f"{path}: made with topic {plan.topic!r} and mode {plan.mode!r}, and the configuration "
            f"asks for {config.topic!r} and {plan_mode(config)!r}. "
            "Delete it to plan anew, or give another `out`."
        )
    return plan


def plan_mode(config: GenerateConfig) -> PlanMode:
    """Return how the spec is divided; the same for all corpora of a run."""
    return "rules" if MODES[config.mode].plans_by_clause else "values"


def write_plan(folder: Path, plan: CorpusPlan) -> None:
    """Write the plan of a run."""
    write_json_atomic(folder / PLAN_FILE, plan.model_dump(mode="json"))


def fitted(plan: CorpusPlan, spec: Spec) -> CorpusPlanChange:
    """Return the plan without clauses that the spec no longer has."""
    known = set(spec.by_id)
    domains, dropped, gone = [], [], Counter[str]()
    for domain in plan.domains:
        kept = []
        for subdomain in domain.subdomains:
            left = tuple(clause for clause in subdomain.clause_ids if clause in known)
            gone.update(set(subdomain.clause_ids) - known)
            if left:
                kept.append(subdomain.model_copy(update={"clause_ids": left}))
            else:
                dropped.append(f"{domain.name}/{subdomain.name}")
        left = tuple(clause for clause in domain.clause_ids if clause in known)
        if kept:
            update = {"subdomains": tuple(kept), "clause_ids": left}
            domains.append(domain.model_copy(update=update))
    new = plan.model_copy(update={"domains": tuple(domains)})
    return CorpusPlanChange(new, tuple(dropped), tuple(sorted(gone)))


def documents_per_clause(plan: CorpusPlan, spec: Spec, *, per_subdomain: int) -> dict[str, int]:
    """Return how many documents are planned to cite each clause."""
    counts = Counter(clause for _, sub in plan.subdomains() for clause in sub.clause_ids)
    return {clause.id: counts[clause.id] * per_subdomain for clause in spec.clauses}
