"""What a stage's result is made of, one by one: an identity is their hash, and `why` compares them.

Only what changes the result counts. Where a file lies, what a stage is called, what a run logs and
how often it saves make no other stage.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from megatron_msm.config.run import RunConfig
from megatron_msm.config.section import Section
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.formats.json_types import JsonObject

What = Literal["argument", "setting", "input", "stage", "code"]

_WITHOUT_EFFECT = ("out", "logging", "runtime.threads_per_rank", "runtime.timeout_min")
"""Fields of a RUN.yaml that change nothing in the weights."""


class Ingredient(Section):
    """One thing that decides what a stage makes."""

    what: What
    name: str
    """For people; of a setting also its path, and so part of the identity."""
    value: str

    @property
    def decides(self) -> list[str]:
        """What of it goes into an identity."""
        path = self.name if self.what in ("setting", "code") else ""
        return [self.what, path, self.value]


def identity_of(kind: str, ingredients: tuple[Ingredient, ...], *, with_code: bool = True) -> str:
    """Return the hash of a stage's kind and ingredients."""
    kept = [each for each in ingredients if with_code or each.what != "code"]
    return sha256_of_json([kind, *(each.decides for each in kept)])


def run_settings(config: RunConfig) -> JsonObject:
    """Return the fields of a run that change its weights.

    How often it saves counts only where a loss spike sends it back to what was saved.
    """
    content = config.model_dump(mode="json", exclude_defaults=True)
    for path in _WITHOUT_EFFECT:
        *parents, last = path.split(".")
        section = content
        for parent in parents:
            section = section.get(parent, {})
        section.pop(last, None)
    for phase in content["phases"]:
        if "loss_spike" not in phase:
            phase.pop("checkpoint", None)
    return content


def leaves(content: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (`a.b.0.c`, value) of every value in nested mappings and lists."""
    if isinstance(content, Mapping):
        children = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        children = [(str(index), value) for index, value in enumerate(content)]
    else:
        yield path, str(content)
        return
    for name, value in children:
        yield from leaves(value, f"{path}.{name}" if path else name)
