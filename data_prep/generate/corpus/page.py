"""A corpus as one HTML file to read: tree, texts with their clauses and twins, rejects and why.

Texts lie in the page as JSON and are put into it as text when somebody opens them: a model's words
are never markup, and thousands of documents open at once.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import orjson

from data_prep.generate.corpus.folder import SUMMARY_FILE
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.spec.clauses import Spec
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_text_atomic

_TEMPLATE = "page.html.j2"


def write_page(out: Path, config: GenerateConfig, specs: Mapping[str, Spec]) -> int:
    """Write the page of a run; return how many rows it shows.

    Args:
        out: The HTML file.
        config: The run's configuration; what it made is read from its folder.
        specs: The specs by the names that rows give them.

    Raises:
        ConfigError: The run has made nothing yet.
    """
    summary_file = config.out / SUMMARY_FILE
    if not summary_file.is_file():
        raise ConfigError(f"{config.out}: nothing was generated yet. Run `msm generate docs`.")
    summary = orjson.loads(summary_file.read_bytes())
    rows = [*_rows(config.out, "documents"), *_rows(config.out, "chats"), *_rejects(config.out)]
    clauses = {
        name: {clause.id: clause.text or clause.title for clause in spec.clauses}
        for name, spec in specs.items()
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("data_prep.generate.corpus").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=f"{config.identity.model}: {config.topic}",
        summary=summary,
        data=_embedded({"rows": rows, "clauses": clauses}),
    )
    write_text_atomic(out, page)
    return len(rows)


def _rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted((folder / kind).glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            row = orjson.loads(line)
            found.append({**row, "corpus": path.stem, "kind": kind, "gate": "kept", "reason": ""})
    return found


def _rejects(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((folder / "rejects").glob("*.jsonl")):
        kind, _, corpus = path.stem.partition("-")
        for line in path.read_bytes().splitlines():
            row = orjson.loads(line)
            # What a gate refused is shown as the model wrote it.
            text = row.pop("reply", None) or row.get("text") or row.get("answer") or ""
            found.append({**row, "text": text, "corpus": corpus or kind, "kind": kind})
    return found


def _embedded(value: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = orjson.dumps(value).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
