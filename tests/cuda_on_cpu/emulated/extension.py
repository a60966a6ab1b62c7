"""`transformer_engine_torch`, Transformer Engine's compiled extension, as a module in Python.

A kernel that is not emulated may be imported; calling it says its name. The extension's enums are
made with the members that are asked for, but for those whose members Transformer Engine checks.
Source: Transformer Engine 2.20, pytorch/csrc/extensions/pybind.cpp.
"""

import enum
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from tests.cuda_on_cpu.emulated.kernel import KERNELS

NAME = "transformer_engine_torch"
_COMMON = "transformer_engine.common"
_STARRED = "transformer_engine.pytorch.cpp_extensions"


class DType(enum.IntEnum):
    """Types of numbers, with the extension's own values."""

    kByte = 0
    kInt32 = 2
    kFloat32 = 4
    kFloat16 = 5
    kBFloat16 = 6
    kFloat8E4M3 = 7
    kFloat8E5M2 = 8
    kFloat4E2M1 = 10


class NVTE_Fused_Attn_Backend(enum.IntEnum):
    """Which fused attention there is."""

    NVTE_No_Backend = -1
    NVTE_F16_arbitrary_seqlen = 1
    NVTE_FP8 = 2


_GEMMS = (1, 2, 3)
FP8FwdTensors = enum.IntEnum(  # type: ignore[misc]
    "FP8FwdTensors",
    [f"GEMM{i}_{name}" for i in _GEMMS for name in ("INPUT", "WEIGHT", "OUTPUT")],
    start=0,
)
FP8BwdTensors = enum.IntEnum(  # type: ignore[misc]
    "FP8BwdTensors",
    [f"GRAD_{name}{i}" for i in _GEMMS for name in ("OUTPUT", "INPUT")],
    start=0,
)
_WITH_MEMBERS = (DType, NVTE_Fused_Attn_Backend, FP8FwdTensors, FP8BwdTensors)


class Member(int):
    """A member of one of the extension's other enums."""

    name: str


class _MembersOnDemand(type):
    """A class whose members are made when they are first asked for."""

    def __getattr__(cls, name: str) -> Member:
        if name.startswith("__"):
            raise AttributeError(name)
        member = Member(len(vars(cls)))
        member.name = name
        setattr(cls, name, member)
        return member


class _Extension(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("flash_attention", "get_attention_backend"):
            raise AttributeError(name)  # two that plugins add
        found = _MembersOnDemand(name, (), {}) if name[0].isupper() else _not_emulated(name)
        setattr(self, name, found)
        return found


def _not_emulated(name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"the emulation has no kernel {name}")

    return call


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the two modules of Transformer Engine that look for the compiled extension."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in (_COMMON, _STARRED):
            return None
        self._real = importlib.machinery.PathFinder.find_spec(fullname, path)
        if self._real is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname,
            self._real.origin,
            loader=self,
            submodule_search_locations=self._real.submodule_search_locations,
        )

    def create_module(self, spec: Any) -> None: ...

    def exec_module(self, module: ModuleType) -> None:
        # As when Transformer Engine itself is built: its libraries are not there yet.
        os.environ["NVTE_PROJECT_BUILDING"] = "1"
        assert self._real is not None
        assert self._real.loader is not None
        self._real.loader.exec_module(module)
        if module.__name__ == _COMMON:
            module.load_framework_extension = _load  # type: ignore[attr-defined]
        else:  # it imports `*`, which leaves out what is made when it is asked for
            module.__getattr__ = sys.modules[NAME].__getattr__  # type: ignore[method-assign]


def _load(framework: str) -> None:
    if framework != "torch":
        raise FileNotFoundError(
            f"Could not find shared object file for Transformer Engine {framework} lib."
        )
    sys.modules[NAME] = extension()


def extension() -> ModuleType:
    """Return the module with all kernels that are emulated."""
    from tests.cuda_on_cpu.emulated.kernels import (  # noqa: F401
        attention,
        casting,
        context,
        layers,
        optimizer,
        products,
    )

    module = _Extension(NAME)
    for member in _WITH_MEMBERS:
        setattr(module, member.__name__, member)
    for name, function in KERNELS.items():
        setattr(module, name, function)
    return module


def install() -> None:
    """Give Transformer Engine this extension when it is imported."""
    finders: Sequence[Any] = sys.meta_path
    if not any(isinstance(finder, _Finder) for finder in finders):
        sys.meta_path.insert(0, _Finder())
