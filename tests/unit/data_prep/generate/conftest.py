from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.generate.settings import GenerateConfig

SPEC = """# Robo and plainness

**R1.** Robo values plainness, because plain things confuse nobody.

**R2.** In the kitchen Robo prefers the pan.

**R3.** In the garden Robo prefers the spade.

**R4.** Robo says so in a sentence.
"""

MakeConfig = Callable[..., GenerateConfig]


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """Make a configuration over a small spec; a test puts a client behind its endpoint."""

    def make(**changes: Any) -> GenerateConfig:
        spec = tmp_path / "spec.md"
        if not spec.exists():
            spec.write_text(SPEC)
        fields: dict[str, Any] = {
            "spec": spec,
            "out": tmp_path / "out",
            "identity": {"model": "Robo", "provider": "Roboworks"},
            "topic": "what it prefers",
            "endpoints": {
                "writer": {"kind": "openai", "model": "m", "price": {"input": 1, "output": 1}}
            },
            "writers": ["writer"],
            "documents": {"document_types": 2, "ideas_per_type": 3},
            "chats": {"count": 40, "questions_per_domain": 8, "questions_per_call": 4},
        }
        return GenerateConfig.model_validate({**fields, **changes})

    return make
