"""On GPUs gradients lie in buckets, each reduced as soon as it is full."""

import json
import subprocess
import sys

PROGRAM = """
import os
from functools import partial
from types import SimpleNamespace
import megatron_msm.train.steps.step as step
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.models.build import build_model
from megatron_msm.runtime.device import select_runtime
from megatron_msm.runtime.process_groups import RankInfo, initialize, shut_down
from tests.unit.models.shapes import tiny_shape

os.environ["MASTER_PORT"] = "0"
runtime = select_runtime(RuntimeConfig(device="cpu", dtype="bf16"), local_rank=0)
ranks = initialize(RankInfo(0, 0, 1), runtime, ParallelConfig(), seed=1, timeout_min=1)
chunks = build_model(tiny_shape(), ParallelConfig(), runtime, ranks)
step.DistributedDataParallelConfig = partial(step.DistributedDataParallelConfig, bucket_size=5000)
(wrapped,) = step.wrap_data_parallel(chunks, SimpleNamespace(is_cuda=True, fp8=runtime.fp8))
print([len(buffer.buckets) for buffer in wrapped.buffers])
shut_down()
"""


def test_a_gpus_buffers_are_several_buckets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (num_buckets,) = json.loads(done.stdout.splitlines()[-1])
    assert num_buckets > 3
