"""A table whose first column holds long names, such as `base+msm(one)+aft(two)#1234`.

Where the screen is wide enough it is a plain table. Where it is not, a name has a line of its own
and its cells stand below it, so that neither is cut within a word:

    arm
        steps   tokens
    base+msm(one)+aft(two)#1234
      60 + 30   46,080
"""

import re
from collections.abc import Collection, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_INDENT = 2
_BETWEEN = 2
# Where a name that is wider than the screen may be broken: after a plus or a blank, before a seed.
_PIECES = re.compile(r"(?<=[+ /])|(?=#)")


class NameTable:
    """Rows of a name and its cells; rich prints it."""

    def __init__(self, name: str, *columns: str, right: Collection[str] = ()) -> None:
        """Take the headings; columns in `right` are aligned to the right."""
        self._columns = columns
        self._right = right
        self._rows = [tuple(Text(heading, style="bold") for heading in (name, *columns))]

    def add_row(self, name: str, *cells: str | Text) -> None:
        """Add a row; cells in the order of the columns."""
        assert len(cells) == len(self._columns)
        as_text = (cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        self._rows.append((Text(name), *as_text))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield what is printed."""
        widths = [max(cell.cell_len for cell in column) for column in zip(*self._rows, strict=True)]
        if sum(widths) + _BETWEEN * len(self._columns) <= options.max_width:
            yield self._plain()
        else:
            yield from self._stacked(widths[1:], options.max_width)

    def _plain(self) -> Table:
        (name, *columns), *rows = self._rows
        table = Table(box=None, pad_edge=False)
        table.add_column(name, no_wrap=True)
        for heading in columns:
            is_right = heading.plain in self._right
            table.add_column(heading, justify="right" if is_right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        return table

    def _stacked(self, widths: list[int], max_width: int) -> Iterator[RenderableType]:
        above = ""
        for name, *cells in self._rows:
            if name.plain != above:
                above = name.plain
                yield Text(_folded(above, max_width), style=name.style)
            aligned = [
                self._aligned(cell, width, heading)
                for cell, width, heading in zip(cells, widths, self._columns, strict=True)
            ]
            line = Text(" " * _BETWEEN).join(aligned)
            line.rstrip()
            yield Padding(line, (0, 0, 0, _INDENT))

    def _aligned(self, cell: Text, width: int, heading: str) -> Text:
        padded, missing = cell.copy(), width - cell.cell_len
        if heading in self._right:
            padded.pad_left(missing)
        else:
            padded.pad_right(missing)
        return padded


def _folded(name: str, width: int) -> str:
    """Break a name between its parts where a line is full."""
    lines = [""]
    for piece in _PIECES.split(name):
        if lines[-1].strip() and len(lines[-1]) + len(piece) > width:
            lines.append(" " * _INDENT)
        lines[-1] += piece
    return "\n".join(lines)
