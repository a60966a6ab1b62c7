"""One training step on a CPU, beside transformers' and a bare megatron-core loop's.

    python benchmarks/step.py [--seq-length 1024] [--rounds 5] [--dtype bf16] [--cpu-time]

The model has SmolLM2-135M's sizes and random weights. There are two kinds of batches: one full
sequence of random tokens, and documents (lengths lognormal, sigma 1, mean a quarter of the sequence
length). Tokens per second count tokens of documents, not padding, and are those of the median step.
Every peer is a process of its own, with the same threads and glibc's memory settings of our
runtime, that waits while the others run: rounds alternate. On a loaded machine wall time says
little: use --cpu-time with --threads 1.

- transformers: LlamaForCausalLM with SDPA attention, its own loss, gradient clipping, torch's fused
  AdamW on the weights in their dtype. The documents come in random order, in as many batches as the
  other peers make steps, each padded to its longest document.
- bare megatron-core: GPTModel of the local layer spec with SDPA attention, its schedule, its
  DistributedDataParallel and its optimizer (fp32 main weights under bf16), without sharding; the
  loss from whole logits. Documents are packed, as in ours.
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

import numpy as np
import numpy.typing as npt

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
Documents = list[npt.NDArray[np.int64]]
"""Tokens of each document of one batch, one more than it has to predict."""
Step = Callable[[Documents], float]
"""Makes one step and returns the loss."""
IGNORED = -100


def full_sequences(seq_length: int, rounds: int) -> list[Documents]:
    """Return a batch for each round: one document as long as the sequence."""
    return [_random_documents([seq_length], seed) for seed in range(rounds)]


def packed_documents(seq_length: int, rounds: int) -> list[Documents]:
    """Return a batch for each round: the documents of one pack."""
    from megatron_msm.data.packing.strategies import pack_documents

    mean, sigma = seq_length / 4, 1.0
    drawn = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, 64 * rounds)
    plan = pack_documents(drawn.astype(np.int64).clip(1, seq_length) + 1, seq_length)
    chosen = np.random.default_rng(1).permutation(len(plan))[:rounds].tolist()
    return [
        _random_documents(plan.segments.length[plan.segments_of(index)].tolist(), index)
        for index in chosen
    ]


def shuffled_documents(packs: list[Documents]) -> list[Documents]:
    """Return the same documents in as many batches, in random order."""
    documents = [document for pack in packs for document in pack]
    order = np.random.default_rng(2).permutation(len(documents))
    return [[documents[i] for i in part] for part in np.array_split(order, len(packs))]


def _random_documents(lengths: list[int], seed: int) -> Documents:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, int(SIZES["vocab_size"]), length + 1) for length in lengths]


def transformers_step(seq_length: int, dtype: str) -> Step:
    """Return a plain step of transformers and torch."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa"))
    model.to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)

    def step(documents: Documents) -> float:
        rows = [torch.from_numpy(document) for document in documents]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)
        is_token = labels != IGNORED
        mask = None if is_token.all() else is_token.long()
        optimizer.zero_grad()
        loss = model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False).loss
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

    from megatron_msm.models.build import transformer_config
    from megatron_msm.models.layers.attention import PackedDocumentAttention

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

    def forward(batches: Any, chunk: Any) -> Any:
        one = next(batches)
        losses = chunk(
            one.tokens_1T,
            one.position_ids_1T,
            None,
            labels=one.labels_1T,
            packed_seq_params=one.packed_seq_params,
        )

        def total(values: Any) -> tuple[Any, Any, Any]:
            loss = torch.where(one.loss_mask_1T, values.float(), 0.0).sum()
            tokens = one.loss_mask_1T.sum().int()
            return loss, tokens, (loss / tokens).detach()

        return losses, total

    def step(documents: Documents) -> float:
        batch = _batch(documents, seq_length, runtime.device)
        wrapped.zero_grad_buffer()
        optimizer.zero_grad()
        (loss,) = get_forward_backward_func()(
            forward_step_func=forward,
            data_iterator=iter([batch]),
            model=[wrapped],
            num_microbatches=1,
            seq_length=seq_length,
            micro_batch_size=1,
            forward_only=False,
        )
        optimizer.step()
        return float(loss)

    return step


def our_step(seq_length: int, dtype: str, *, loss_chunk_tokens: int | None = 1024) -> Step:
    """Return the trainer's step."""
    from megatron_msm.config.memory import MemoryConfig
    from megatron_msm.config.optimization import OptimizerConfig
    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.models.build import build_model
    from megatron_msm.train.steps.step import build_optimizer, train_step, wrap_data_parallel

    shape, runtime, ranks = _join(dtype)
    memory = MemoryConfig(loss_chunk_tokens=loss_chunk_tokens)
    chunks = build_model(shape, ParallelConfig(), runtime, ranks, None, memory)
    _randomize(chunks[0])
    wrapped = wrap_data_parallel(chunks, runtime)
    optimizer = build_optimizer(wrapped, OptimizerConfig(lr=LR), runtime)

    def step(documents: Documents) -> float:
        batch = _batch(documents, seq_length, runtime.device)
        return train_step(
            wrapped,
            optimizer,
            iter([batch]),
            num_micro_batches=1,
            tokens_per_micro_batch=seq_length,
            lr=LR,
            ranks=ranks,
        ).loss_nats

    return step


def _join(dtype: str) -> tuple[Any, Any, Any]:
    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.config.runtime import RuntimeConfig
    from megatron_msm.models.hf_config import shape_from_hf_config
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


def _batch(documents: Documents, seq_length: int, device: Any) -> Any:
    """Lay documents end to end, as the trainer's data do."""
    from megatron_msm.data.batch import collate
    from megatron_msm.data.packed_dataset import Pack

    lengths = [len(document) - 1 for document in documents]
    padding = np.zeros(seq_length - sum(lengths), np.int64)
    pack = Pack(
        tokens=np.concatenate([*(document[:-1] for document in documents), padding]),
        labels=np.concatenate([*(document[1:] for document in documents), padding]),
        loss_mask=np.arange(seq_length) < sum(lengths),
        segment_lengths=np.array([*lengths, len(padding)] if len(padding) else lengths),
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
    """Build one peer and make a step for each batch; answer with seconds and loss."""
    clock = time.process_time if cpu_time else time.perf_counter
    warnings.filterwarnings("ignore")
    import torch

    from megatron_msm.runtime.device import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    step = PEERS[name](seq_length, dtype)
    step(full_sequences(seq_length, 1)[0])
    pipe.send((0.0, 0.0))
    while documents := pipe.recv():
        started = clock()
        loss = step(documents)
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
    for workload, make in (("full sequences", full_sequences), ("documents", packed_documents)):
        batches = make(options.seq_length, options.rounds)
        rounds = [
            [padded, *[packed] * (len(PEERS) - 1)]
            for padded, packed in zip(shuffled_documents(batches), batches, strict=True)
        ]
        seconds: dict[str, list[float]] = {name: [] for name in PEERS}
        for number, round_ in enumerate(rounds):
            for (name, pipe), batch in zip(pipes.items(), round_, strict=True):
                pipe.send(batch)
                spent, loss = pipe.recv()
                seconds[name].append(spent)
                sys.stderr.write(f"{workload} {number}, {name}: {spent:.2f} s, loss {loss:.2f}\n")
        _print(workload, seconds, batches, options)
    for pipe in pipes.values():
        pipe.send(None)


def _print(
    workload: str,
    seconds: dict[str, list[float]],
    packs: list[Documents],
    options: argparse.Namespace,
) -> None:
    tokens = _positions(packs)
    padded = sum(len(batch) * (max(map(len, batch)) - 1) for batch in shuffled_documents(packs))
    sys.stdout.write(
        f"SmolLM2-135M's sizes, {workload}: {sum(map(len, packs))} documents, {tokens} tokens "
        f"({padded} when padded) in {options.rounds} steps, {options.dtype}, "
        f"{options.threads} threads, {'CPU' if options.cpu_time else 'wall'} seconds, load average "
        f"{os.getloadavg()[0]:.1f}\n"
    )
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    for name, median in medians.items():
        sys.stdout.write(
            f"{name:<28} {median:6.2f} s a step, {tokens / options.rounds / median:6.0f} tokens/s: "
            f"{medians['transformers'] / median:.2f}x transformers' tokens/s, "
            f"{median / medians['bare megatron-core']:.2f}x the bare step's time\n"
        )


def _positions(batches: list[Documents]) -> int:
    return sum(len(document) - 1 for batch in batches for document in batch)


if __name__ == "__main__":
    main()
