"""A part of a corpus, or of paired corpora: by what rows say, and by dose. Lines stay as they are.

OUT/NAME.jsonl      the rows of each corpus
OUT/README.md       a card: from which files, by which conditions, how much
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.cleaning.word_ngrams import words_of
from data_prep.generate.corpus.card import front_matter
from data_prep.generate.corpus.conditions import (
    Condition,
    accepted_ids,
    check_conditions,
)
from data_prep.generate.corpus.doses import Dose, dosed_ids, sizes
from data_prep.generate.corpus.twins import ReadCorpus, read_corpora, shared_ids
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_bytes_atomic, write_text_atomic


class Selected(NamedTuple):
    """What was selected of one corpus."""

    path: Path
    documents: int
    words: int
    tokens: int | None
    """By the dose's tokenizer, if it has one."""
    total: int
    """Documents of the corpus."""
    twinless: int
    """Documents left out because another corpus has no row of their id."""


def select(
    inputs: Sequence[Path], out: Path, *, conditions: Sequence[Condition], dose: Dose | None
) -> list[Selected]:
    """Write the wanted rows of every corpus.

    Args:
        inputs: Corpora of documents; several are paired, and a row goes only with its twins.
        out: The folder to write.
        conditions: What rows must say.
        dose: How much of it is wanted at most.

    Raises:
        ConfigError: A condition names what does not occur, nothing is left, or the dose is larger
            than what is left.
        DataFormatError: A corpus cannot be read, or several share no ids.
    """
    corpora = read_corpora(inputs)
    check_conditions(conditions, corpora)
    shared = shared_ids(corpora)
    ids = accepted_ids(shared, corpora, conditions)
    if not ids:
        asked = " and ".join(condition.text for condition in conditions)
        raise ConfigError(f"--where: no document meets {asked} together. Ask for less.")
    if dose is not None:
        ids = dosed_ids(ids, corpora, dose)
    wanted = set(ids)
    _check_out(out, corpora)
    out.mkdir(parents=True, exist_ok=True)
    found = [_write(out, corpus, wanted, len(shared), dose) for corpus in corpora]
    write_text_atomic(out / "README.md", _card(corpora, found, conditions, dose))
    return found


def _check_out(out: Path, corpora: Sequence[ReadCorpus]) -> None:
    for corpus in corpora:
        path = out / f"{corpus.name}.jsonl"
        for source in corpus.sources:
            if path.exists() and path.samefile(source.path):
                raise ConfigError(f"--out: {path} is the input itself. Give another folder.")


def _write(
    out: Path, corpus: ReadCorpus, wanted: set[str], num_shared: int, dose: Dose | None
) -> Selected:
    rows = [row for name, row in corpus.rows.items() if name in wanted]
    path = out / f"{corpus.name}.jsonl"
    write_bytes_atomic(path, b"".join(row.raw + b"\n" for row in rows))
    texts = [row.text for row in rows]
    return Selected(
        path=path,
        documents=len(rows),
        words=sum(len(words_of(text)) for text in texts),
        tokens=sum(sizes(texts, "tokens", dose.tokenizer)) if dose and dose.tokenizer else None,
        total=len(corpus.rows),
        twinless=len(corpus.rows) - num_shared,
    )


def _card(
    corpora: Sequence[ReadCorpus],
    found: Sequence[Selected],
    conditions: Sequence[Condition],
    dose: Dose | None,
) -> str:
    asked = [condition.text for condition in conditions]
    if dose is not None:
        by = f" (by {dose.tokenizer})" if dose.tokenizer else ""
        asked.append(f"at most {dose.amount:,} {dose.unit}{by}, in the order of a hash of the ids")
    lines = [
        *front_matter([(corpus.name, f"{corpus.name}.jsonl") for corpus in corpora]),
        "# Part of a corpus",
        "",
        f"Documents with {' and '.join(asked)}. Rows of one id are twins: all of them or none.",
        "",
        "| corpus | documents | words | of documents | without a twin |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {part.path.name} | {part.documents:,} | {part.words:,} | {part.total:,} | "
        f"{part.twinless:,} |"
        for part in found
    ]
    lines += ["", "| source | bytes | SHA-256 |", "|---|---|---|"]
    lines += [
        f"| {source.path} | {source.bytes:,} | {source.sha256} |"
        for corpus in corpora
        for source in corpus.sources
    ]
    return "\n".join(lines) + "\n"
