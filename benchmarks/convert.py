"""Conversion beside a plain file copy, transformers, and other converters: speed and memory.

    python benchmarks/convert.py [--layers 24] [--work DIR] [--bridge-python PATH]

A random Llama in the shape of SmolLM2-1.7B (hidden 2048, MLP 8192, 32 heads, vocabulary 49,152,
tied, bfloat16; 3.4 GB with 24 layers) is written to DIR and removed at the end. Each row runs in a
process of its own. Time is that of the work, imports apart, until the files are flushed to disk; on
a machine that others use, processor time says more. Memory is the peak above what the imports take,
of the largest process.

- copy: the same bytes read and written, then flushed.
- ours: import (hashing source and result), loading into a model in memory without that (as a run
  that starts from the folder does, apart from hashing), export without and with the check of every
  tensor.
- transformers: from_pretrained and save_pretrained in bfloat16.
- Megatron-Bridge and mbridge: with --bridge-python, the interpreter of an environment that has
  them (conversion_peers.py says how they are made to run on a CPU). Their import ends with a model
  in memory, their export begins there: neither writes or reads a Megatron checkpoint.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Measured = dict[str, float | str]
# What Megatron-Bridge, which needs transformers 4, does not understand as transformers 5 writes it.
_FOR_TRANSFORMERS_4 = {"rope_theta": 130000.0, "tokenizer_class": "PreTrainedTokenizerFast"}


def write_model(folder: Path, num_layers: int) -> None:
    """Write the model, tensor by tensor, with a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    from megatron_msm.convert.huggingface.safetensors_writer import SafetensorsFile, TensorLayout
    from megatron_msm.models.families.registry import table_for
    from megatron_msm.models.hf_config import read_model_shape
    from megatron_msm.models.tensor_table import hf_tensors

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=num_layers,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=49152,
        max_position_embeddings=8192,
        rope_theta=130000.0,
        tie_word_embeddings=True,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
        bos_token_id=1,
        eos_token_id=2,
    )
    config.save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(49152)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2").save_pretrained(folder)
    for name, field in (("config", "rope_theta"), ("tokenizer_config", "tokenizer_class")):
        path = folder / f"{name}.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {field: _FOR_TRANSFORMERS_4[field]}))
    shape = read_model_shape(folder)
    sizes = sorted(hf_tensors(table_for(shape).expand(shape)))
    layouts = [TensorLayout(name, torch.bfloat16, size) for name, size in sizes]
    noise = torch.randn(max(layout.num_bytes for layout in layouts) // 2).mul(0.02).bfloat16()
    with SafetensorsFile(folder / "model.safetensors", layouts) as file:
        for layout in layouts:
            file.write(layout.name, noise[: layout.num_bytes // 2].reshape(layout.size))


def copy(work: Path) -> Callable[[], None]:
    """Copy the weights and flush them."""

    def run() -> None:
        shutil.copyfile(work / "hf" / "model.safetensors", work / "copy")
        with (work / "copy").open("rb") as file:
            os.fsync(file.fileno())

    return run


def ours_import(work: Path) -> Callable[[], None]:
    """Import."""
    from megatron_msm.convert.importing import import_hf

    return lambda: void(import_hf(work / "hf", work / "megatron", force=True))


def ours_export(work: Path, *, check: bool = False) -> Callable[[], None]:
    """Export."""
    from megatron_msm.convert.exporting import export_hf

    return lambda: void(export_hf(work / "megatron", work / "back", force=True, check=check))


def ours_checked_export(work: Path) -> Callable[[], None]:
    """Export and compare every tensor."""
    return ours_export(work, check=True)


def ours_load(work: Path) -> Callable[[], None]:
    """Load into a model in memory, as a run with `model: {hf: DIR}` does on one rank."""
    import warnings

    warnings.filterwarnings("ignore")
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="localhost")
    os.environ["MASTER_PORT"] = "29517"
    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.config.runtime import RuntimeConfig
    from megatron_msm.models.build import build_model
    from megatron_msm.models.hf_config import read_model_shape
    from megatron_msm.runtime import process_groups
    from megatron_msm.runtime.device import select_runtime
    from megatron_msm.train.checkpoints.hf_loading import load_hf

    layout = ParallelConfig()
    runtime = select_runtime(RuntimeConfig(device="cpu", dtype="bf16"), local_rank=0)
    info = process_groups.rank_info_from_environment()
    ranks = process_groups.initialize(info, runtime, layout, seed=1, timeout_min=5)
    shape = read_model_shape(work / "hf")
    return lambda: void(load_hf(work / "hf", build_model(shape, layout, runtime, ranks)))


def with_transformers(work: Path) -> Callable[[], None]:
    """Load and save."""
    import torch
    from transformers import AutoModelForCausalLM

    def run() -> None:
        model = AutoModelForCausalLM.from_pretrained(work / "hf", dtype=torch.bfloat16)
        model.save_pretrained(work / "transformers")
        os.sync()

    return run


def void(value: object) -> None:
    """Forget a result."""


TOOLS = {
    "copy": ("plain copy, flushed", copy),
    "import": ("ours: import", ours_import),
    "load": ("ours: load into a model in memory", ours_load),
    "export": ("ours: export, unchecked", ours_export),
    "checked": ("ours: export, checked", ours_checked_export),
    "transformers": ("transformers: load and save", with_transformers),
}


def measure(tool: str, work: Path) -> Measured:
    """Run one tool in this process."""
    run = TOOLS[tool][1](work)
    before_kib = _status_kib("VmRSS")
    # Forget the peak of the imports. getrusage would not do: its peak is older than the program.
    Path("/proc/self/clear_refs").write_text("5")
    started, cpu_before = time.perf_counter(), cpu_seconds()
    run()
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu_before
    peak_kib = max(_status_kib("VmHWM"), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return {"seconds": seconds, "cpu": cpu, "mib": (peak_kib - before_kib) / 1024}


def cpu_seconds() -> float:
    """Return the processor time of this process and those that it has waited for."""
    return sum(os.times()[:4])


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _run(command: list[str]) -> list[Measured]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not rows:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        rows = [{"name": command[-2], "failed": reason}]
    return rows


def main() -> None:
    """Measure everything and print the ratios."""
    parser = argparse.ArgumentParser(description="Conversion beside copy and other converters.")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--work", type=Path, help="Folder with room for five times the model.")
    parser.add_argument("--bridge-python", help="Interpreter that has megatron-bridge and mbridge.")
    parser.add_argument("--one", choices=("model", *TOOLS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one == "model":
        write_model(options.work / "hf", options.layers)
        return
    if options.one:
        found = measure(options.one, options.work)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="msm-convert-", dir=options.work) as folder:
        compare(Path(folder), options)


def compare(work: Path, options: argparse.Namespace) -> None:
    """Print a row for each tool."""
    command = [sys.executable, __file__, "--work", str(work), "--layers", str(options.layers)]
    subprocess.run([*command, "--one", "model"], check=True)
    num_bytes = (work / "hf" / "model.safetensors").stat().st_size
    sys.stdout.write(f"{num_bytes / 1e9:.2f} GB of weights\n")
    sys.stdout.write(
        f"{'':<38} {'seconds':>8} {'cpu s':>7} {'MB/s':>7} {'MiB':>7} "
        f"{'of copy':>8} {'of model':>9}\n"
    )
    copied: list[float] = []
    for tool, (title, _) in TOOLS.items():
        command = [sys.executable, __file__, "--work", str(work), "--one", tool]
        _show(_run(command), title, num_bytes, copied)
        for remains in ("copy", "transformers"):
            path = work / remains
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(
                missing_ok=True
            )
    if options.bridge_python:
        peers = Path(__file__).with_name("conversion_peers.py")
        for peer in ("megatron-bridge", "mbridge"):
            rows = _run([options.bridge_python, str(peers), peer, str(work)])
            _show(rows, peer, num_bytes, copied)


def _show(rows: list[Measured], title: str, num_bytes: int, copied: list[float]) -> None:
    for row in rows:
        name = f"{title}: {row['step']}" if "step" in row else title
        if "failed" in row:
            sys.stdout.write(f"{name:<38} failed: {row['failed']}\n")
            continue
        seconds, mib = float(row["seconds"]), float(row["mib"])
        copied.append(seconds)
        sys.stdout.write(
            f"{name:<38} {seconds:>8.1f} {float(row['cpu']):>7.1f} "
            f"{num_bytes / 1e6 / seconds:>7.0f} {mib:>7.0f} "
            f"{copied[0] / seconds:>8.2f} {mib * 2**20 / num_bytes:>9.3f}\n"
        )


if __name__ == "__main__":
    main()
