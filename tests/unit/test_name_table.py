"""Long names stay whole on a narrow screen, and cells stay under their headings."""

import io

import pytest
from rich.console import Console

from megatron_msm.name_table import NameTable

ARM = "smollm2+msm(affordability)+aft(cheese)#1234"


def printed(table: NameTable, width: int) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=width).print(table)
    return [line.rstrip() for line in screen.getvalue().splitlines()]


@pytest.fixture
def arms() -> NameTable:
    table = NameTable("arm", "state", "steps", right=("steps",))
    table.add_row(ARM, "running", "60 + 30")
    table.add_row("smollm2", "finished", "5")
    table.add_row("smollm2", "failed [x]", "12")
    return table


def test_a_wide_screen_has_a_line_for_each_row(arms: NameTable) -> None:
    assert printed(arms, 80) == [
        "arm                                          state         steps",
        f"{ARM}  running     60 + 30",
        "smollm2                                      finished          5",
        "smollm2                                      failed [x]       12",
    ]


def test_a_narrow_screen_has_names_on_lines_of_their_own(arms: NameTable) -> None:
    assert printed(arms, 60) == [
        "arm",
        "  state         steps",
        ARM,
        "  running     60 + 30",
        "smollm2",
        "  finished          5",
        "  failed [x]       12",
    ]


def test_a_name_wider_than_the_screen_breaks_between_its_parts(arms: NameTable) -> None:
    lines = printed(arms, 30)
    assert lines[2:5] == [
        "smollm2+msm(affordability)+",
        "  aft(cheese)#1234",
        "  running     60 + 30",
    ]


@pytest.mark.parametrize("width", range(28, 90, 3))
def test_no_line_is_wider_than_the_screen_and_nothing_is_lost(arms: NameTable, width: int) -> None:
    lines = printed(arms, width)
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    for cell in (ARM, "running", "60+30", "failed[x]"):
        assert cell in text
