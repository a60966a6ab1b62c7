"""A grammar that was read and found whole."""

from collections.abc import Iterator
from pathlib import Path

from data_prep.generate.grammar.banks import Banks, load_banks, slots
from data_prep.generate.grammar.filling import SUBJECT, Filler
from data_prep.generate.grammar.settings import GrammarConfig
from data_prep.generate.grammar.writer import CorpusText, Writer
from megatron_msm.config.load import load_config
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_json

ROLES = ("user", "think", "assistant")
"""Turns of a chat: what is asked, thought and answered."""


class Grammar:
    """What a grammar file says, with its banks.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read, or a field is wrong.
        DataFormatError: A template is broken, or names a bank that is not there.
    """

    def __init__(self, path: Path) -> None:
        self.config = load_config(path, GrammarConfig)
        parts, marks = self.config.documents, self.config.marks
        files = [path.parent / name for name in self.config.banks]
        banks = load_banks(files, tuple(marks.values()))
        for own in banks.values():
            _check(path, own, self.config)
        self.fillers = {name: Filler(banks[mark], parts.subjects) for name, mark in marks.items()}
        content = [self.config.model_dump(mode="json"), banks]
        self.sha256 = sha256_of_json(content)

    def writer(self, corpora: list[str], seed: str) -> Writer:
        """Return a writer that writes documents of these corpora in lockstep."""
        parts = self.config.documents
        texts = [CorpusText(self.fillers[name]) for name in corpora]
        return Writer(texts, words=parts.words, cast=parts.cast, seed=seed)


def _check(path: Path, banks: Banks, config: GrammarConfig) -> None:
    for name in _needed(config):
        if name not in banks:
            raise DataFormatError(f"{path}: no bank {name!r}. Write it in one of {_files(config)}.")
    bound = {SUBJECT, "x", "y", *config.documents.cast_names}
    for letter in config.documents.words:
        bound |= {case + n for case in (letter, letter.lower()) for n in ("", "2", "3")}
    for name, lines in banks.items():
        for line in lines:
            for slot in slots(line):
                if slot not in bound and slot.lower() not in banks:
                    raise DataFormatError(
                        f"{path}: bank {name!r}: {{{slot}}} is no bank and no word of the grammar: "
                        f"{line}"
                    )


def _needed(config: GrammarConfig) -> Iterator[str]:
    parts = config.documents
    yield from parts.cast
    for name, genre in parts.genres.items():
        yield from (f"title {name}", f"intro {name}", f"close {name}")
        if genre.labels is not None:
            kinds = parts.voices[genre.voice]
            yield from (f"{genre.labels}_{kind}" for kind in kinds)
    for kinds in parts.voices.values():
        for spoken in kinds.values():
            yield from spoken
    yield from config.shared
    for name in config.chats:
        yield from (f"{name} {role}" for role in ROLES)


def _files(config: GrammarConfig) -> str:
    return ", ".join(str(path) for path in config.banks)
