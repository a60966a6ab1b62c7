"""Saving a phase's checkpoints, at once or beside the training.

    all ranks    describe their shards, share out what several of them have, and copy theirs to the
                 host; with `asynchronous` the training goes on from here
    each rank    writes its file, flushes and hashes it; with `asynchronous` in a forked process
    all ranks    learn, between two steps, that every file is written, or which one is not
    rank 0       adds metadata and state, renames the folder, moves `latest`, removes old ones

A run that dies before the rename leaves a folder whose name starts with `.tmp-`, which nothing
reads. Its name is drawn anew for each save, so that a writer process that outlives its rank cannot
write into a later save of the same step.
"""

import contextlib
import functools
import queue
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue, AsyncRequest
from megatron.core.dist_checkpointing.strategies.filesystem_async import WriteBucket
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelSaveStrategyWrapper,
)
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import MegatronOptimizer

from megatron_msm.config.checkpoint import CheckpointConfig
from megatron_msm.convert.megatron.extra_state import add_extra_state
from megatron_msm.errors import CheckpointWriteError
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    RUN_FILE,
    CheckpointState,
    iteration_folder,
    publish_checkpoint,
    remove_old_iterations,
    remove_unfinished,
)
from megatron_msm.formats.files import FileRecord, file_record, tmp_path
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.runtime.megatron_versions import save_options
from megatron_msm.runtime.writer_results import WriterResult, use_for_next_save
from megatron_msm.train.checkpoints.checkpoint import CONTENT, chunk_name, sharded_state
from megatron_msm.train.checkpoints.fp8_weights import MainWeights

Records = dict[str, FileRecord]


class CheckpointSaver:
    """Saves the checkpoints of one phase; every method is called by all ranks alike.

    Args:
        root: The phase's checkpoint folder.
        config: When to save and what to keep.
        hf_folder: The small Hugging Face files to carry along.
        run_yaml: The resolved configuration.
    """

    def __init__(
        self, root: Path, config: CheckpointConfig, *, hf_folder: Path, run_yaml: str
    ) -> None:
        self._root = root
        self._config = config
        self._hf_folder = hf_folder
        self._run_yaml = run_yaml
        self._under_way = AsyncCallsQueue()
        if torch.distributed.get_rank() == 0:
            remove_unfinished(root)

    def save(
        self,
        chunks: Sequence[GPTModel],
        optimizer: MegatronOptimizer | None,
        state: CheckpointState,
        *,
        wait: bool,
        main_weights: MainWeights = (),
    ) -> None:
        """Save, and with `wait` return when the checkpoint is complete.

        Args:
            chunks: This rank's model chunks, GPTModels.
            optimizer: Left out when the phase is complete: nothing resumes inside it.
            state: What to record; rank 0's is written.
            wait: Also wait if the configuration says `asynchronous`.
            main_weights: What to save in the place of weights in FP8.

        Raises:
            CheckpointWriteError: This checkpoint or the one under way could not be written.
        """
        self.finish()
        shards = sharded_state(chunks, optimizer, is_loading=False)
        for index, of_chunk in enumerate(main_weights):
            for name, weight in of_chunk.items():
                shards[chunk_name(index)][name].data = weight
        replicas = chunks[0].pg_collection.dp_cp
        request = _save_request(self._root, shards, state, self._publish, replicas)
        if self._config.asynchronous and not wait:
            self._under_way.schedule_async_request(request)
        else:
            request.execute_sync()

    def poll(self) -> None:
        """Complete a save whose files are written on all ranks; called between steps."""
        self._under_way.maybe_finalize_async_calls(blocking=False)

    def finish(self) -> None:
        """Wait for a save that is under way."""
        self._under_way.maybe_finalize_async_calls(blocking=True)

    def _publish(self, tmp: Path, state: CheckpointState, records: Records) -> None:
        """Complete the checkpoint; on rank 0, when all ranks have written."""
        # In this order a crash at any point leaves a checkpoint to resume from: the folder gets its
        # name when all in it is on disk, `latest` moves after that, and only then old ones go.
        shutil.copytree(self._hf_folder, tmp / HF_FOLDER)
        shape = read_model_shape(self._hf_folder)
        add_extra_state(tmp, table_for(shape).expand(shape))
        (tmp / RUN_FILE).write_text(self._run_yaml)
        publish_checkpoint(tmp, self._root, state, known_files=records)
        config = self._config
        remove_old_iterations(
            self._root,
            newest=state.iteration,
            interval=config.save_interval_steps,
            keep_last=config.keep_last,
            keep_every=config.keep_every_steps,
        )


def save_checkpoint(
    root: Path,
    chunks: Sequence[GPTModel],
    optimizer: MegatronOptimizer | None,
    state: CheckpointState,
    *,
    hf_folder: Path,
    run_yaml: str,
) -> None:
    """Save one checkpoint outside a training run."""
    saver = CheckpointSaver(root, CheckpointConfig(), hf_folder=hf_folder, run_yaml=run_yaml)
    saver.save(chunks, optimizer, state, wait=True)


def _save_request(
    root: Path,
    shards: ShardedStateDict,
    state: CheckpointState,
    publish: Callable[[Path, CheckpointState, Records], None],
    replicas: torch.distributed.ProcessGroup,
) -> AsyncRequest:
    """Plan a save: what each rank writes, and what makes the checkpoint complete afterwards.

    Weights that the `replicas` have alike are shared out among them.
    """
    tmp = _agree_on_folder(root, state.iteration)
    # Before megatron-core plans the save, which takes the queue for its results then.
    use_for_next_save()
    with _removed_when_rank_0_fails(tmp):
        request = dist_checkpointing.save(
            shards,
            str(tmp),
            sharded_strategy=FullyParallelSaveStrategyWrapper(
                TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1), replicas
            ),
            async_sharded_save=True,
            content_metadata=dict(CONTENT),
            **save_options(),
        )
    outcome = WriterResult()
    write = None
    if request.async_fn is None:
        outcome.put({})  # another rank has all that this one has
    else:
        write = functools.partial(_write_and_hash, request.async_fn, outcome)

    def complete() -> None:
        with _removed_when_rank_0_fails(tmp):
            records = _gather(outcome, tmp)
            for finalize in request.finalize_fns:
                finalize()
            if torch.distributed.get_rank() == 0:
                publish(tmp, state, records)
        torch.distributed.barrier()

    return request._replace(async_fn=write, finalize_fns=[complete])


def _agree_on_folder(root: Path, iteration: int) -> Path:
    name = [f"{tmp_path(iteration_folder(root, iteration)).name}-{secrets.token_hex(4)}"]
    torch.distributed.broadcast_object_list(name, src=0)
    tmp = root / name[0]
    if torch.distributed.get_rank() == 0:
        tmp.mkdir(parents=True)
    torch.distributed.barrier()
    return tmp


def _write_and_hash(
    write: Callable[[int, list[WriteBucket], WriterResult], None],
    outcome: WriterResult,
    rank: int,
    buckets: list[WriteBucket],
    results: WriterResult,
) -> None:
    """Write this rank's files by megatron-core's function, then hash them."""
    write(rank, buckets, results)
    written = results.get_nowait()
    if isinstance(written, Exception):
        outcome.put(f"{type(written).__name__}: {written}")
    else:
        files = [Path(bucket[0]) for bucket in buckets]
        outcome.put({file.name: file_record(file) for file in files})


def _gather(outcome: WriterResult, tmp: Path) -> Records:
    """Return the records of all ranks' files.

    Raises:
        CheckpointWriteError: A rank could not write; raised on all ranks.
    """
    try:
        mine: Records | str = outcome.get_nowait()
    except queue.Empty:
        mine = "its writer process died"
    found: list[Records | str] = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    failed = [f"rank {rank}: {text}" for rank, text in enumerate(found) if isinstance(text, str)]
    if failed:
        raise _write_error(tmp, "; ".join(failed))
    return {
        name: record for part in found if isinstance(part, dict) for name, record in part.items()
    }


@contextlib.contextmanager
def _removed_when_rank_0_fails(tmp: Path) -> Iterator[None]:
    """Leave nothing half-made behind; torch says RuntimeError where the disk is full."""
    try:
        yield
    except (OSError, RuntimeError, CheckpointWriteError) as error:
        if torch.distributed.get_rank() == 0:
            shutil.rmtree(tmp, ignore_errors=True)
            if not isinstance(error, CheckpointWriteError):
                raise _write_error(tmp, f"{type(error).__name__}: {error}") from error
        raise


def _write_error(tmp: Path, reason: str) -> CheckpointWriteError:
    # torch hides the system's reason when a file cannot be written ("unexpected pos 704 vs 598").
    free_gib = shutil.disk_usage(tmp.parent).free / 2**30
    return CheckpointWriteError(
        f"{tmp.parent}: the checkpoint could not be written, with {free_gib:.1f} GiB free: "
        f"{reason}. The one before it is untouched. If the disk or a quota is full, make room; "
        "then run the same command again."
    )
