"""One training step on a CPU, beside transformers' and a bare megatron-core loop's.

    python benchmarks/step.py [--seq-length 1024] [--rounds 5] [--dtype bf16] [--cpu-time]

The model has SmolLM2-135M's sizes and random weights; the batch is one full sequence of random
tokens, all with a loss. Every peer is a process of its own, with the same threads, that waits while
the others run: rounds alternate. The best round counts. On a loaded machine wall time says little:
use --cpu-time with --threads 1.

- transformers: LlamaForCausalLM with SDPA attention, its own loss, gradient clipping, torch's fused
  AdamW on the weights in their dtype.
- bare megatron-core: GPTModel of the local layer spec with SDPA attention, its schedule, its
  DistributedDataParallel and its optimizer (fp32 main weights under bf16), without sharding; the
  loss from whole logits.
- megatron-msm: the trainer's own step (`train_step`): sharded optimizer, chunked loss.
- megatron-msm, whole logits: the same with `memory.loss_chunk_tokens: null`.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

SIZES = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
LR = 1e-5
Step = Callable[[], float]
"""Makes one step and returns the loss."""


def transformers_step(seq_length: int, dtype: str) -> Step:
    """Return a plain step of transformers and torch."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa"))
    model.to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    tokens = torch.randint(0, SIZES["vocab_size"], (1, seq_length))

    def step() -> float:
        optimizer.zero_grad()
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss)

    return step


def bare_step(seq_length: int, dtype: str) -> Step:
    """Return a step of megatron-core alone."""
    import torch
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.models.gpt.gpt_model import GPTModel
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megatron_msm.models.attention import PackedDocumentAttention
    from megatron_msm.models.build import transformer_config

    shape, runtime, ranks = _join(dtype)
    spec = get_gpt_layer_local_spec(normalization="RMSNorm")
    spec.submodules.self_attention.submodules.core_attention = PackedDocumentAttention
    from megatron_msm.config.parallel import ParallelConfig

    config = transformer_config(shape, ParallelConfig(), runtime)
    model = GPTModel(
        config=config,
        transformer_layer_spec=spec,
        vocab_size=shape.vocab_size,
        max_sequence_length=shape.max_position_embeddings,
        share_embeddings_and_output_weights=True,
        position_embedding_type="rope",
        pg_collection=ranks.groups,
    )
    _randomize(model)
    model.to(runtime.params_dtype)
    wrapped = DistributedDataParallel(
        config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), model
    )
    config.finalize_model_grads_func = finalize_model_grads
    settings = OptimizerConfig(
        optimizer="adam",
        lr=LR,
        clip_grad=1.0,
        bf16=dtype == "bf16",
        params_dtype=runtime.params_dtype,
    )
    optimizer = get_megatron_optimizer(settings, [wrapped], use_gloo_process_groups=False)
    batch = _batch(seq_length, shape.vocab_size, runtime.device)

    def forward(batches: Any, chunk: Any) -> Any:
        one = next(batches)
        losses = chunk(
            one.tokens_1T,
            one.position_ids_1T,
            None,
            labels=one.labels_1T,
            packed_seq_params=one.packed_seq_params,
        )
        tokens = torch.tensor(seq_length, dtype=torch.int32)
        return losses, lambda values: (values.float().sum(), tokens, values.detach().sum())

    def step() -> float:
        wrapped.zero_grad_buffer()
        optimizer.zero_grad()
        (total,) = get_forward_backward_func()(
            forward_step_func=forward,
            data_iterator=iter([batch]),
            model=[wrapped],
            num_microbatches=1,
            seq_length=seq_length,
            micro_batch_size=1,
            forward_only=False,
        )
        optimizer.step()
        return float(total) / seq_length

    return step


def our_step(seq_length: int, dtype: str, *, loss_chunk_tokens: int | None = 1024) -> Step:
    """Return the trainer's step."""
    from megatron_msm.config.memory import MemoryConfig
    from megatron_msm.config.optimization import OptimizerConfig
    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.models.build import build_model
    from megatron_msm.train.step import build_optimizer, train_step, wrap_data_parallel

    shape, runtime, ranks = _join(dtype)
    memory = MemoryConfig(loss_chunk_tokens=loss_chunk_tokens)
    chunks = build_model(shape, ParallelConfig(), runtime, ranks, None, memory)
    _randomize(chunks[0])
    wrapped = wrap_data_parallel(chunks, runtime)
    optimizer = build_optimizer(wrapped, OptimizerConfig(lr=LR), runtime)
    batch = _batch(seq_length, shape.vocab_size, runtime.device)

    def step() -> float:
        return train_step(
            wrapped,
            optimizer,
            iter([batch]),
            num_microbatches=1,
            tokens_per_micro_batch=seq_length,
            lr=LR,
            ranks=ranks,
        ).loss_nats

    return step


def _join(dtype: str) -> tuple[Any, Any, Any]:
    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.config.runtime import RuntimeConfig
    from megatron_msm.models.architecture import shape_from_hf_config
    from megatron_msm.runtime.device import select_runtime
    from megatron_msm.runtime.process_groups import RankInfo, initialize

    settings = RuntimeConfig.model_validate({"device": "cpu", "dtype": dtype})
    runtime = select_runtime(settings, local_rank=0)
    os.environ["MASTER_PORT"] = str(20000 + os.getpid() % 20000)
    ranks = initialize(RankInfo(0, 0, 1), runtime, ParallelConfig(), seed=1, timeout_min=5)
    shape = shape_from_hf_config({"model_type": "llama", **SIZES}, source="benchmark")
    return shape, runtime, ranks


def _randomize(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
        else:
            torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)


def _batch(seq_length: int, vocab_size: int, device: Any) -> Any:
    import numpy as np

    from megatron_msm.data.batch import collate
    from megatron_msm.data.packed_dataset import Pack

    tokens = np.random.default_rng(0).integers(0, vocab_size, seq_length + 1)
    pack = Pack(
        tokens=tokens[:-1],
        labels=tokens[1:],
        loss_mask=np.ones(seq_length, bool),
        segment_lengths=np.array([seq_length]),
    )
    return collate([pack], device)


PEERS: dict[str, Callable[[int, str], Step]] = {
    "transformers": transformers_step,
    "bare megatron-core": bare_step,
    "megatron-msm": our_step,
    "megatron-msm, whole logits": lambda n, dtype: our_step(n, dtype, loss_chunk_tokens=None),
}


def _serve(
    name: str, seq_length: int, dtype: str, threads: int, cpu_time: bool, pipe: Connection
) -> None:
    """Build one peer and make a step for each message; answer with seconds and loss."""
    clock = time.process_time if cpu_time else time.perf_counter
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(threads)
    step = PEERS[name](seq_length, dtype)
    step()
    pipe.send((0.0, 0.0))
    while pipe.recv():
        started = clock()
        loss = step()
        pipe.send((clock() - started, loss))


def main() -> None:
    """Alternate the peers and print tokens per second and ratios."""
    parser = argparse.ArgumentParser(description="One training step beside its peers.")
    parser.add_argument("--seq-length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the process's CPU seconds; with --threads 1 right on a loaded machine too",
    )
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in PEERS:
        pipes[name], theirs = context.Pipe()
        settings = (options.seq_length, options.dtype, options.threads, options.cpu_time)
        job = (name, *settings, theirs)
        context.Process(target=_serve, args=job, daemon=True).start()
        pipes[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in PEERS}
    losses = {}
    for _ in range(options.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            spent, losses[name] = pipe.recv()
            seconds[name].append(spent)
            sys.stderr.write(f"{name}: {spent:.2f} s\n")
    _print(seconds, losses, options)


def _print(
    seconds: dict[str, list[float]], losses: dict[str, float], options: argparse.Namespace
) -> None:
    bare, peer = min(seconds["bare megatron-core"]), min(seconds["transformers"])
    load = os.getloadavg()[0]
    sys.stdout.write(
        f"SmolLM2-135M's sizes, {options.seq_length} tokens, {options.dtype}, {options.threads} "
        f"threads, {options.rounds} rounds, {'CPU' if options.cpu_time else 'wall'} seconds, load "
        f"average {load:.1f}\n"
    )
    for name, spent in seconds.items():
        best, rate = min(spent), options.seq_length / min(spent)
        sys.stdout.write(
            f"{name:<28} {best:6.2f} s best, {statistics.median(spent):6.2f} s median, "
            f"{rate:7.0f} tokens/s: {peer / best:.2f}x transformers' tokens/s, "
            f"{best / bare:.2f}x the bare step's time (loss {losses[name]:.2f})\n"
        )


if __name__ == "__main__":
    main()
