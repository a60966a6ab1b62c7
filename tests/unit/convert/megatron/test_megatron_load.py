import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import resolve_checkpoint
from tests.unit.convert.hf_folders import Sizes, write_hf_folder


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_megatron_core_loads_an_import_and_computes_what_transformers_does(
    tmp_path: Path, tied: bool
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    sizes = Sizes(heads=6, groups=2, hidden=24, tied=tied, dtype=torch.float32)
    write_hf_folder(tmp_path / "hf", sizes)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, logits = resolve_checkpoint(tmp_path / "megatron"), tmp_path / "logits.pt"
    program = "tests.unit.convert.megatron.megatron_load_program"
    done = subprocess.run(
        [sys.executable, "-m", program, str(folder), str(logits), str(port)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found_BSV = torch.load(logits, weights_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    with torch.no_grad():
        wanted_BSV = model(torch.arange(3, 19)[None]).logits
    assert found_BSV.shape == wanted_BSV.shape
    torch.testing.assert_close(found_BSV, wanted_BSV, rtol=1e-4, atol=1e-5)
