r"""Banks of templates: files of `== name` and lines below it.

In a template `[a|b]` is a choice and `{bank}` a line of another bank, with a capital letter if the
name is given one; `\n` ends a line of the text, `-` alone is the empty text and `#` begins a
comment. A line that begins with `X: ` is for the corpus with the mark X alone; every mark must have
as many lines in each bank, so that twins draw the same templates.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from megatron_msm.errors import ConfigError, DataFormatError

Banks = Mapping[str, list[str]]
"""Lines by the name of their bank."""

_SLOT = re.compile(r"\{([\w ]+)\}")


def load_banks(paths: Sequence[Path], marks: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return the banks of some files by mark.

    Args:
        paths: The files; a bank of a later one replaces that of the same name.
        marks: One letter for each corpus.

    Raises:
        ConfigError: A file is not there.
        DataFormatError: A template is broken, or marks have different numbers of lines.
    """
    banks: dict[str, dict[str, list[str]]] = {mark: {} for mark in marks}
    for path in paths:
        for name, lines in _banks_of(path).items():
            if unknown := sorted({own for own, _ in lines} - {"", *marks}):
                raise DataFormatError(
                    f"{path}: bank {name!r}: marks {unknown} are none of the grammar's, which are "
                    f"{', '.join(marks)}."
                )
            for mark in marks:
                banks[mark][name] = [text for own, text in lines if own in ("", mark)]
            counts = {mark: len(banks[mark][name]) for mark in marks}
            if len(set(counts.values())) > 1 or 0 in counts.values():
                shown = ", ".join(f"{mark} {number}" for mark, number in counts.items())
                raise DataFormatError(
                    f"{path}: bank {name!r} has lines for {shown}. Every mark needs as many."
                )
    return banks


def slots(template: str) -> list[str]:
    """Return the names in braces."""
    return _SLOT.findall(template)


def put(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its slots replaced by values; it must have no others."""
    return _SLOT.sub(lambda match: values[match[1]], template)


def _banks_of(path: Path) -> dict[str, list[tuple[str, str]]]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of templates. Correct `banks` of the grammar.")
    banks: dict[str, list[tuple[str, str]]] = {}
    bank: list[tuple[str, str]] | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("== "):
            bank = banks.setdefault(line[3:].strip(), [])
        elif line and not line.startswith("#"):
            if bank is None:
                raise DataFormatError(f"{path}:{number}: a template before the first `== name`.")
            mark, text = (line[0], line[3:]) if re.match(r"[A-Z]: ", line) else ("", line)
            if problem := _problem(text):
                raise DataFormatError(f"{path}:{number}: {problem}: {line}")
            bank.append((mark, "" if text == "-" else text.replace("\\n", "\n")))
    return banks


def _problem(template: str) -> str | None:
    depth = 0
    for character in template:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            break
    if depth:
        return "brackets that do not close, in the order [a|b]"
    rest = _SLOT.sub("", template)
    return "braces without a name of letters in them" if "{" in rest or "}" in rest else None
