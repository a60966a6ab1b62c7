"""A folder that the installed transformers reads otherwise than it was trained is not scored."""

from pathlib import Path
from typing import Any

import pytest

from evals.models.hf import open_model
from megatron_msm.errors import CheckpointError
from tests import tiny


def test_a_folder_that_is_read_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers

    folder = tiny.write_tiny_llama(tmp_path, rope_theta=500000.0)
    device = torch.device("cpu")
    assert open_model(folder, dtype="fp32", device=device, label=None).max_length == 512

    def without_theta(folder: Path, **options: Any) -> Any:
        """Emulate transformers 4, which does not know `rope_parameters`."""
        config: Any = transformers.LlamaConfig.from_pretrained(folder, **options)
        config.rope_parameters["rope_theta"] = 10000.0
        return config

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", without_theta)
    message = r"reads rope_theta 10000\.0, and it is 500000\.0 here.*Use transformers 5"
    with pytest.raises(CheckpointError, match=message):
        open_model(folder, dtype="fp32", device=device, label=None)
