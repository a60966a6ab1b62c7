"""Documents of one packed sequence never see each other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.data.packed_dataset import Pack
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed.layout_worker import layout_name, save_logits
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_llama

LENGTHS = np.array([16, 20, 12])


def pack_of(tokens: np.ndarray) -> Pack:
    mask = np.ones(len(tokens), np.bool_)
    return Pack(tokens=tokens, labels=tokens, loss_mask=mask, segment_lengths=LENGTHS)


LAYOUTS = [
    [ParallelConfig()],
    [ParallelConfig(pipeline=2), ParallelConfig(context=2)],
    [ParallelConfig(pipeline=4)],
]


@pytest.mark.parametrize("layouts", LAYOUTS, ids=["1 rank", "2 ranks", "4 ranks"])
def test_changing_one_document_moves_no_logit_of_another(
    layouts: list[ParallelConfig], tmp_path: Path
) -> None:
    hf_folder = write_tiny_llama(tmp_path / "hf")
    import_hf(hf_folder, tmp_path / "base")
    tokens = np.random.default_rng(0).integers(0, 300, int(LENGTHS.sum()))
    is_middle = np.repeat([False, True, False], LENGTHS)
    changed = np.where(is_middle, (tokens + 1) % 300, tokens)

    run_on_ranks(
        save_logits,
        layouts[0].world_size,
        layouts,
        iteration_folder(tmp_path / "base", 0),
        [[pack_of(tokens)], [pack_of(changed)]],
        tmp_path,
    )

    for layout in layouts:
        name = layout_name(layout)
        (before,), (after,) = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert torch.equal(before[~is_middle], after[~is_middle]), name
        assert (before[is_middle] != after[is_middle]).any(dim=-1).all(), name
