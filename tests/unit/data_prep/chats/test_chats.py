import datetime
from pathlib import Path

import numpy as np
import pytest

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_text
from megatron_msm.formats.indexed_dataset import IndexedDataset, mask_prefix
from megatron_msm.formats.rejects import read_rejects
from tests.unit.data_prep.chats.chat_cases import family_folder
from tests.unit.data_prep.prep_cases import conversations, prepare_talks, write_lines
from tests.unit.data_prep.tiny_tokenizer import CHATML, write_tokenizer


def test_masks_are_row_aligned_and_counted(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", conversations(20))
    manifest = prepare_talks([source], chatml_folder, tmp_path / "a").manifest
    tokens, masks = IndexedDataset(tmp_path / "a"), IndexedDataset(mask_prefix(tmp_path / "a"))
    assert masks.dtype == np.uint8
    assert masks.lengths.tolist() == tokens.lengths.tolist()
    assert manifest.counts.loss_tokens == sum(int(mask.sum()) for mask in masks)
    for row, mask in zip(tokens, masks, strict=True):
        trained = row[mask == 1]
        assert trained[-1] == 2
        assert list(trained).count(2) == 1
    assert manifest.chat_template == CHATML
    assert manifest.chat_template_sha256 == sha256_of_text(CHATML)
    assert manifest.eod_id is None


def test_too_long_conversations_are_rejected(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", conversations(7))
    longest = int(max(prepare_lengths(source, chatml_folder, tmp_path / "a")))
    with pytest.raises(DataFormatError, match=r"c\.jsonl:7: \d+ tokens, longer than --max-length"):
        prepare_talks([source], chatml_folder, tmp_path / "b", max_length=longest - 1)
    counts = prepare_talks(
        [source], chatml_folder, tmp_path / "b", max_length=longest - 1, max_rejects=1
    ).manifest.counts
    assert (counts.kept, counts.rejected) == (6, 1)
    assert [reject.line for reject in read_rejects(tmp_path / "b.rejects.jsonl")] == [7]


def prepare_lengths(source: Path, tokenizer: Path, out: Path) -> list[int]:
    prepare_talks([source], tokenizer, out)
    lengths: list[int] = IndexedDataset(out).lengths.tolist()
    return lengths


def test_a_base_model_needs_a_template(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", conversations(2))
    folder = write_tokenizer(tmp_path / "t", template=None)
    with pytest.raises(DataFormatError, match=r"no chat template .* --chat-template FILE"):
        prepare_talks([source], folder, tmp_path / "a")
    template = tmp_path / "my.jinja"
    template.write_text(CHATML)
    manifest = prepare_talks([source], folder, tmp_path / "a", chat_template=template).manifest
    assert manifest.chat_template == CHATML
    with pytest.raises(DataFormatError, match=r"nothing\.jinja: cannot be read"):
        prepare_talks([source], folder, tmp_path / "b", chat_template=tmp_path / "nothing.jinja")


def test_another_template_is_another_dataset(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", conversations(2))
    prepare_talks([source], chatml_folder, tmp_path / "a")
    template = tmp_path / "my.jinja"
    template.write_text("{{ '' }}" + CHATML)
    with pytest.raises(DataFormatError, match="differs from what was asked for in chat_template"):
        prepare_talks([source], chatml_folder, tmp_path / "a", chat_template=template)


def test_the_date_is_a_setting_where_the_template_writes_it(tmp_path: Path) -> None:
    folder = family_folder(tmp_path, "llama31")
    source = write_lines(tmp_path / "c.jsonl", conversations(2))
    day = datetime.date(2026, 1, 2)
    manifest = prepare_talks([source], folder, tmp_path / "a", today=day).manifest
    assert manifest.settings["today"] == "2026-01-02"
    with pytest.raises(DataFormatError, match=r"today \('2026-01-02' there"):
        prepare_talks([source], folder, tmp_path / "a")
