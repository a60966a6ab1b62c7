from pathlib import Path

import pytest

from tests.unit.data_prep.tiny_tokenizer import write_tokenizer


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ChatML tokenizer."""
    return write_tokenizer(tmp_path_factory.mktemp("chatml"))


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_folder: Path) -> Path:
    """SmolLM2-135M-Instruct's own tokenizer, as transformers saves it."""
    return smollm2_folder
