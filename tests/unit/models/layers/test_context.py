"""How documents are shared among context parallel ranks, beside megatron-core's own split."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.models.common.embeddings.rope_utils import _get_thd_freqs_on_this_cp_rank

from megatron_msm.data.batch import collate
from megatron_msm.data.packed_dataset import Pack
from megatron_msm.models.layers.context import ContextShare


@given(size=st.integers(1, 5), pieces=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_ranks_share_every_position_once_as_the_rotary_embedding_expects(
    size: int, pieces: list[int]
) -> None:
    lengths = np.array(pieces) * 2 * size
    shares = [ContextShare(rank, size).positions(lengths) for rank in range(size)]
    assert sorted(np.concatenate(shares)) == list(range(lengths.sum()))
    for rank, mine in enumerate(shares):
        starts = np.cumsum(lengths) - lengths
        # Of each document's positions, megatron-core rotates this rank's part by these.
        expected = [
            start
            + _get_thd_freqs_on_this_cp_rank(
                rank, size, torch.empty(int(length) // size), torch.arange(int(length))
            ).numpy()
            for start, length in zip(starts, lengths, strict=True)
        ]
        assert np.array_equal(mine, np.concatenate(expected))


def test_a_rank_reads_its_share_and_the_boundaries_of_whole_documents() -> None:
    tokens = np.arange(12)
    pack = Pack(
        tokens=tokens,
        labels=tokens + 100,
        loss_mask=tokens % 3 == 0,
        segment_lengths=np.array([8, 4]),
    )
    batch = collate([pack], torch.device("cpu"), ContextShare(rank=1, size=2))
    assert batch.tokens_1T.tolist() == [[2, 3, 4, 5, 9, 10]]
    assert batch.labels_1T.tolist() == [[102, 103, 104, 105, 109, 110]]
    assert batch.position_ids_1T.tolist() == [[2, 3, 4, 5, 1, 2]]
    assert batch.loss_mask_1T.tolist() == [[False, True, False, False, True, False]]
    assert batch.packed_seq_params.cu_seqlens_q.tolist() == [0, 8, 12]
    assert batch.packed_seq_params.cu_seqlens_q_padded is batch.packed_seq_params.cu_seqlens_q


def test_documents_that_cannot_be_cut_are_a_defect() -> None:
    with pytest.raises(AssertionError, match="whole pieces"):
        ContextShare(rank=0, size=2).positions(np.array([6]))
