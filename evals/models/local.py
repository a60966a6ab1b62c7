"""A Hugging Face folder that is opened, or served, once: when the first evaluation asks for it."""

import contextlib
import gc
import platform
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

import torch
import transformers

from evals.models.hf import OpenModel, check_chat_template, check_folder, open_model, resolve_device
from evals.models.own_server import OwnServer, ServerConfig
from megatron_msm.formats.tokenizer_files import TokenizerFiles
from megatron_msm.progress import SILENT, Progress


class LocalModel:
    """The model that a suite judges."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        label: str | None = None,
        server: str | None = None,
        out: Path | None = None,
    ) -> None:
        """Check nothing yet.

        Args:
            folder: The Hugging Face folder; a script of replies (`*.jsonl`); or, with `server`, the
                model's name there where it is no folder of this machine.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            label: The model's name in tables; the folder's name without it.
            server: Address of an OpenAI-compatible server that writes the replies.
            out: The folder of its results; logs of its replies are kept there.
        """
        self.folder = folder
        self.server = server
        self.out = out
        self.device_name = device
        self.label = label
        self._opened: dict[str, OpenModel] = {}
        self._own_server: OwnServer | None = None
        self._progress = SILENT

    @contextlib.contextmanager
    def telling(self, progress: Progress) -> Iterator[None]:
        """Tell `progress` in the block what loading or serving the model takes."""
        self._progress = progress
        try:
            yield
        finally:
            self._progress = SILENT

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
        return resolve_device(self.device_name)

    def check(self) -> None:
        """Find out what is wrong before the first evaluation, not at its start.

        Raises:
            CheckpointError: The folder is not a Hugging Face model.
            ConfigError: There is no such device.
        """
        _ = self.device
        if self._is_folder:
            _ = self.files

    def check_can_reply(self) -> None:
        """Refuse a folder that cannot be asked in a chat turn; a server's is not seen.

        Raises:
            CheckpointError: The folder is not a Hugging Face model with a chat template.
        """
        if self._is_folder:
            _ = self.chat_files

    @property
    def control_tokens(self) -> Collection[str]:
        """Texts that would open or close a turn; none are known where there is no folder."""
        return self.files.control_tokens if self._is_folder else ()

    @property
    def _is_folder(self) -> bool:
        return not self.is_script and (self.server is None or self.folder.is_dir())

    @property
    def is_script(self) -> bool:
        """Whether its replies are written in a file: an exact stand-in for a model."""
        return self.folder.suffix == ".jsonl"

    def opened(self, dtype: str) -> OpenModel:
        """Return the model in this precision, loading it where the last one asked was another.

        Raises:
            CheckpointError: The folder is incomplete or does not fit together.
        """
        if dtype not in self._opened:
            self.close()  # two of one model would take twice its memory
            with self._progress.waiting(f"loading {self.folder.name}"):
                self._opened[dtype] = open_model(
                    self.folder, dtype=dtype, device=self.device, label=self.label
                )
        return self._opened[dtype]

    @property
    def results(self) -> Path:
        """The folder of its results."""
        assert self.out is not None, "a suite has a folder for results"
        return self.out

    def served_by(self, config: ServerConfig) -> str:
        """Return the address of a server of the folder, starting it where it does not run yet.

        Raises:
            SamplingError: It does not get ready.
        """
        if self._own_server is None or self._own_server.config != config:
            self.close()
            log = self.results / "logs" / "server.log"
            with self._progress.waiting(f"starting {config.command[0]}"):
                self._own_server = OwnServer(config, self.folder, log)
        return self._own_server.url

    def close(self) -> None:
        """Give up the weights, in this process and in a server that was started for them."""
        self._opened.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._own_server is not None:
            self._own_server.close()
            self._own_server = None
