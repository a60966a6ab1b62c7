"""What every step of a run may look at."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.generate.asking import Asker
from data_prep.generate.modes import ModeName
from data_prep.generate.prompts import Prompts
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.spec.clauses import Clause, Spec, slug


class Arm(NamedTuple):
    """One corpus of documents."""

    name: str
    spec: Spec
    spec_id: str
    """The spec's name in rows; corpora of one spec share it."""
    mode: ModeName


@dataclass(frozen=True)
class Context:
    """The run's configuration, its specs, and who answers."""

    config: GenerateConfig
    spec: Spec
    """What plan, ideas and chats are made from."""
    arms: Sequence[Arm]
    """The corpora of documents; with `spec` itself where there is one."""
    prompts: Prompts
    asker: Asker

    @property
    def specs(self) -> dict[str, Spec]:
        """The specs of the corpora by the names that rows give them."""
        return {arm.spec_id: arm.spec for arm in self.arms}

    def prompt(self, name: str, **values: object) -> str:
        """Render a template with the model's name and maker, and the topic."""
        identity = self.config.identity
        common = {
            "model": identity.model,
            "provider": identity.provider,
            "topic": self.config.topic,
        }
        return self.prompts.render(name, common, **values)


def clauses_of(spec: Spec, ids: Iterable[str] | None = None) -> tuple[Clause, ...]:
    """Return clauses in the spec's order; all of them without `ids`."""
    wanted = None if ids is None else set(ids)
    return tuple(clause for clause in spec.clauses if wanted is None or clause.id in wanted)


def clause_lines(spec: Spec, ids: Iterable[str] | None = None) -> str:
    """Return clauses as a prompt shows them, each with its id; all of them without `ids`."""
    return "\n\n".join(_shown(clause) for clause in clauses_of(spec, ids))


def unique_slugs(texts: Sequence[str]) -> list[str]:
    """Return a name for each text, different ones for different indices of the list."""
    seen: dict[str, int] = {}
    names = []
    for text in texts:
        name = slug(text) or "item"
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _shown(clause: Clause) -> str:
    title = f" {clause.title}." if clause.title and clause.title not in clause.text else ""
    return f"[{clause.id}]{title} {clause.text}".rstrip()
