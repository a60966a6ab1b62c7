"""What a rank does in the layout tests; results go to files that the test compares."""

from collections.abc import Iterator
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
from megatron_msm.formats.checkpoint_folder import HF_FOLDER, read_checkpoint_state
from megatron_msm.models.architecture import read_model_shape

NUM_STEPS = 5
NUM_PACKS = 2
SEQ_LENGTH = 48
OPTIMIZER = OptimizerConfig(lr=1.0, weight_decay=0.1, clip_grad_norm=0.5)
"""The peak learning rate is each model's own: see `Case`."""
SCHEDULE = ScheduleConfig(kind="cosine", warmup_fraction=0.4)


@dataclass(frozen=True)
class Layout:
    """A parallel layout, printable as a test id."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    def __str__(self) -> str:
        return f"tp{self.tensor}-pp{self.pipeline}-dp{self.data}"

    @property
    def config(self) -> ParallelConfig:
        return ParallelConfig(tensor=self.tensor, pipeline=self.pipeline, data=self.data)


@dataclass(frozen=True)
class Case:
    """A model that a layout is tested with."""

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
    cuts = np.sort(generator.choice(np.arange(3, SEQ_LENGTH - 3), 3, replace=False))
    lengths = np.diff([0, *cuts, SEQ_LENGTH])
    starts = generator.integers(0, len(corpus) - SEQ_LENGTH - 1, len(lengths))
    windows = [np.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)]
    positions = np.concatenate(windows)
    mask = generator.random(SEQ_LENGTH) < (0.2 + 0.2 * index)
    mask[0] = True
    mask[cuts[-1] :] = False  # the last segment is padding
    return Pack(
        tokens=corpus[positions],
        labels=corpus[positions + 1],
        loss_mask=mask,
        segment_lengths=lengths,
    )


@dataclass(frozen=True)
class Rank:
    """A rank with a loaded model."""

    model: Any
    runtime: Any
    ranks: Any
    layout: Layout
    checkpoint: Path

    def micro_batches(self, packs: list[Pack]) -> Iterator[Any]:
        from megatron_msm.data.batch import collate

        for pack in packs[self.ranks.data_rank :: self.layout.data]:
            yield collate([pack], self.runtime.device)


def join(layout: Layout) -> tuple[Any, Any]:
    """Join the process groups; return the runtime and this rank's place."""
    from megatron_msm.runtime import process_groups
    from megatron_msm.runtime.device import select_runtime

    runtime = select_runtime(RuntimeConfig(device="cpu", dtype="fp32"), local_rank=0)
    info = process_groups.rank_info_from_environment()
    ranks = process_groups.initialize(info, runtime, layout.config, seed=1, timeout_min=5)
    return runtime, ranks


def load(layout: Layout, checkpoint: Path, runtime: Any, ranks: Any) -> Rank:
    """Build this rank's part of the checkpoint's model and load it."""
    from megatron_msm.models.build import build_model
    from megatron_msm.train.checkpoint import load_checkpoint

    shape = read_model_shape(checkpoint / HF_FOLDER)
    model = build_model(shape, layout.config, runtime, ranks)
    load_checkpoint(checkpoint, model, None)
    return Rank(model, runtime, ranks, layout, checkpoint)


def logits_of_packs(rank: Rank, packs: list[Pack]) -> list[torch.Tensor] | None:
    """Return [S, V] logits of each pack on the last stage, None elsewhere."""
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
            data_iterator=iter(mine),
            model=[rank.model],
            num_microbatches=len(mine),
            seq_length=len(packs[0].tokens),
            micro_batch_size=1,
            forward_only=True,
            collect_non_loss_data=True,
        )
        if not rank.ranks.is_last_stage:
            return None
        return [
            gather_from_tensor_model_parallel_region(output, group=rank.ranks.groups.tp)[0]
            for output in outputs
        ]


def save_logits(layout: Layout, checkpoint: Path, batches: list[list[Pack]], out: Path) -> None:
    """Write the logits of each batch of packs to `out`, from data parallel rank 0."""
    from megatron_msm.runtime import process_groups

    rank = load(layout, checkpoint, *join(layout))
    results = [logits_of_packs(rank, packs) for packs in batches]
    if rank.ranks.is_last_stage and rank.ranks.groups.tp.rank() == 0 and rank.ranks.data_rank == 0:
        torch.save(results, out)
    process_groups.shut_down()


def save_mathematics(layout: Layout, cases: list[Case]) -> None:
    """Write for each case what `_save_mathematics` writes, in one set of processes."""
    from megatron_msm.runtime import process_groups

    runtime, ranks = join(layout)
    for case in cases:
        _save_mathematics(load(layout, case.checkpoint, runtime, ranks), case)
    process_groups.shut_down()


def _save_mathematics(rank: Rank, case: Case) -> None:
    """Write step 0's logits, its gradient in the place of weights, and weights after some steps."""
    import json

    from megatron_msm.train.schedule import learning_rate
    from megatron_msm.train.step import build_optimizer, train_step, wrap_data_parallel

    layout, out = rank.layout, case.out
    logits = logits_of_packs(rank, packs_of_step(0, case.corpus))
    if logits is not None and rank.ranks.groups.tp.rank() == 0:
        torch.save(logits, out / f"logits_{rank.ranks.data_rank}.pt")
    _save(rank, _gradients(rank, case.corpus), out / "gradients")
    wrapped = wrap_data_parallel(rank.model, rank.runtime, rank.ranks)
    optimizer = build_optimizer(wrapped, OPTIMIZER, rank.runtime)
    results = []
    for step in range(NUM_STEPS):
        packs = packs_of_step(step, case.corpus)
        result = train_step(
            wrapped,
            optimizer,
            rank.micro_batches(packs),
            num_microbatches=NUM_PACKS // layout.data,
            tokens_per_micro_batch=SEQ_LENGTH,
            lr=learning_rate(SCHEDULE, peak=case.lr, step=step, num_steps=NUM_STEPS),
            ranks=rank.ranks,
        )
        results.append([result.loss_nats, result.num_loss_tokens, result.grad_norm])
    _save(rank, rank.model, out / "weights")
    if rank.ranks.rank == 0:
        (out / "steps.json").write_text(json.dumps(results))


def _gradients(rank: Rank, corpus: npt.NDArray[np.int64]) -> Any:
    """Return a second model whose weights are the gradients of step 0's global loss."""
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megatron_msm.train.checkpoint import load_checkpoint
    from megatron_msm.train.step import forward_step

    # Gradients whole on every replica, which the sharded optimizer's buffers would not keep.
    second = start_model_again(rank)
    load_checkpoint(rank.checkpoint, second, None)
    config = DistributedDataParallelConfig(grad_reduce_in_fp32=True)
    wrapped = DistributedDataParallel(config=second.config, ddp_config=config, module=second)
    second.config.finalize_model_grads_func = finalize_model_grads
    wrapped.zero_grad_buffer()
    packs = packs_of_step(0, corpus)
    get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=rank.micro_batches(packs),
        model=[wrapped],
        num_microbatches=NUM_PACKS // rank.layout.data,
        seq_length=SEQ_LENGTH,
        micro_batch_size=1,
        forward_only=False,
    )
    for parameter in second.parameters():
        parameter.data.copy_(parameter.main_grad)
    return second


def start_model_again(rank: Rank) -> Any:
    """Build the same part of the model once more."""
    from megatron_msm.models.build import build_model

    shape = read_model_shape(rank.checkpoint / HF_FOLDER)
    return build_model(shape, rank.layout.config, rank.runtime, rank.ranks)


def _save(rank: Rank, model: Any, root: Path) -> None:
    from megatron_msm.train.checkpoint import save_checkpoint

    state = read_checkpoint_state(rank.checkpoint).model_copy(update={"files": {}})
    save_checkpoint(
        root, model, None, state, hf_folder=rank.checkpoint / HF_FOLDER, run_yaml="test: true\n"
    )
