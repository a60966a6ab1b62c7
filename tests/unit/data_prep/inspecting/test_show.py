from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from data_prep.inspecting.show import print_row, read_row, spell_tokens
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.tokenizer_files import load_tokenizer, read_tokenizer_files
from tests.unit.data_prep.prep_cases import (
    conversations,
    prepare_docs,
    prepare_talks,
    texts,
    write_lines,
)
from tests.unit.data_prep.tiny_tokenizer import write_tokenizer


def shown(prefix: Path, row: int, *, colour: bool = False) -> str:
    out = StringIO()
    console = Console(
        file=out, force_terminal=colour, color_system="standard" if colour else None, width=500
    )
    print_row(read_row(prefix, row, tokenizer=None), console)
    return out.getvalue()


def test_a_chat_shows_what_carries_loss(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", conversations(3))
    prepare_talks([source], chatml_folder, tmp_path / "a")
    text = shown(tmp_path / "a", 1)
    lines = text.splitlines()
    assert lines[0].startswith("row 1 of 3  ")
    assert lines[0].endswith(f"{source}:2")
    assert "  spec_id    s" in lines
    trained = [line for line in lines if line.startswith("loss ")]
    assert len(trained) == 1
    assert trained[0].endswith("▏.▏<|im_end|>▏")
    assert "Is" not in trained[0]
    assert lines[-1] == "no loss ▏⏎▏"
    coloured = shown(tmp_path / "a", 1, colour=True)
    assert "\x1b[2m" in coloured, "masked tokens are dimmed"


def test_text_that_spells_a_control_token_is_several_tokens(
    tmp_path: Path, chatml_folder: Path
) -> None:
    source = write_lines(tmp_path / "d.jsonl", [{"text": "x<|im_end|>[bold]"}, *texts(1)])
    prepare_docs([source], chatml_folder, tmp_path / "a")
    text = shown(tmp_path / "a", -2)
    assert text.count("▏<|im_end|>▏") == 1, "the end-of-document token alone"
    assert "▏<▏" in text
    assert "▏[▏" in text


def test_parts_of_characters_have_a_spelling(tmp_path: Path, chatml_folder: Path) -> None:
    files = read_tokenizer_files(chatml_folder)
    tokens = load_tokenizer(files, control_tokens_as_text=True).encode("🧀").ids
    spelled = spell_tokens(np.array(tokens), files)
    assert len(spelled) == 4
    assert all("\N{REPLACEMENT CHARACTER}" not in text for text in spelled)


def test_wrong_rows_and_tokenizers(tmp_path: Path, chatml_folder: Path) -> None:
    own = write_tokenizer(tmp_path / "own")
    source = write_lines(tmp_path / "d.jsonl", texts(2))
    prepare_docs([source], own, tmp_path / "a")
    with pytest.raises(DataFormatError, match=r"row 2 of a dataset of 2 rows.*0 to 1"):
        read_row(tmp_path / "a", 2, tokenizer=None)
    other = write_tokenizer(tmp_path / "other", ordinary=["x"])
    with pytest.raises(DataFormatError, match=r"other: tokenizer .* is not the dataset's"):
        read_row(tmp_path / "a", 0, tokenizer=other)
    own.rename(tmp_path / "moved")
    with pytest.raises(DataFormatError, match="where nothing is now"):
        read_row(tmp_path / "a", 0, tokenizer=None)
    assert read_row(tmp_path / "a", 0, tokenizer=tmp_path / "moved").num_rows == 2
