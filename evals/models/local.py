"""A Hugging Face folder that is opened when the first evaluation asks for it, and once."""

import platform
from functools import cached_property
from pathlib import Path

import torch
import transformers

from evals.models.hf import OpenModel, check_chat_template, check_folder, open_model, resolve_device
from megatron_msm.formats.tokenizer_files import TokenizerFiles


class LocalModel:
    """The model that a suite judges."""

    def __init__(self, folder: Path, *, device: str = "auto", label: str | None = None) -> None:
        """Check nothing yet.

        Args:
            folder: The Hugging Face folder.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            label: The model's name in tables; the folder's name without it.
        """
        self.folder = folder
        self._device = device
        self.label = label
        self._opened: dict[str, OpenModel] = {}

    @cached_property
    def files(self) -> TokenizerFiles:
        """The tokenizer's files, read without loading weights.

        Raises:
            CheckpointError: The folder is not a Hugging Face model.
        """
        return check_folder(self.folder)

    @property
    def chat_files(self) -> TokenizerFiles:
        """The tokenizer's files where chat turns are asked.

        Raises:
            CheckpointError: The folder is not a Hugging Face model with a chat template.
        """
        check_chat_template(self.folder, self.files)
        return self.files

    @property
    def runtime(self) -> dict[str, str]:
        """Where and with which versions it runs: no part of a result's identity."""
        return {
            "device": str(self.device),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        }

    @cached_property
    def device(self) -> torch.device:
        """Where it runs.

        Raises:
            ConfigError: There is no such device.
        """
        return resolve_device(self._device)

    def check(self) -> None:
        """Find out what is wrong before the first evaluation, not at its start.

        Raises:
            CheckpointError: The folder is not a Hugging Face model.
            ConfigError: There is no such device.
        """
        _ = self.files, self.device

    def opened(self, dtype: str) -> OpenModel:
        """Return the model in this precision, loading it where the last one asked was another.

        Raises:
            CheckpointError: The folder is incomplete or does not fit together.
        """
        if dtype not in self._opened:
            self._opened.clear()  # two precisions of one model would take twice its memory
            self._opened[dtype] = open_model(
                self.folder, dtype=dtype, device=self.device, label=self.label
            )
        return self._opened[dtype]
