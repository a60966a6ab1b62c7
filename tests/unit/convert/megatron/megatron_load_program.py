"""Loads an imported checkpoint into a GPTModel, on one gloo rank; run by test_megatron_load.py.

A process of its own, because training on a CPU changes torch for the whole process. Writes the
logits of a fixed input to a file.
"""

import os
import sys
from pathlib import Path

import torch
from megatron.core import dist_checkpointing
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.convert.megatron.writer import CONTENT_METADATA
from megatron_msm.formats.checkpoint_folder import HF_FOLDER
from megatron_msm.models.build import transformer_config
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.runtime.device import select_runtime
from megatron_msm.runtime.process_groups import RankInfo, initialize, shut_down
from megatron_msm.runtime.safe_metadata import restricted_metadata_reading

# More rows than the model has words: megatron-core pads the embedding and loads into a part of it.
PADDING = 128
TOKENS = tuple(range(3, 19))


def main(folder: Path, logits_file: Path) -> None:
    """Build, load, compute, save."""
    shape = read_model_shape(folder / HF_FOLDER)
    runtime = select_runtime(RuntimeConfig(device="cpu", dtype="fp32"), local_rank=0)
    parallel = ParallelConfig()
    ranks = initialize(RankInfo(0, 0, 1), runtime, parallel, seed=1, timeout_min=2)
    model = GPTModel(
        config=transformer_config(shape, parallel, runtime),
        transformer_layer_spec=get_gpt_layer_local_spec(normalization="RMSNorm"),
        vocab_size=shape.vocab_size + PADDING,
        max_sequence_length=64,
        share_embeddings_and_output_weights=shape.tie_word_embeddings,
        position_embedding_type="rope",
        rotary_base=shape.rope_theta,
        pg_collection=ranks.groups,
    )
    state = model.sharded_state_dict(metadata=dict(CONTENT_METADATA))  # it writes into metadata
    assert any(key.endswith("_extra_state") for key in state)
    with restricted_metadata_reading():
        loaded, missing, unexpected = dist_checkpointing.load(
            {"model": state}, str(folder), strict="return_all"
        )
    # In the checkpoint and not asked for: those of Transformer Engine's modules, which this layer
    # spec does not have.
    assert all(key.endswith("._extra_state") for key in missing), missing
    assert not unexpected, unexpected
    assert loaded["content_metadata"] == CONTENT_METADATA
    model.load_state_dict(loaded["model"])
    tokens_BS = torch.tensor([TOKENS])
    length = len(TOKENS)
    causal = torch.ones(1, 1, length, length).triu(1).bool()
    with torch.no_grad():
        logits_BSV = model(tokens_BS, torch.arange(length)[None], causal)
    torch.save(logits_BSV[..., : shape.vocab_size].contiguous(), logits_file)
    shut_down()


if __name__ == "__main__":
    os.environ["MASTER_PORT"] = sys.argv[3]
    main(Path(sys.argv[1]), Path(sys.argv[2]))
