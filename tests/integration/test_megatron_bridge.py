"""Megatron-Bridge itself writes checkpoints that are imported here, and loads those written here.

Its environments are named by MSM_BRIDGE_03_PYTHON and MSM_BRIDGE_06_PYTHON; how to make them is in
benchmarks/conversion_peers.py. Without them the tests are skipped.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf, import_megatron
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import resolve_checkpoint
from tests.tiny import ARCHITECTURES, write_tiny_model

pytestmark = pytest.mark.slow
VERSIONS = {"0.3.1": "MSM_BRIDGE_03_PYTHON", "0.6.2": "MSM_BRIDGE_06_PYTHON"}
# Ranks, tensor and expert parallel ranks, of the families whose tensors are named alike here and
# there.
LAYOUTS = {"llama": (1, 1, 1), "mistral": (2, 2, 1), "qwen2": (2, 2, 1), "qwen3": (1, 1, 1)}
LAYOUTS["qwen3_moe"] = (2, 1, 2)
assert LAYOUTS.keys() <= ARCHITECTURES.keys()
PLAIN: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """A version of Megatron-Bridge that there is an environment of."""
    variable = VERSIONS[request.param]
    if variable not in os.environ:
        pytest.skip(f"{variable} names no interpreter with Megatron-Bridge {request.param}")
    return str(request.param)


def run_bridge(version: str, *arguments: object) -> None:
    command = [
        os.environ[VERSIONS[version]],
        "-m",
        "tests.integration.bridge_program",
        *map(str, arguments),
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def layout_for(version: str, model_type: str) -> tuple[int, int, int]:
    if version != "0.3.1":
        return LAYOUTS[model_type]
    if model_type == "qwen3_moe":
        pytest.skip("Megatron-Bridge 0.3.1 maps experts under Transformer Engine's names only")
    return 1, 1, 1  # with more ranks it does not split the weights of local layers


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_weights(found: Path, wanted: Path) -> None:
    one, other = tensors_of(found), tensors_of(wanted)
    assert one.keys() == other.keys()
    # On a CPU Bridge makes norms in float32; their values are the folder's.
    assert all(torch.equal(one[name].to(other[name].dtype), other[name]) for name in other)


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_what_bridge_writes_is_imported(version: str, model_type: str, tmp_path: Path) -> None:
    # As 0.3.1 would compute it: what transformers 4 does not read is refused, see below.
    hf = write_tiny_model(tmp_path / "hf", model_type, dtype="bfloat16", **PLAIN)
    run_bridge(version, "write", hf, tmp_path / "theirs", *layout_for(version, model_type))

    import_megatron(tmp_path / "theirs", hf, tmp_path / "ours")

    export_hf(tmp_path / "ours", tmp_path / "back")
    assert_same_weights(tmp_path / "back", hf)


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_bridge_loads_what_is_written_here_with_its_default_strictness(
    version: str, model_type: str, tmp_path: Path
) -> None:
    layout_for(version, model_type)
    hf = write_tiny_model(tmp_path / "hf", model_type, dtype="bfloat16", **PLAIN)
    import_hf(hf, tmp_path / "ours")

    run_bridge(version, "load", hf, resolve_checkpoint(tmp_path / "ours"), tmp_path / "back")

    assert_same_weights(tmp_path / "back", hf)


def test_a_stretch_that_bridge_did_not_compute_is_refused(version: str, tmp_path: Path) -> None:
    if version != "0.3.1":
        pytest.skip("only 0.3.1 reads what transformers 4 reads, and so drops this stretch")
    hf = write_tiny_model(tmp_path / "hf", "mistral", dtype="bfloat16")  # linear
    run_bridge(version, "write", hf, tmp_path / "theirs", 1, 1, 1)
    with pytest.raises(CheckpointError, match="seq_len_interpolation_factor is None"):
        import_megatron(tmp_path / "theirs", hf, tmp_path / "ours")
