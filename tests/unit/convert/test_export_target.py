import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_msm.convert import exporting
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.huggingface.safetensors_writer import SafetensorsFile
from megatron_msm.convert.importing import import_hf
from megatron_msm.errors import CheckpointError, CheckpointWriteError, ConfigError
from megatron_msm.formats.checkpoint_folder import EXPORT_FILE
from megatron_msm.models.hf_config import read_model_shape


def test_an_interrupted_export_is_not_visible(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_written = 0
    write = SafetensorsFile.write

    def stop_in_the_middle(self: SafetensorsFile, *args: object) -> None:
        nonlocal num_written
        num_written += 1
        if num_written == 9:
            raise KeyboardInterrupt
        write(self, *args)  # type: ignore[arg-type]

    export_hf(checkpoint, tmp_path / "back")
    before = (tmp_path / "back" / EXPORT_FILE).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(SafetensorsFile, "write", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            export_hf(checkpoint, tmp_path / "new")
        num_written = 0
        with pytest.raises(KeyboardInterrupt):
            export_hf(checkpoint, tmp_path / "back", force=True)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "back" / EXPORT_FILE).read_bytes() == before
    assert (tmp_path / "back" / "model.safetensors").exists()


def test_a_killed_export_leaves_no_folder(checkpoint: Path, tmp_path: Path) -> None:
    """SIGKILL while the weights are written, as the kernel does it when memory is short."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from megatron_msm.convert import exporting\n"
        "exporting.write_index = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n"
        "exporting.export_hf(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(checkpoint), str(tmp_path / "back")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / ".tmp-back" / "model.safetensors").exists()
    assert not (tmp_path / "back").exists()
    export_hf(checkpoint, tmp_path / "back")
    assert (tmp_path / "back" / EXPORT_FILE).exists()
    assert not (tmp_path / ".tmp-back").exists()


def test_remains_of_a_killed_export_are_written_over(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / ".tmp-back").mkdir()
    (tmp_path / ".tmp-back" / "model.safetensors").write_bytes(b"half")
    export_hf(checkpoint, tmp_path / "back")
    assert not (tmp_path / ".tmp-back").exists()


def test_only_an_earlier_export_is_replaced(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "back"
    out.mkdir()
    export_hf(checkpoint, out)
    with pytest.raises(CheckpointError, match=r"already holds an export\. Use --force"):
        export_hf(checkpoint, out)
    export_hf(checkpoint, out, force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(CheckpointError, match="not an earlier export"):
        export_hf(checkpoint, tmp_path / "mine", force=True)
    with pytest.raises(CheckpointError, match="is a file"):
        export_hf(checkpoint, tmp_path / "mine" / "thesis.tex")


def test_a_target_inside_a_file(checkpoint: Path, hf_folder: Path) -> None:
    inside = hf_folder / "config.json" / "out"
    for convert, source in ((export_hf, checkpoint), (import_hf, hf_folder)):
        with pytest.raises(CheckpointError, match=r"config\.json is not a folder that may be"):
            convert(source, inside)
    with pytest.raises(CheckpointError, match=r"config\.json: not found or not readable"):
        import_hf(hf_folder / "config.json", hf_folder.parent / "out")


def test_a_disk_that_is_full_after_all(checkpoint: Path, hf_folder: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for convert, source in ((export_hf, checkpoint), (import_hf, hf_folder)):
            with pytest.raises(
                CheckpointWriteError, match=r"out: the conversion failed .*too large"
            ):
                convert(source, tmp_path / "out")
            assert not list(tmp_path.glob("*out*/*")), "nothing half-made is left"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", ["", "5", "GB", "-1GB", "0GB", "5 parsecs"])
def test_a_size_that_is_none(checkpoint: Path, tmp_path: Path, size: str) -> None:
    with pytest.raises(ConfigError, match=rf"--max-shard-size: '{size}'"):
        export_hf(checkpoint, tmp_path / "back", max_shard_size=size)


def test_a_dtype_that_is_none(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--dtype: 'int4' is not one of"):
        export_hf(checkpoint, tmp_path / "back", dtype="int4")


def test_a_damaged_tensor_list(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "tensors.json"
    path.write_text('{"x": {"dtype": "bfloat17"}}')
    shape = read_model_shape(checkpoint / "iter_0000000" / "hf")
    with pytest.raises(CheckpointError, match=r"tensors.json: not a list of tensors.*bfloat17"):
        exporting._layouts(path, shape, (), None)
    path.write_text('{"x": {"dtype": "bfloat16"}}')
    with pytest.raises(CheckpointError, match=r"does not list the tensors of llama: x"):
        exporting._layouts(path, shape, (), None)
