"""Tenets for the per-clause audit of `msm eval run`: OUT/tenets/SPEC.jsonl, one tenet a line."""

from pathlib import Path
from typing import Any, NamedTuple

import orjson

from data_prep.generate.context import Context
from data_prep.generate.spec.clauses import Spec
from data_prep.generate.steps.tenets import Tenet, ask_tenets
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_text_atomic


class WrittenTenets(NamedTuple):
    """A file of tenets."""

    path: Path
    tenets: int
    without: tuple[str, ...]
    """Clauses for which no usable tenet came back."""


def write_tenets(context: Context) -> list[WrittenTenets]:
    """Ask for the tenets of each spec and write them.

    Raises:
        ConfigError: The configuration asks for none, or no clause of a spec got any.
    """
    settings = context.config.tenets
    if settings is None:
        raise ConfigError("no section `tenets` in the configuration. Add it: tenets: {}")
    written = []
    for name, spec in context.specs.items():
        tenets = ask_tenets(context, name, spec, settings)
        if not tenets:
            raise ConfigError(
                f"tenets: no reply for any clause of {spec.path} was in the form asked for. "
                "Name a writer that can answer in JSON."
            )
        path = context.config.out / "tenets" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, "".join(map(_line, _rows(tenets))))
        written.append(WrittenTenets(path, len(tenets), _without(spec, tenets)))
    return written


def _rows(tenets: list[Tenet]) -> list[dict[str, Any]]:
    counts: dict[str, int] = {}
    rows = []
    for tenet in tenets:
        clause = tenet.clause.id
        counts[clause] = counts.get(clause, 0) + 1
        rows.append(
            {
                "id": f"{clause}-{counts[clause]}",
                "clause": clause,
                "tenet": tenet.text,
                "probes": tenet.probes,
            }
        )
    return rows


def _line(row: dict[str, Any]) -> str:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE).decode()


def _without(spec: Spec, tenets: list[Tenet]) -> tuple[str, ...]:
    covered = {tenet.clause.id for tenet in tenets}
    return tuple(clause.id for clause in spec.clauses if clause.id not in covered)
