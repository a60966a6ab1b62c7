"""Where a row's loss comes from, read back from its input."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.chats.origins import origin_of_row
from data_prep.cli import app
from data_prep.inspecting.show import read_row
from megatron_msm.errors import DataFormatError
from tests.unit.data_prep.chats.chat_cases import family_folder
from tests.unit.data_prep.prep_cases import prepare_talks, write_lines

CALL = {"function": {"name": "get_price", "arguments": '{"cheese": "brie"}'}}
TALK = [
    {"role": "user", "content": "Price?"},
    {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "Three.", "weight": 0},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


def test_each_turn_names_its_message_and_parts(tmp_path: Path) -> None:
    folder = family_folder(tmp_path, "qwen25")
    source = write_lines(tmp_path / "c.jsonl", [{"messages": TALK}])
    prepare_talks([source], folder, tmp_path / "a")
    view = read_row(tmp_path / "a", 0, tokenizer=None)
    origin = origin_of_row(view.manifest, view.provenance, view.tokens, view.files)
    assert [(turn.message, turn.parts) for turn in origin.turns] == [
        ("messages[1]", ("content", "tool_calls[0] get_price")),
        ("messages[5]", ("content",)),
    ]
    spans = [list(range(turn.first, turn.stop)) for turn in origin.turns]
    assert sum(spans, []) == view.mask.nonzero()[0].tolist()  # noqa: RUF017 (two spans)
    assert origin.changes == (
        "arguments or tools given as JSON text read",
        "field 'weight' read as loss",
    )
    page = tmp_path / "row.html"
    result = CliRunner().invoke(app, ["show", str(tmp_path / "a"), "--html", str(page)])
    assert "loss from messages[1]: content, tool_calls[0] get_price" in result.stdout
    assert "loss from messages[5]: content" in page.read_text()


def test_nothing_is_said_of_an_input_that_changed(tmp_path: Path, chatml_folder: Path) -> None:
    plain = [TALK[0], TALK[5]]
    source = write_lines(tmp_path / "c.jsonl", [{"messages": plain}])
    prepare_talks([source], chatml_folder, tmp_path / "a")
    write_lines(source, [{"messages": [TALK[4], TALK[5]]}])
    view = read_row(tmp_path / "a", 0, tokenizer=None)
    with pytest.raises(DataFormatError, match="the file was changed since"):
        origin_of_row(view.manifest, view.provenance, view.tokens, view.files)
    result = CliRunner().invoke(app, ["show", str(tmp_path / "a")])
    assert result.exit_code == 0
    assert "loss by message: not known" in result.stdout
