"""Against megatron-core itself: the same bytes, and its reader reads ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_msm.formats.indexed_dataset import IndexedDatasetWriter, bin_path, idx_path

torch = pytest.importorskip("torch")
indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint8])
def test_same_bytes_as_megatron_and_read_by_it(tmp_path: Path, dtype: Any) -> None:
    generator = np.random.default_rng(3)
    limit = min(np.iinfo(dtype).max, 150_000)
    documents = [generator.integers(0, limit, size) for size in (5, 1, 700, 33)]
    with IndexedDatasetWriter(tmp_path / "ours", dtype) as writer:
        for document in documents:
            writer.add_document(document)
        writer.finalize()
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype)
    for document in documents:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for path in (bin_path, idx_path):
        assert path(tmp_path / "ours").read_bytes() == path(tmp_path / "theirs").read_bytes()
    theirs = indexed_dataset.IndexedDataset(str(tmp_path / "ours"))
    assert len(theirs) == len(documents)
    assert theirs.document_indices.tolist() == [0, 1, 2, 3, 4]
    for row, document in enumerate(documents):
        assert theirs[row].tolist() == document.tolist()
