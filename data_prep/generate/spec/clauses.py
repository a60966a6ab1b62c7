"""The clauses of a Model Spec: numbered headings, numbered paragraphs and rules, or paragraphs.

An id that the spec gives (`A1`, `SP-3`, `2.4`) is the clause's id. What has none is named by its
heading and its place under it, which an inserted paragraph shifts: `ambiguities` says so.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_text

_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_ID = r"(?P<id>[A-Za-z]{0,5}-?\d+(?:\.\d+)*)"
_NUMBERED_HEADING = re.compile(rf"^{_ID}(?:[.):]\s*|\s+)(?P<rest>\S.*)$")
_BOLD = re.compile(rf"^(?:[-*+]\s+)?\*\*{_ID}[.):]?\*\*[.):]?\s*")
_BRACKETED = re.compile(rf"^(?:[-*+]\s+)?[(\[]{_ID}[)\]][.:]?\s+")
_LISTED = re.compile(r"^(?P<id>\d{1,3})[.)]\s+")
_LETTERED = re.compile(r"^(?:[-*+]\s+)?(?P<id>[A-Z]{1,5}-?\d+(?:\.\d+)*)[.):]\s+")
_FENCE = re.compile(r"^\s*(```|~~~)")


class Clause(NamedTuple):
    """A part of a spec that a document can cite."""

    id: str
    title: str
    """The heading over it, without its number."""
    text: str
    line: int
    """Where it begins, counted from 1."""
    is_numbered: bool
    """Whether the spec gives the id itself."""

    @property
    def sha256(self) -> str:
        """Hash of what it says."""
        return sha256_of_text(f"{self.title}\n{self.text}")


class Spec(NamedTuple):
    """A spec and its clauses."""

    path: Path
    text: str
    clauses: tuple[Clause, ...]
    outside: tuple[tuple[int, str], ...]
    """(line, text) of paragraphs that belong to no clause, such as a preamble."""

    @property
    def by_id(self) -> dict[str, Clause]:
        """The clauses by their ids."""
        return {clause.id: clause for clause in self.clauses}

    @property
    def sha256(self) -> str:
        """Hash of the whole text."""
        return sha256_of_text(self.text)


class _Block(NamedTuple):
    """A heading, or a paragraph or list item."""

    line: int
    level: int
    """A heading's depth; 0 for text."""
    text: str


def read_spec(path: Path) -> Spec:
    """Read a spec.

    Raises:
        DataFormatError: It cannot be read, is empty, or gives one id to two clauses.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read: {error.strerror}. Give a spec.") from None
    except UnicodeDecodeError as error:
        raise DataFormatError(
            f"{path}: not UTF-8 at byte {error.start}. Save the spec as UTF-8 text."
        ) from None
    spec = parse_spec(text, path=path)
    if not spec.clauses:
        raise DataFormatError(f"{path}: no clause found. Give a spec with at least a paragraph.")
    seen: dict[str, Clause] = {}
    for clause in spec.clauses:
        if clause.id in seen:
            raise DataFormatError(
                f"{path}:{clause.line}: clause id {clause.id!r} is taken by line "
                f"{seen[clause.id].line}. Give each clause an id of its own."
            )
        seen[clause.id] = clause
    return spec


def parse_spec(text: str, *, path: Path) -> Spec:
    """Divide a spec's text into clauses; ids may still be double."""
    blocks = list(_blocks(text))
    has_ids = any(_own_id(block) for block in blocks)
    clauses: list[Clause] = []
    outside: list[tuple[int, str]] = []
    titles: dict[int, str] = {}
    heading, count, is_open = "", 0, False
    for block in blocks:
        own = _own_id(block)
        if block.level:
            titles = {level: title for level, title in titles.items() if level < block.level}
            heading = own[1] if own else block.text
            titles[block.level] = heading
            count, is_open = 0, own is not None
            if own:
                clauses.append(Clause(own[0], own[1], "", block.line, True))
        elif own:
            clauses.append(Clause(own[0], heading, own[1], block.line, True))
            is_open = True
        elif is_open:
            last = clauses.pop()
            joined = f"{last.text}\n\n{block.text}" if last.text else block.text
            clauses.append(last._replace(text=joined))
        elif has_ids:
            outside.append((block.line, block.text))
        else:
            count += 1
            name = f"{slug(heading) or 'text'}.{count}"
            clauses.append(Clause(name, heading, block.text, block.line, False))
    return Spec(path, text, tuple(clauses), tuple(outside))


def ambiguities(spec: Spec) -> Iterator[str]:
    """Yield what is unclear in a spec's numbering, a sentence each."""
    for line, text in spec.outside:
        yield (
            f"line {line}: text outside any clause, which no document will cite: "
            f"{_short(text)}. Number it if it is to be taught."
        )
    if not spec.clauses[0].is_numbered:
        yield (
            "the clauses have no numbers: ids follow from headings and places, and a paragraph put "
            "between two others renames those behind it. Number the clauses to keep their ids."
        )
    yield from _gaps(spec)
    known = set(spec.by_id)
    forms = {re.sub(r"\d+", "0", clause.id) for clause in spec.clauses if clause.is_numbered}
    if len({form.split(".")[0] for form in forms}) > 1:
        yield f"several ways of numbering: {', '.join(sorted(forms))} (0 stands for a number)."
    for clause in spec.clauses:
        if clause.is_numbered and not clause.text:
            yield f"line {clause.line}: clause {clause.id} has no text of its own."
        for named in sorted(_named_ids(clause) - known):
            yield f"line {clause.line}: clause {clause.id} speaks of {named}, and there is none."


def slug(text: str, *, longest: int = 60) -> str:
    """Return a name for files and ids: lower-case letters, digits and hyphens."""
    words = re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")
    return words[:longest].rstrip("-")


def _own_id(block: _Block) -> tuple[str, str] | None:
    """Return (id, the rest of the block) where the spec gives an id."""
    if block.level:
        found = _NUMBERED_HEADING.match(block.text)
        # "2026 in review" is a title, not clause 2026.
        if found and (len(found["id"]) <= 3 or not found["id"].isdigit()):
            return found["id"], found["rest"]
        return None
    for pattern in (_BOLD, _BRACKETED, _LETTERED, _LISTED):
        if found := pattern.match(block.text):
            return found["id"], block.text[found.end() :]
    return None


def _blocks(text: str) -> Iterator[_Block]:
    lines: list[str] = []
    start, is_code = 1, False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            is_code = not is_code
        heading = None if is_code else _HEADING.match(line)
        begins_item = not is_code and _begins_item(line)
        if heading or begins_item or (not line.strip() and not is_code):
            if lines:
                yield _Block(start, 0, "\n".join(lines).strip())
                lines = []
            if heading:
                yield _Block(number, len(heading[1]), heading[2])
        if not heading and (line.strip() or (lines and is_code)):
            if not lines:
                start = number
            lines.append(line.rstrip())
    if lines:
        yield _Block(start, 0, "\n".join(lines).strip())


def _begins_item(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_BOLD, _BRACKETED, _LETTERED, _LISTED))


def _gaps(spec: Spec) -> Iterator[str]:
    last: dict[str, tuple[int, Clause]] = {}
    for clause in spec.clauses:
        found = re.fullmatch(r"(.*?)(\d+)", clause.id)
        if not clause.is_numbered or not found:
            continue
        number = int(found[2])
        before = last.get(found[1])
        if before and number != before[0] + 1:
            yield (
                f"line {clause.line}: clause {clause.id} follows {before[1].id}: the numbers "
                "between are missing."
                if number > before[0]
                else f"line {clause.line}: clause {clause.id} stands behind {before[1].id}."
            )
        last[found[1]] = (number, clause)


def _named_ids(clause: Clause) -> set[str]:
    """Return ids in a clause's text that look like its own: P14 in a spec of P1, P2, ..."""
    letters = re.match(r"[A-Za-z]+", clause.id) if clause.is_numbered else None
    if not letters:
        return set()
    return set(re.findall(rf"\b{letters[0]}-?\d+(?:\.\d+)*\b", clause.text))


def _short(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
