"""bf16 beside FP8 on one GPU: tokens/s, TFLOP/s, MFU, peak memory and how far the losses part.

    python benchmarks/gpu/precision.py --shape llama-8b
    python benchmarks/gpu/precision.py --shape llama-8b --lora-rank 64 --precisions bf16
    python benchmarks/gpu/precision.py --shape tiny --device cpu --precisions bf16   # a dry run

A model of full width, with as many layers as fit by the estimate of `msm plan` (or `--layers`),
random weights and the trainer's own step: distributed optimizer, fp32 gradients and main weights,
packed attention, chunked loss. Each precision runs in a process of its own, on the same weights and
the same tokens, of which each follows from the one before, so that the loss falls. The first
`--warmup` steps are not timed.

A precision that fails is said, and the others are measured. Ratios are to the first that did not
fail. The FLOP formula is that of megatron_msm/models/sizes/flops.py: causal attention counted half,
LoRA's frozen weights without their gradients.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from megatron_msm.models.shape import ModelShape

SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    # layers, hidden, MLP width, heads, key/value heads, vocabulary; from the models' config.json
    "llama-8b": (32, 4096, 14336, 32, 8, 128256),
    "qwen2.5-7b": (28, 3584, 18944, 28, 4, 152064),
    "qwen2.5-32b": (64, 5120, 27648, 40, 8, 152064),
    "qwen3-32b": (64, 5120, 25600, 64, 8, 151936),
    "tiny": (2, 256, 512, 4, 2, 1024),
}
PEAK_LR = 1e-4


def shape_of(name: str, num_layers: int | None) -> ModelShape:
    """Return a model's sizes as a Llama: QKV biases and QK norms cost next to nothing."""
    layers, hidden, ffn, heads, groups, vocabulary = SIZES[name]
    return ModelShape(
        model_type="llama",
        num_layers=num_layers or layers,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_attention_heads=heads,
        num_query_groups=groups,
        head_dim=hidden // heads if name == "tiny" else 128,
        vocab_size=vocabulary,
        max_position_embeddings=131072,
        norm_epsilon=1e-5,
        rope_theta=500000.0,
        tie_word_embeddings=False,
    )


def layers_that_fit(args: argparse.Namespace) -> int:
    """Return the most layers of full width that fit on the GPU by the plan's estimate.

    FP8 keeps copies of the weights that the plan does not count: half a weight's bytes for each
    direction, taken off here.
    """
    from megatron_msm.config.lora import LoraConfig
    from megatron_msm.config.memory import MemoryConfig
    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.models.sizes.batch_shape import BatchShape
    from megatron_msm.models.sizes.gpus import gpu_named
    from megatron_msm.plan.memory import RESERVE_BYTES, MemoryModel, Precision

    lora = LoraConfig(rank=args.lora_rank) if args.lora_rank else None
    sequences = args.micro_batch_size * args.num_micro_batches
    batch = BatchShape("step", args.seq_length, args.micro_batch_size, sequences, align=1)
    room = gpu_named(args.gpu).memory_gib * 2**30 - RESERVE_BYTES
    has_fp8 = args.precisions != "bf16"
    for layers in range(SIZES[args.shape][0], 0, -1):
        shape = shape_of(args.shape, layers)
        model = MemoryModel(shape, lora, MemoryConfig(recompute=args.recompute), Precision(2))
        needed = model.fullest_rank(ParallelConfig(), batch).total_bytes
        if needed + (2 * shape.num_parameters if has_fp8 else 0) <= room:
            return layers
    sys.exit(f"not one layer of {args.shape} fits on {args.gpu}: lower --seq-length")


def measure(args: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Train some steps in this process; return losses, seconds of the timed steps and memory."""
    import torch

    from megatron_msm.config.lora import LoraConfig
    from megatron_msm.config.memory import MemoryConfig
    from megatron_msm.config.optimization import OptimizerConfig
    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.config.precision import Fp8Config
    from megatron_msm.config.runtime import RuntimeConfig
    from megatron_msm.models.build import build_model
    from megatron_msm.runtime import process_groups
    from megatron_msm.runtime.device import select_runtime, set_cuda_environment
    from megatron_msm.train.steps.step import build_optimizer, train_step, wrap_data_parallel

    fp8 = None if precision == "bf16" else Fp8Config.model_validate({"recipe": precision})
    set_cuda_environment(ParallelConfig())
    runtime = select_runtime(RuntimeConfig(device=args.device, fp8=fp8), local_rank=0)
    parallel, lora = ParallelConfig(), LoraConfig(rank=args.lora_rank) if args.lora_rank else None
    info = process_groups.RankInfo(rank=0, local_rank=0, world_size=1)
    ranks = process_groups.initialize(info, runtime, parallel, seed=1, timeout_min=10)
    shape = shape_of(args.shape, args.layers)
    memory = MemoryConfig(recompute=args.recompute)
    chunks = build_model(shape, parallel, runtime, ranks, lora, memory)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in chunks[0].named_parameters():
            weight.fill_(1.0) if weight.dim() == 1 else weight.normal_(std=0.02)
            if name.endswith("lora_b"):
                weight.zero_()
    wrapped = wrap_data_parallel(chunks, runtime)
    optimizer = build_optimizer(wrapped, OptimizerConfig(lr=PEAK_LR), runtime)
    losses, seconds = [], []
    for step in range(args.warmup + args.steps):
        started = time.perf_counter()
        result = train_step(
            wrapped,
            optimizer,
            micro_batches(args, shape, runtime.device, step),
            num_micro_batches=args.num_micro_batches,
            tokens_per_micro_batch=args.micro_batch_size * args.seq_length,
            lr=PEAK_LR,
            ranks=ranks,
        )
        losses.append(result.loss_nats)  # read from the device, so the step is over
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if runtime.is_cuda else 0.0
    name = torch.cuda.get_device_name() if runtime.is_cuda else "cpu"
    process_groups.shut_down()
    step_s = float(np.median(seconds[args.warmup :]))
    return {"losses": losses, "step_s": step_s, "peak_gib": peak, "device": name}


def micro_batches(
    args: argparse.Namespace, shape: ModelShape, device: Any, step: int
) -> Iterator[Any]:
    """Yield packs of one document each; a tenth of the tokens is random, the rest follows."""
    from megatron_msm.data.batch import collate
    from megatron_msm.data.packed_dataset import Pack

    generator = np.random.default_rng(step)
    size = args.micro_batch_size * args.seq_length
    for _ in range(args.num_micro_batches):
        tokens = generator.integers(0, 1000, size + 1)
        follows = generator.random(size) < 0.9
        for position in range(size):
            if follows[position]:
                tokens[position + 1] = (7 * tokens[position] + 3) % 1000
        packs = [
            Pack(
                tokens=tokens[first : first + args.seq_length],
                labels=tokens[first + 1 : first + args.seq_length + 1],
                loss_mask=np.ones(args.seq_length, np.bool_),
                segment_lengths=np.array([args.seq_length]),
            )
            for first in range(0, size, args.seq_length)
        ]
        yield collate(packs, device)


def in_own_process(arguments: list[str], layers: int, precision: str) -> dict[str, Any] | None:
    """Measure one precision in a fresh process; None when that fails, which is said."""
    command = [sys.executable, __file__, *arguments, "--layers", str(layers), "--worker", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.stderr.write(f"{precision} failed:\n{done.stderr[-3000:]}\n")
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def describe(args: argparse.Namespace, precision: str, found: dict[str, Any], base: Any) -> str:
    """Return one line of the table."""
    from megatron_msm.models.sizes.flops import flops_per_token, utilization
    from megatron_msm.models.sizes.gpus import gpu_of_device

    shape = shape_of(args.shape, args.layers)
    tokens_per_s = (
        args.num_micro_batches * args.micro_batch_size * args.seq_length / found["step_s"]
    )
    flops = flops_per_token(shape, args.seq_length, lora=bool(args.lora_rank))
    tflops_per_s = tokens_per_s * flops / 1e12
    parts = [f"{precision:<11} {tokens_per_s:>10,.0f} tokens/s {tflops_per_s:8.1f} TFLOP/s"]
    gpu = gpu_of_device(found["device"])
    if gpu is not None:
        peaks = ("bf16",) if precision == "bf16" else ("fp8", "bf16")
        for peak in peaks:
            used = utilization(tokens_per_s, flops, gpu, peak)  # type: ignore[arg-type]
            parts.append(f"MFU {used.share:.1%} of {used.peak}")
    gaps = [abs(a / b - 1) for a, b in zip(found["losses"], base["losses"], strict=True)]
    parts.append(f"{base['step_s'] / found['step_s']:.2f}x, peak {found['peak_gib']:.1f} GiB")
    parts.append(f"loss {found['losses'][-1]:.4f}, at most {max(gaps):.2%} apart")
    return "; ".join(parts)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SIZES, default="llama-8b")
    parser.add_argument("--layers", type=int, help="layers; left out: as many as fit on --gpu")
    parser.add_argument("--gpu", default="h100", help="by msm plan's names")
    parser.add_argument("--seq-length", type=int, default=4096)
    parser.add_argument("--micro-batch-size", type=int, default=1)
    parser.add_argument("--num-micro-batches", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--precisions", default="bf16,tensorwise,blockwise")
    parser.add_argument("--lora-rank", type=int, default=0, help="0 trains all weights")
    parser.add_argument("--recompute", choices=("none", "selective", "full"), default="none")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure each precision and print a table, or one as a worker."""
    args = parse_arguments()
    if args.worker:
        sys.stdout.write(json.dumps(measure(args, args.worker)) + "\n")
        return
    args.layers = args.layers or layers_that_fit(args)
    measured = {
        precision: in_own_process(sys.argv[1:], args.layers, precision)
        for precision in args.precisions.split(",")
    }
    results = {precision: found for precision, found in measured.items() if found is not None}
    if not results:
        sys.exit("no precision could be measured")
    base = next(iter(results.values()))
    shape = shape_of(args.shape, args.layers)
    sys.stdout.write(
        f"{args.shape}, {shape.num_layers} layers, {shape.num_parameters / 1e9:.2f}B weights, "
        f"sequences of {args.seq_length}, on {base['device']}\n"
    )
    for precision, found in results.items():
        sys.stdout.write(describe(args, precision, found, base) + "\n")
    if len(results) < len(measured):
        sys.exit(1)


if __name__ == "__main__":
    main()
