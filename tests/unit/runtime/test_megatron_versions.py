"""The forks between megatron-core's versions, held to the version that is installed."""

import functools
import inspect
from pathlib import Path

import orjson
import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.transformer.spec_utils import ModuleSpec

from megatron_msm.runtime.megatron_versions import (
    readable_common_backends,
    save_options,
    submodules_of,
)


def test_the_installed_version_takes_the_options_of_a_save() -> None:
    assert set(save_options()) <= set(inspect.signature(dist_checkpointing.save).parameters)


def test_what_the_installed_version_writes_is_among_what_it_reads(tmp_path: Path) -> None:
    save_config(CheckpointingConfig("torch_dist"), str(tmp_path))
    written = orjson.loads((tmp_path / "metadata.json").read_bytes())
    assert written.get("common_backend") in readable_common_backends()


def test_a_block_is_a_spec_or_a_function_with_its_parts_bound() -> None:
    parts = object()
    assert submodules_of(ModuleSpec(module=torch.nn.Identity, submodules=parts)) is parts
    assert submodules_of(functools.partial(torch.nn.Identity, submodules=parts)) is parts
