"""A checkpoint written under any layout is exported bit for bit as it was imported.

So is a model that the ranks loaded straight from its Hugging Face folder.
"""

from pathlib import Path

import pytest

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf, import_megatron
from megatron_msm.convert.verifying import verify
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed.layout_worker import layout_name, save_as_it_is, save_as_megatron_lm
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_model

L = ParallelConfig
CASES = [
    (L(tensor=2), "llama"),
    (L(tensor=2), "olmo2"),
    (L(tensor=2), "granite"),
    (L(pipeline=2, layers_per_stage=(1, 3)), "gemma3_text"),
    (L(pipeline=2, virtual_pipeline=2), "qwen2"),
    (L(pipeline=2, layers_per_stage=(1, 3)), "qwen3"),
    (L(data=2, expert=2), "mixtral"),
    (L(data=2, expert=2), "qwen3_moe"),
    (L(tensor=2, sequence=True, expert=2), "qwen3_moe"),
]
SOURCES = ("checkpoint", "hf")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each model as `hf-NAME`, and `checkpoint-LAYOUT-NAME` and `hf-LAYOUT-NAME` as
    each layout saved what it had loaded from a checkpoint and from the Hugging Face folder.
    """
    root = tmp_path_factory.mktemp("layouts")
    for name in {name for _, name in CASES}:
        folder = write_tiny_model(root / f"hf-{name}", name, dtype="bfloat16", num_hidden_layers=4)
        import_hf(folder, root / name)
    jobs = [
        (
            layout,
            iteration_folder(root / name, 0),
            root / f"hf-{name}",
            *(root / f"{source}-{layout_name(layout)}-{name}" for source in SOURCES),
        )
        for layout, name in CASES
    ]
    run_on_ranks(save_as_it_is, 2, jobs)
    return root


def test_what_megatron_core_saves_by_default_is_imported(root: Path, tmp_path: Path) -> None:
    cases = [(L(tensor=2), "qwen3"), (L(data=2, expert=2), "qwen3_moe")]
    jobs = [
        (layout, iteration_folder(root / name, 0), tmp_path / f"lm-{name}")
        for layout, name in cases
    ]
    run_on_ranks(save_as_megatron_lm, 2, jobs)
    for _, name in cases:
        hf_folder, out = root / f"hf-{name}", tmp_path / name
        import_megatron(tmp_path / f"lm-{name}", hf_folder, out)
        export_hf(out, tmp_path / f"back-{name}")
        files = [folder / "model.safetensors" for folder in (hf_folder, tmp_path / f"back-{name}")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("layout", "name"), CASES, ids=[f"{layout_name(layout)}-{name}" for layout, name in CASES]
)
def test_export_is_the_file_that_was_imported(
    layout: ParallelConfig, name: str, source: str, root: Path, tmp_path: Path
) -> None:
    saved = root / f"{source}-{layout_name(layout)}-{name}"
    export_hf(saved, tmp_path / "back")
    files = [folder / "model.safetensors" for folder in (root / f"hf-{name}", tmp_path / "back")]
    assert files[0].read_bytes() == files[1].read_bytes()
    # Saved in float32, the values are those of the bfloat16 source.
    report = verify(root / f"hf-{name}", saved, logits=False)
    assert report.is_same_model
    assert {found.megatron_dtype for found in report.differences} == {"float32"}
