"""What README and docs show: the lines of their blocks of code."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of code of a page, those that go on joined, without remarks."""
    fenced, waiting = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not fenced and not line.startswith("    ") and not line.startswith("#   "):
            waiting = ""
            continue
        code = waiting + re.split(r"\s#\s|\s{3,}(?=\S)", line.strip().removeprefix("#   "))[0]
        waiting = code.removesuffix("\\") if code.endswith("\\") else ""
        if not waiting:
            yield code


def section(page: str, title: str = "") -> str:
    """Return the text of a page, or of one of its sections."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0] if title else text


def block_with(text: str, first_line: str) -> str:
    """Return the indented block that begins with this line, without its indentation."""
    _, found, rest = text.partition(f"    {first_line}\n")
    assert found, f"no block begins with {first_line!r}"
    block = f"    {first_line}\n" + rest.split("\n\n")[0]
    return "".join(f"{line.removeprefix('    ')}\n" for line in block.splitlines())
