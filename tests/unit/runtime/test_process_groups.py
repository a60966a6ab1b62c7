"""Which rank this is, by the launcher's environment, and how many ranks a layout takes."""

import pytest
import torch

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.errors import ConfigError
from megatron_msm.runtime.device import select_runtime
from megatron_msm.runtime.process_groups import RankInfo, initialize, rank_info_from_environment

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def info_of(patch: pytest.MonkeyPatch, **variables: str) -> RankInfo:
    for name in NAMES:
        patch.delenv(name, raising=False)
    for name, value in variables.items():
        patch.setenv(name, value)
    return rank_info_from_environment()


def test_a_rank_is_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    found = info_of(monkeypatch, RANK="11", LOCAL_RANK="3", WORLD_SIZE="16")
    assert found == RankInfo(rank=11, local_rank=3, world_size=16)
    assert info_of(monkeypatch) == RankInfo(rank=0, local_rank=0, world_size=1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "one"}, "RANK is 'one'"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE is ''"),
        ({"RANK": "0", "LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
        ({"RANK": "3"}, "RANK is 3 and WORLD_SIZE 1"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK is 4 and WORLD_SIZE 4"),
    ],
)
def test_an_environment_that_is_no_ranks_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"environment: {message}.* torchrun"):
        info_of(monkeypatch, **variables)


def test_another_number_of_ranks_than_the_layouts_is_refused_before_any_joins() -> None:
    runtime = select_runtime(RuntimeConfig(device="cpu"), local_rank=0)
    with pytest.raises(ConfigError, match="but 3 were started"):
        initialize(RankInfo(0, 0, 3), runtime, ParallelConfig(tensor=2), seed=1, timeout_min=1.0)
    assert not torch.distributed.is_initialized()
