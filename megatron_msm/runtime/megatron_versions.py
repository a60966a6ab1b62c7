"""What differs between the versions of megatron-core that are supported: 0.16.1 to 0.19.

Nothing outside `runtime/` asks which version is installed; an upgrade is looked through here. Each
fork says what the versions do, and goes when the older one is no longer supported.
"""

import functools
import inspect
from importlib.metadata import version
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingConfig
from megatron.core.transformer.spec_utils import ModuleSpec


def installed_version() -> str:
    """Return megatron-core's version."""
    return version("megatron-core")


def save_options() -> dict[str, str]:
    """Return options of `dist_checkpointing.save` that choose megatron-core's own writer.

    0.16 has no other. 0.19 takes `nvidia-resiliency-ext` unless told; it is not needed here.
    """
    parameters = inspect.signature(dist_checkpointing.save).parameters
    return {"async_strategy": "mcore"} if "async_strategy" in parameters else {}


def readable_common_backends() -> tuple[str | None, ...]:
    """Return the values of `common_backend` in metadata.json that the installed version reads.

    What is no tensor lies in a file of its own, `common.pt`, in 0.16 ("torch"); in 0.19 it lies
    among the tensors and the field is gone (None).
    """
    has_field = "common_backend" in CheckpointingConfig.__dataclass_fields__
    return ("torch",) if has_field else ("torch", None)


def submodules_of(block: ModuleSpec | functools.partial[Any]) -> Any:
    """Return the parts of a block in a layer spec.

    In 0.16 a block is a ModuleSpec; in 0.19 it may be a function with the parts bound to it.
    """
    if isinstance(block, functools.partial):
        return block.keywords["submodules"]
    return block.submodules
