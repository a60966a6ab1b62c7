"""Run a chain of `msm` commands once each, as a user would type them.

A stage that ended well leaves a record with its command, its result and the time it took; running
the chain again skips it. A record whose command differs means that the folder belongs to another
run.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from megatron_msm.errors import ConfigError, MsmError
from megatron_msm.formats.files import sha256_of_file, write_json_atomic


class StageFailedError(MsmError):
    """A stage's command ended with an error, which it has printed itself."""

    def __init__(self, stage: str, status: int) -> None:
        super().__init__(f"stage {stage!r} failed with status {status}; its message is above.")
        self.exit_status = 2 if status == 2 else 1


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage leaves behind."""

    name: str
    command: tuple[str, ...]
    inputs: dict[str, str]
    """SHA-256 of the input files that the command reads."""
    seconds: float
    result: dict[str, Any]
    """What the command printed under --json; empty when it prints nothing for machines."""
    was_skipped: bool = False


class StageRunner:
    """Runs stages whose records lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        reads: Sequence[Path] = (),
        json: bool = False,
        shown: bool = False,
    ) -> StageRecord:
        """Run `msm ARGUMENTS` unless it has been run here already.

        Args:
            name: Names the record.
            arguments: Without the leading `msm`.
            reads: Files whose content belongs to the stage's identity.
            json: Add --json and keep what it prints.
            shown: Let the command's own output through.

        Raises:
            StageFailedError: The command failed.
            ConfigError: The folder holds the stage of another command or other inputs.
        """
        command = ("msm", *arguments)
        inputs = {str(path): sha256_of_file(path) for path in reads}
        earlier = self._earlier(name)
        if earlier is not None:
            self._check_same(earlier, command, inputs)
            return earlier
        started = time.monotonic()
        output = _run_msm([*arguments, "--json"] if json else list(arguments), name, shown=shown)
        record = StageRecord(
            name=name,
            command=command,
            inputs=inputs,
            seconds=time.monotonic() - started,
            result=orjson.loads(output) if json else {},
        )
        write_json_atomic(self._path(name), record.__dict__)
        return record

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _earlier(self, name: str) -> StageRecord | None:
        path = self._path(name)
        if not path.exists():
            return None
        content = orjson.loads(path.read_bytes())
        return StageRecord(**{**content, "command": tuple(content["command"]), "was_skipped": True})

    def _check_same(
        self, earlier: StageRecord, command: tuple[str, ...], inputs: dict[str, str]
    ) -> None:
        if earlier.command == command and earlier.inputs == inputs:
            return
        raise ConfigError(
            f"{self._path(earlier.name)}: this folder holds a run made with other options or "
            f"inputs ({' '.join(earlier.command)}). Choose another --out, or remove the folder."
        )


def _run_msm(arguments: list[str], name: str, *, shown: bool) -> bytes:
    """Run one command with this interpreter; stdout is returned unless it is shown."""
    done = subprocess.run(
        [sys.executable, "-m", "megatron_msm.cli", *arguments],
        stdout=None if shown else subprocess.PIPE,
        check=False,
    )
    output = done.stdout or b""
    if done.returncode:
        sys.stderr.write(output.decode(errors="replace"))
        raise StageFailedError(name, done.returncode)
    return output
