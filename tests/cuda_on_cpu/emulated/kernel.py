"""The register of emulated kernels. A kernel is called as Transformer Engine calls the real one."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
KERNELS: dict[str, Callable[..., Any]] = {}
"""By the name that the extension has."""


def kernel(function: Function) -> Function:
    """Register a kernel by its name."""
    KERNELS[function.__name__] = function
    return function
