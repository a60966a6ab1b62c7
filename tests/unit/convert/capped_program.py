"""Imports and exports a model in a process that may not have as much memory as the model has.

Run by test_memory.py: capped_program.py HF_DIR OUT CAP_MIB. Prints the peak resident memory above
what the imports take, in MiB.
"""

import resource
import sys
from pathlib import Path

import torch

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.progress import SILENT

MIB = 2**20


def kib_of(field: str) -> int:
    """Return a size from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main(hf_folder: Path, out: Path, cap_mib: int) -> None:
    """Set the limit, convert there and back."""
    torch.set_num_threads(1)
    before_kib = kib_of("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    limit = kib_of("VmData") * 1024 + cap_mib * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        torch.ones(sum(path.stat().st_size for path in hf_folder.glob("*.safetensors")) // 4)
    except RuntimeError:  # as it should be: the model does not fit
        import_hf(hf_folder, out / "megatron", progress=SILENT)
        export_hf(out / "megatron", out / "back", max_shard_size="500MB")
    sys.stdout.write(f"{(kib_of('VmHWM') - before_kib) // 1024}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
