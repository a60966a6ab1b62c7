"""What a rank does in the layout tests; results go to files that the test compares."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from megatron_msm.config.optimization import OptimizerConfig, ScheduleConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.data.packed_dataset import Pack
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    iteration_folder,
    read_checkpoint_state,
)
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.layers.context import ContextShare
from tests.distributed.ranks import device_of_rank, free_port

NUM_STEPS = 5
NUM_PACKS = 4
SEQ_LENGTH = 48
ALIGN = 4
"""Documents have a multiple of this many positions, so that two context ranks can share them."""
OPTIMIZER = OptimizerConfig(lr=1.0, weight_decay=0.1, clip_grad_norm=0.5)
"""The peak learning rate is each model's own: see `Case`."""
SCHEDULE = ScheduleConfig(kind="cosine", warmup_fraction=0.4)


def layout_name(layout: ParallelConfig) -> str:
    """Return a short test id: `tp2sp-pp2vpp2-dp1` is `tp2sp-pp2vpp2`."""
    uneven = "".join(map(str, layout.layers_per_stage or ()))
    parts = {
        "tp": (layout.tensor, "sp" if layout.sequence else ""),
        "pp": (layout.pipeline, f"layers{uneven}" if uneven else ""),
        "vpp": (layout.virtual_pipeline, ""),
        "cp": (layout.context, ""),
        "ep": (layout.expert, ""),
        "dp": (layout.data, ""),
    }
    return "-".join(f"{n}{size}{more}" for n, (size, more) in parts.items() if size > 1) or "single"


@dataclass(frozen=True)
class Case:
    """A model under a layout."""

    layout: ParallelConfig
    checkpoint: Path
    out: Path
    """Where the ranks write."""
    corpus: npt.NDArray[np.int64]
    """Tokens to train on."""
    lr: float


def packs_of_step(step: int, corpus: npt.NDArray[np.int64]) -> list[Pack]:
    """Return packed sequences of random windows: several documents, padding, unequal masks."""
    generator = np.random.default_rng(step)
    return [_random_pack(generator, index, corpus) for index in range(NUM_PACKS)]


def _random_pack(generator: np.random.Generator, index: int, corpus: npt.NDArray[np.int64]) -> Pack:
    cuts = np.sort(generator.choice(np.arange(ALIGN, SEQ_LENGTH, ALIGN), 3, replace=False))
    lengths = np.diff([0, *cuts, SEQ_LENGTH])
    starts = generator.integers(0, len(corpus) - SEQ_LENGTH - 1, len(lengths))
    windows = [np.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)]
    positions = np.concatenate(windows)
    mask = generator.random(SEQ_LENGTH) < (0.1 + 0.2 * index)
    mask[0] = True
    mask[cuts[-1] :] = False  # the last segment is padding
    return Pack(
        tokens=corpus[positions],
        labels=corpus[positions + 1],
        loss_mask=mask,
        segment_lengths=lengths,
    )


ISOLATION_LENGTHS = np.array([16, 20, 12])


def isolation_batches(corpus: npt.NDArray[np.int64]) -> list[list[Pack]]:
    """Return packs of three documents, and the same with every token of the middle one changed."""
    tokens = corpus[:SEQ_LENGTH]
    changed = np.where(is_middle_document(), (tokens + 1) % 300, tokens)
    return [[_unmasked_pack(content)] * NUM_PACKS for content in (tokens, changed)]


def is_middle_document() -> npt.NDArray[np.bool_]:
    """Return which positions of the isolation packs belong to the middle document."""
    return np.repeat([False, True, False], ISOLATION_LENGTHS)


def _unmasked_pack(tokens: npt.NDArray[np.int64]) -> Pack:
    mask = np.ones(len(tokens), np.bool_)
    return Pack(tokens=tokens, labels=tokens, loss_mask=mask, segment_lengths=ISOLATION_LENGTHS)


@dataclass(frozen=True)
class Rank:
    """A rank with its loaded model chunks."""

    chunks: list[Any]
    runtime: Any
    ranks: Any
    layout: ParallelConfig
    checkpoint: Path

    def micro_batches(self, packs: list[Pack]) -> Iterator[Any]:
        from megatron_msm.data.batch import collate

        for pack in packs[self.ranks.data_rank :: self.layout.data]:
            yield collate([pack], self.runtime.device, self.context)

    @property
    def context(self) -> ContextShare:
        return ContextShare(self.ranks.context_rank, self.ranks.context_size)


def join(layout: ParallelConfig, config: RuntimeConfig | None = None) -> tuple[Any, Any]:
    """Join the process groups; return the runtime and this rank's position in them."""
    from megatron_msm.runtime import process_groups
    from megatron_msm.runtime.device import select_runtime, set_cuda_environment

    set_cuda_environment(layout)
    info = process_groups.rank_info_from_environment()
    runtime = select_runtime(config or device_of_rank().config, local_rank=info.local_rank)
    ranks = process_groups.initialize(info, runtime, layout, seed=1, timeout_min=5)
    return runtime, ranks


def load(layout: ParallelConfig, checkpoint: Path, runtime: Any, ranks: Any) -> Rank:
    """Build this rank's part of the checkpoint's model and load it."""
    from megatron_msm.models.build import build_model
    from megatron_msm.train.checkpoints.checkpoint import load_checkpoint

    shape = read_model_shape(checkpoint / HF_FOLDER)
    chunks = build_model(shape, layout, runtime, ranks)
    load_checkpoint(checkpoint, chunks, None)
    return Rank(chunks, runtime, ranks, layout, checkpoint)


def logits_of_packs(rank: Rank, packs: list[Pack]) -> list[torch.Tensor] | None:
    """Return [S, V] logits of this data rank's packs on the last stage, None elsewhere."""
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

    def forward_step(batches: Iterator[Any], model: Any) -> Any:
        batch = next(batches)
        output = model(
            batch.tokens_1T,
            batch.position_ids_1T,
            None,
            packed_seq_params=batch.packed_seq_params,
        )
        return output, lambda logits, non_loss_data: logits

    mine = list(rank.micro_batches(packs))
    with torch.no_grad():
        outputs = get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=[iter(mine) for _ in rank.chunks],
            model=rank.chunks,
            num_microbatches=len(mine),
            seq_length=len(packs[0].tokens),
            micro_batch_size=1,
            forward_only=True,
            collect_non_loss_data=True,
        )
        if not rank.ranks.is_last_stage:
            return None
        whole = [
            gather_from_tensor_model_parallel_region(output, group=rank.ranks.groups.tp)[0]
            for output in outputs
        ]
        own_packs = packs[rank.ranks.data_rank :: rank.layout.data]
        return [
            _of_all_context_ranks(rank, logits, pack)
            for logits, pack in zip(whole, own_packs, strict=True)
        ]


def _of_all_context_ranks(rank: Rank, logits_TV: torch.Tensor, pack: Pack) -> torch.Tensor:
    """Put the context ranks' shares together again; [S, V] in the pack's order."""
    size = rank.layout.context
    shares = [torch.empty_like(logits_TV) for _ in range(size)]
    torch.distributed.all_gather(shares, logits_TV.contiguous(), group=rank.ranks.groups.cp)
    whole = torch.empty(len(pack.tokens), logits_TV.shape[-1], dtype=logits_TV.dtype)
    for index, share in enumerate(shares):
        whole[ContextShare(index, size).positions(pack.segment_lengths)] = share.cpu()
    return whole


def is_first_replica(rank: Rank) -> bool:
    """Return whether this rank is the one of its last stage that writes for all."""
    groups = rank.ranks.groups
    return bool(rank.ranks.is_last_stage and groups.tp.rank() == 0 and groups.cp.rank() == 0)


@contextlib.contextmanager
def joined(
    layout: ParallelConfig, config: RuntimeConfig | None = None
) -> Iterator[tuple[Any, Any]]:
    """Take part in a layout's process groups; an error says which layout it was."""
    from megatron_msm.runtime import process_groups

    try:
        yield join(layout, config)
    except Exception as error:
        raise RuntimeError(f"in layout {layout_name(layout)}") from error
    # The next layout in these processes meets at a port of its own.
    own = free_port() if os.environ["RANK"] == "0" else 0
    port = torch.tensor(own, device=device_of_rank().kind)
    torch.distributed.broadcast(port, 0)
    os.environ["MASTER_PORT"] = str(int(port))
    torch.distributed.barrier()
    process_groups.shut_down()


def save_as_it_is(jobs: list[tuple[ParallelConfig, Path, Path, Path, Path]]) -> None:
    """Load models under a layout and save them again.

    A job is (layout, checkpoint, Hugging Face folder, where what was loaded from the one is saved,
    where what was loaded from the other is).
    """
    from megatron_msm.train.checkpoints.hf_loading import load_hf

    for layout, checkpoint, hf_folder, out, out_of_hf in jobs:
        with joined(layout) as (runtime, ranks):
            rank = load(layout, checkpoint, runtime, ranks)
            save(rank, rank.chunks, out)
            for weight in (weight for chunk in rank.chunks for weight in chunk.parameters()):
                weight.data.fill_(torch.nan)
            load_hf(hf_folder, rank.chunks)
            save(rank, rank.chunks, out_of_hf)


def save_as_megatron_lm(jobs: list[tuple[ParallelConfig, Path, Path]]) -> None:
    """Load each checkpoint under a layout and save it with megatron-core's defaults.

    So Megatron-LM does it: one tensor for all layers, `_extra_state` objects, nothing of ours.
    """
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

    for layout, checkpoint, out in jobs:
        with joined(layout) as (runtime, ranks):
            (chunk,) = load(layout, checkpoint, runtime, ranks).chunks
            folder = iteration_folder(out, 30)
            if ranks.rank == 0:
                folder.mkdir(parents=True)
                (out / "latest_checkpointed_iteration.txt").write_text("30")
            torch.distributed.barrier()
            dist_checkpointing.save(
                {"model": chunk.sharded_state_dict(), "iteration": 30},
                str(folder),
                sharded_strategy=TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1),
            )


def save_mathematics(cases: list[Case], chain: list[Case]) -> None:
    """Write for each case what `_save_mathematics` writes, and go through a chain of layouts."""
    for case in cases:
        with joined(case.layout) as (runtime, ranks):
            _save_mathematics(load(case.layout, case.checkpoint, runtime, ranks), case)
    if chain:
        _save_after_changing_layout(chain)


def _save_mathematics(rank: Rank, case: Case) -> None:
    """Write step 0's logits, its gradient in the place of weights, and weights after some steps."""
    from megatron_msm.train.steps.step import build_optimizer, wrap_data_parallel

    out = case.out
    logits = logits_of_packs(rank, packs_of_step(0, case.corpus))
    if is_first_replica(rank):
        torch.save(logits, out / f"logits_{rank.ranks.data_rank}.pt")
    isolation = [logits_of_packs(rank, packs) for packs in isolation_batches(case.corpus)]
    if is_first_replica(rank) and rank.ranks.data_rank == 0:
        torch.save(isolation, out / "isolation.pt")
    save(rank, gradients(rank, case.corpus), out / "gradients")
    wrapped = wrap_data_parallel(rank.chunks, rank.runtime)
    optimizer = build_optimizer(wrapped, OPTIMIZER, rank.runtime)
    results = train_steps(rank, wrapped, optimizer, case, range(NUM_STEPS))
    save(rank, rank.chunks, out / "weights")
    if rank.ranks.rank == 0:
        (out / "steps.json").write_text(json.dumps(results))


def train_steps(
    rank: Rank, wrapped: Any, optimizer: Any, case: Case, steps: Iterable[int]
) -> list[list[float]]:
    """Make optimizer steps; return loss, tokens and gradient norm of each."""
    from megatron_msm.train.steps.schedule import learning_rate
    from megatron_msm.train.steps.step import train_step

    results = []
    for step in steps:
        result = train_step(
            wrapped,
            optimizer,
            rank.micro_batches(packs_of_step(step, case.corpus)),
            num_micro_batches=NUM_PACKS // rank.layout.data,
            tokens_per_micro_batch=SEQ_LENGTH,
            lr=learning_rate(
                SCHEDULE, peak=case.lr, step=step, num_steps=NUM_STEPS, tokens_per_step=1
            ),
            ranks=rank.ranks,
        )
        results.append([result.loss_nats, result.num_loss_tokens, result.grad_norm])
    return results


def _save_after_changing_layout(cases: list[Case]) -> None:
    """Train a step or two under each case's layout, each from the checkpoint of the one before.

    Weights and optimizer state of the last end in its `out`/weights.
    """
    from megatron_msm.train.checkpoints.checkpoint import load_checkpoint
    from megatron_msm.train.steps.step import build_optimizer, wrap_data_parallel

    parts = np.array_split(np.arange(NUM_STEPS), len(cases))
    before: Path | None = None
    for case, steps in zip(cases, parts, strict=True):
        with joined(case.layout) as (runtime, ranks):
            rank = load(case.layout, case.checkpoint, runtime, ranks)
            wrapped = wrap_data_parallel(rank.chunks, runtime)
            optimizer = build_optimizer(wrapped, OPTIMIZER, runtime)
            if before is not None:
                load_checkpoint(before, rank.chunks, optimizer)
            train_steps(rank, wrapped, optimizer, case, steps.tolist())
            save(rank, rank.chunks, case.out / "weights", optimizer)
        before = iteration_folder(case.out / "weights", 0)


def gradients(rank: Rank, corpus: npt.NDArray[np.int64]) -> list[Any]:
    """Return second model chunks whose weights are the gradients of step 0's global loss."""
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megatron_msm.train.steps.step import forward_step

    # Gradients whole on every replica, which the sharded optimizer's buffers would not keep.
    second = load(rank.layout, rank.checkpoint, rank.runtime, rank.ranks).chunks
    config = second[0].config
    wrapped = [
        DistributedDataParallel(
            config=config,
            ddp_config=DistributedDataParallelConfig(grad_reduce_in_fp32=True),
            module=chunk,
        )
        for chunk in second
    ]
    config.finalize_model_grads_func = finalize_model_grads
    packs = packs_of_step(0, corpus)
    for chunk in wrapped:
        chunk.zero_grad_buffer()
    get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=[rank.micro_batches(packs) for _ in wrapped],
        model=wrapped,
        num_microbatches=NUM_PACKS // rank.layout.data,
        seq_length=SEQ_LENGTH,
        micro_batch_size=1,
        forward_only=False,
    )
    for chunk in second:
        for parameter in chunk.parameters():
            parameter.data.copy_(parameter.main_grad)
    return second


def save(rank: Rank, chunks: list[Any], root: Path, optimizer: Any = None) -> None:
    from megatron_msm.train.checkpoints.saving import save_checkpoint

    state = read_checkpoint_state(rank.checkpoint).model_copy(update={"files": {}})
    save_checkpoint(
        root, chunks, optimizer, state, hf_folder=rank.checkpoint / HF_FOLDER, run_yaml="a: b\n"
    )
