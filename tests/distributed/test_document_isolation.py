"""Documents of one packed sequence never see each other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_msm.convert.importing import import_hf
from megatron_msm.data.packed_dataset import Pack
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed.layout_worker import Layout, save_logits
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_llama

LENGTHS = np.array([17, 20, 11])


def pack_of(tokens: np.ndarray) -> Pack:
    mask = np.ones(len(tokens), np.bool_)
    return Pack(tokens=tokens, labels=tokens, loss_mask=mask, segment_lengths=LENGTHS)


@pytest.mark.parametrize("layout", [Layout(), Layout(pipeline=2)], ids=str)
def test_changing_one_document_moves_no_logit_of_another(layout: Layout, tmp_path: Path) -> None:
    hf_folder = write_tiny_llama(tmp_path / "hf")
    import_hf(hf_folder, tmp_path / "base")
    tokens = np.random.default_rng(0).integers(0, 300, int(LENGTHS.sum()))
    changed = tokens.copy()
    changed[17:37] = (changed[17:37] + 1) % 300  # the middle document, every token

    run_on_ranks(
        save_logits,
        layout.config.world_size,
        layout,
        iteration_folder(tmp_path / "base", 0),
        [[pack_of(tokens)], [pack_of(changed)]],
        tmp_path / "logits.pt",
    )

    (before,), (after,) = torch.load(tmp_path / "logits.pt", weights_only=True)
    is_middle = torch.zeros(len(tokens), dtype=torch.bool)
    is_middle[17:37] = True
    assert torch.equal(before[~is_middle], after[~is_middle])
    assert (before[is_middle] != after[is_middle]).any(dim=-1).all()
