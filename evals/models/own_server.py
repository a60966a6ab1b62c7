"""SERVER.yaml: a server that is started for the judged model, and ended with the evaluations.

    command: [vllm, serve, "{model}", --port, "{port}", --dtype, bfloat16]
    ---
    command: [transformers, serve, "{model}", --port, "{port}", --device, cpu, --dtype, bfloat16]

`{model}` is the model's folder and `{port}` a free port of this machine. Any program does that
speaks OpenAI's chat completions under `/v1` and knows the model by its folder's path. The command
is part of the protocol, since it decides precision and sampler.
"""

import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from evals.models import server_guard
from megatron_msm.config.load import load_config
from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.errors import ConfigError, SamplingError
from megatron_msm.own_packages import python_module

_POLL_S = 0.25
_TAIL_LINES = 12
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""This machine is not behind a proxy, whatever the environment says."""


class ServerConfig(Section):
    """A whole SERVER.yaml."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Program and arguments, with the places `{model}` and `{port}`."""
    ready: Annotated[str, Field(pattern=r"^/[^\s]*$")] = "/health"
    """What answers with status 200 as soon as the model can be asked."""
    start_timeout_s: PositiveInt = 1800
    """Seconds that loading may take."""
    stop_timeout_s: PositiveInt = 30
    """Seconds that it may take to end before it is killed."""

    @field_validator("command")
    @classmethod
    def _has_places(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        for place in ("{model}", "{port}"):
            if not any(place in part for part in command):
                raise ValueError(
                    f"no part holds {place}: the model's folder is put in the place of {{model}}, "
                    "a free port in that of {port}"
                )
        return command

    @property
    def way(self) -> str:
        """How the model is asked, as protocols say it."""
        return "server: " + " ".join(self.command)


def load_server(path: Path) -> ServerConfig:
    """Read SERVER.yaml.

    Raises:
        ConfigError: The file is broken, or this machine has no such program.
    """
    config = load_config(path, ServerConfig)
    if shutil.which(config.command[0]) is None:
        raise ConfigError(
            f"{path}: command: there is no program {config.command[0]!r} on this machine's PATH. "
            "Install it, or give its path."
        )
    return config


class OwnServer:
    """A running server."""

    def __init__(self, config: ServerConfig, folder: Path, log: Path) -> None:
        """Start it and wait until it can be asked.

        Args:
            config: How it is started.
            folder: The model.
            log: Where its output goes, behind what is there.

        Raises:
            SamplingError: It ended, or did not get ready in time; the message has its last lines.
        """
        self.config = config
        self._log = log
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        self._ready = f"http://127.0.0.1:{port}{config.ready}"
        places = {"{model}": str(folder), "{port}": str(port)}
        command = [_filled(part, places) for part in config.command]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                python_module(server_guard.__name__, str(config.stop_timeout_s), *command),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it; return when it is gone."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + self.config.start_timeout_s
        while not self._answers():
            if self._guard.poll() is not None:
                raise self._failure(f"ended with status {self._guard.returncode}")
            if time.monotonic() > deadline:
                waited = f"{self.config.ready} did not answer in {self.config.start_timeout_s} s"
                raise self._failure(f"{waited} (start_timeout_s)")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        try:
            with _DIRECT.open(self._ready, timeout=10) as reply:
                return bool(reply.status == 200)
        except OSError:  # not yet: nobody listens, or it says that it is loading
            return False

    def _failure(self, what: str) -> SamplingError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "".join(f"\n    {line}" for line in lines[-_TAIL_LINES:])
        return SamplingError(
            f"the server {' '.join(self.config.command)!r} {what}. Mend what its log says "
            f"({self._log}) and run the same command again:{tail}"
        )


def _filled(part: str, places: dict[str, str]) -> str:
    # Not str.format: arguments in JSON have braces of their own.
    for place, value in places.items():
        part = part.replace(place, value)
    return part


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
