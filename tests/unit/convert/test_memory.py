"""Memory does not grow with the model: conversions under a limit that the model does not fit in."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_msm.convert.huggingface.safetensors_writer import SafetensorsFile, TensorLayout
from megatron_msm.formats.files import sha256_of_file
from tests.unit.convert.hf_folders import Sizes, sizes_of, write_small_files

MIB = 2**20
SMALL = Sizes(layers=22, heads=8, groups=4, head_dim=64, hidden=512, ffn=2048, vocab=8192)
LARGE = Sizes(layers=24, heads=32, groups=8, head_dim=64, hidden=2048, ffn=5632, vocab=32000)


def write_large_folder(folder: Path, sizes: Sizes) -> int:
    """Write a model tensor by tensor; return the bytes of its largest one."""
    write_small_files(folder, sizes)
    layouts = [TensorLayout(name, torch.bfloat16, size) for name, size in sizes_of(sizes).items()]
    noise = torch.randn(max(layout.num_bytes for layout in layouts) // 2).bfloat16()
    with SafetensorsFile(folder / "model.safetensors", layouts) as file:
        for layout in layouts:
            file.write(layout.name, noise[: layout.num_bytes // 2].reshape(layout.size))
    return noise.nbytes


@pytest.mark.parametrize(
    ("sizes", "cap_mib"),
    [
        pytest.param(SMALL, 100, id="200MB"),
        pytest.param(LARGE, 550, id="2GB", marks=pytest.mark.slow),
    ],
)
def test_conversion_there_and_back_in_less_memory_than_the_model(
    sizes: Sizes, cap_mib: int, tmp_path: Path
) -> None:
    largest = write_large_folder(tmp_path / "hf", sizes)
    source = tmp_path / "hf" / "model.safetensors"
    assert source.stat().st_size > 1.5 * cap_mib * MIB
    command = [sys.executable, "-m", "tests.unit.convert.capped_program"]
    command += [str(tmp_path / "hf"), str(tmp_path), str(cap_mib)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= min(300 + 2 * largest // MIB, cap_mib)
    back = sorted((tmp_path / "back").glob("*.safetensors"))
    if len(back) == 1:
        assert sha256_of_file(back[0]) == sha256_of_file(source)
    else:
        assert sum(file.stat().st_size for file in back) == pytest.approx(
            source.stat().st_size, rel=1e-4
        )
