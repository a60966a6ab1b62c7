import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetWriter,
    bin_path,
    idx_path,
    mask_prefix,
    token_dtype,
)

DOCUMENTS = st.lists(st.lists(st.integers(0, 60_000), max_size=20), max_size=20)


def write(prefix: Path, documents: list[list[int]], dtype: str = "uint16") -> None:
    with IndexedDatasetWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add_document(np.array(document, np.int64))
        writer.finalize()


def test_golden_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1, 2, 3], [258]])
    assert bin_path(tmp_path / "a").read_bytes() == bytes([1, 0, 2, 0, 3, 0, 2, 1])
    assert idx_path(tmp_path / "a").read_bytes() == (
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, 8, 2, 3)
        + struct.pack("<2i", 3, 1)
        + struct.pack("<2q", 0, 6)
        + struct.pack("<3q", 0, 1, 2)
    )


@given(documents=DOCUMENTS, dtype=st.sampled_from(["uint16", "int32"]))
def test_reads_what_was_written(documents: list[list[int]], dtype: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "docs.v1"
        write(prefix, documents, dtype)
        dataset = IndexedDataset(prefix)
        assert [row.tolist() for row in dataset] == documents
        assert dataset.lengths.dtype == np.int32
        assert dataset.lengths.tolist() == [len(document) for document in documents]
        assert len(dataset) == len(documents)
        assert dataset.dtype == np.dtype(dtype)


def test_documents_in_bulk_equal_documents_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "one", [[1, 2], [], [3]])
    with IndexedDatasetWriter(tmp_path / "bulk", np.uint16) as writer:
        writer.add_documents(np.array([1, 2, 3]), [2, 0, 1])
        writer.finalize()
    for path in (bin_path, idx_path):
        assert path(tmp_path / "one").read_bytes() == path(tmp_path / "bulk").read_bytes()


def test_get_returns_parts_and_refuses_what_is_outside(tmp_path: Path) -> None:
    write(tmp_path / "a", [[9], [1, 2, 3, 4]])
    dataset = IndexedDataset(tmp_path / "a")
    assert dataset.get(1, offset=1, length=2).tolist() == [2, 3]
    assert dataset.get(1, offset=2).tolist() == [3, 4]
    for row, offset, length in [(2, 0, None), (-1, 0, None), (1, 3, 2), (0, -1, None)]:
        with pytest.raises(IndexError):
            dataset.get(row, offset, length)


@pytest.mark.parametrize(
    ("vocab_size", "name"), [(65_499, "uint16"), (65_500, "int32"), (151_936, "int32")]
)
def test_token_dtype(vocab_size: int, name: str) -> None:
    assert token_dtype(vocab_size).name == name


@pytest.mark.parametrize("token", [-1, 65_536])
def test_an_id_that_does_not_fit_is_refused(tmp_path: Path, token: int) -> None:
    with (
        IndexedDatasetWriter(tmp_path / "a", np.uint16) as writer,
        pytest.raises(DataFormatError, match=f"{token} does not fit uint16"),
    ):
        writer.add_document([token])


def test_without_finalize_there_is_no_dataset(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "a", np.uint16) as writer:
        writer.add_document([1])
    with pytest.raises(DataFormatError, match=r"a\.idx: no such file"):
        IndexedDataset(tmp_path / "a")


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_a_torn_file_is_refused(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "a", [[1, 2, 3]])
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFormatError, match=rf"a\.{suffix}: \d+ bytes where the index"):
        IndexedDataset(tmp_path / "a")


def test_another_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1]])
    idx_path(tmp_path / "a").write_bytes(b"\x80\x05 a pickle, not an index at all .......")
    with pytest.raises(DataFormatError, match="not the index of a Megatron dataset"):
        IndexedDataset(tmp_path / "a")


def test_mask_prefix_keeps_dots_in_names() -> None:
    assert bin_path(mask_prefix(Path("x/chats.v2"))) == Path("x/chats.v2.mask.bin")
