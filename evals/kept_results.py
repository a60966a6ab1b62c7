"""Which results of an earlier run of a suite still stand, so that a killed run goes on.

A result is kept when nothing that decides its numbers has changed: the evaluation's settings, the
content of the files that they name, the model's weights, its other files, and the code that asks.
"""

from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from evals.models.local import LocalModel
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, load_eval_result
from megatron_msm.formats.files import sha256_of_file, sha256_of_json

ASKED = "asked_sha256"
"""Key of a result's `runtime`: what was asked, without the weights."""

CODE_LEFT_OUT = ("report", "statistics")
"""Folders of this package that ask no model."""


class KeptResults:
    """The results in a folder that one model gave."""

    def __init__(self, folder: Path, model: LocalModel) -> None:
        """Read nothing yet.

        Args:
            folder: Where NAME.json of each evaluation is.
            model: What is judged.
        """
        self._folder = folder
        self._model = model

    def find(self, name: str, asked_sha256: str) -> EvalResult | None:
        """Return the result of this evaluation if it still stands."""
        try:
            result = load_eval_result(self._folder / f"{name}.json")
        except DataFormatError:
            return None
        stands = result.runtime.get(ASKED) == asked_sha256
        return result if stands and result.model.weight_files == self._weight_files else None

    @cached_property
    def _weight_files(self) -> dict[str, str] | None:
        """Hashes of the model's weights; None of a server's, which nobody can know."""
        if not self._model.folder.is_dir():
            return None
        paths = sorted(self._model.folder.glob("*.safetensors"))
        return {path.name: sha256_of_file(path) for path in paths}


def asked_sha256(task: str, settings: Mapping[str, object], model: LocalModel) -> str:
    """Return a hash of all that decides an evaluation's result, but the weights.

    Args:
        task: Its name in the registry.
        settings: By name; a `Path` counts with the content of its file.
        model: What is judged.
    """
    folder = model.folder
    beside = [path for path in sorted(folder.glob("*")) if path.suffix in (".json", ".jinja")]
    return sha256_of_json(
        {
            "task": task,
            "settings": {
                key: sha256_of_file(value)
                if isinstance(value, Path) and value.is_file()
                else str(value)
                for key, value in settings.items()
            },
            "model": [str(folder), model.label],
            "files": {path.name: sha256_of_file(path) for path in beside},
            "code": _code_sha256(),
        }
    )


def _code_sha256() -> str:
    package = Path(str(files("evals")))
    return sha256_of_json(
        {
            str(path.relative_to(package)): sha256_of_file(path)
            for path in sorted(package.rglob("*.py"))
            if path.relative_to(package).parts[0] not in CODE_LEFT_OUT
        }
    )
