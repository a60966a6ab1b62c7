"""What all sections of a configuration share."""

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from megatron_msm.formats.fetched_models import model_folder

PositiveInt = Annotated[int, Field(ge=1)]
HfFolder = Annotated[Path, AfterValidator(model_folder)]
"""A Hugging Face folder, or the name of one that `msm fetch` has brought."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, field texts kept for the docs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def overrides_on(self, current: Self, section: str) -> list[str]:
        """Return the words of a command line that turn `current` into this one, none if it is.

        What differs from the defaults is among them, so that they also say what this one is.

        Args:
            current: The section as a file has it.
            section: The name that it has there.
        """
        if self == current:
            return []
        before = current.model_dump(mode="json")
        own = self.model_dump(mode="json", exclude_defaults=True)
        return [
            f"{section}.{name}={_as_yaml(value)}"
            for name, value in self.model_dump(mode="json").items()
            if name in own or value != before[name]
        ]


def _as_yaml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_as_yaml, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
