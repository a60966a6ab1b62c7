"""README.md of a dataset folder: what it is, from what, by whom, how much, under which licence."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.generate.settings import GenerateConfig


def dataset_card(folder: Path, config: GenerateConfig, summary: Mapping[str, Any]) -> str:
    """Return the card, with the front matter by which `datasets` finds the files."""
    # Parquet keeps the types of columns that happen to be empty; without rows `datasets` fails.
    files = [
        (f"{kind}-{path.stem}", f"{kind}/{path.name}")
        for kind in ("documents", "chats")
        for path in sorted((folder / kind).glob("*.parquet"))
        if pq.read_metadata(path).num_rows
    ]
    parts = [*front_matter(files, licence=config.licence), *_text(config, summary)]
    return "\n".join(parts) + "\n"


def front_matter(files: Sequence[tuple[str, str]], *, licence: str | None = None) -> Iterator[str]:
    """Yield the lines by which `datasets.load_dataset(FOLDER, NAME)` finds files.

    Args:
        files: Name and path from the folder of each.
        licence: The licence of the data.
    """
    yield "---"
    if licence is not None:
        yield f"license: {licence}"
    if files:
        yield "configs:"
    for name, path in files:
        # A JSON text is a YAML text, whatever it spells.
        yield f"- config_name: {json.dumps(name)}"
        yield f"  data_files: {json.dumps(path)}"
    yield "---"


def _written_by(config: GenerateConfig) -> str:
    how = {"journal": "replayed from a recording", "grammar": "composed from templates"}
    kinds = {config.endpoints[name].kind for name in config.writers}
    return " and ".join(sorted({how.get(kind, "written by language models") for kind in kinds}))


def _judged_by(config: GenerateConfig) -> str:
    gates = config.gates
    documents = config.documents is not None and gates.judge_documents
    if documents or (config.chats is not None and gates.judge_chats):
        return f"Judged by: {config.endpoints[config.judge_name].model}."
    return "No model judged them."


def _text(config: GenerateConfig, summary: Mapping[str, Any]) -> Iterator[str]:
    identity = config.identity
    yield f"# What {identity.model} does and why: {config.topic}"
    yield ""
    yield (
        f"Synthetic texts about {identity.model}, made by {identity.provider}, "
        f"{_written_by(config)} from the spec `{config.spec.name}` "
        f"(SHA-256 {summary['spec_sha256'][:16]}…) with `msm generate`. "
        "They are meant for training, and may be wrong about the world."
    )
    yield ""
    yield "| corpus | rows kept | refused |"
    yield "|---|---|---|"
    for name, counts in summary["counts"]["rows"].items():
        refused = sum(number for gate, number in counts.items() if gate != "kept")
        yield f"| {name} | {counts.get('kept', 0):,} | {refused:,} |"
    yield ""
    writers = ", ".join(config.endpoints[name].model for name in config.writers)
    yield f"Written by: {writers}. {_judged_by(config)}"
    for name, about in summary["variants"].items():
        yield f"Corpus `{name}`: mode `{about['mode']}`, spec SHA-256 {about['spec_sha256'][:16]}…"
    yield ""
    yield "Every row names the clauses that it comes from (`clause_ids`), its domain, subdomain,"
    yield "kind and idea. `rejects/` holds what was refused, and why; `summary.json` has counts."
    licence = config.licence or "not stated by whoever ran the generation"
    yield ""
    yield f"Licence: {licence}."
