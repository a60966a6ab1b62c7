"""Megatron's forward beside transformers': equal for what is read rightly, and for nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from typer.testing import CliRunner

from megatron_msm.convert import importing, verifying
from megatron_msm.convert.cli import app
from megatron_msm.convert.forward import comparison
from megatron_msm.convert.forward.comparison import LogitDifference, MegatronProcess
from megatron_msm.convert.forward.transformers_side import differences_in_reading
from megatron_msm.convert.huggingface.weights import read_tensor
from megatron_msm.convert.import_sources import open_hf_source
from megatron_msm.convert.importing import import_hf
from megatron_msm.models import config_fields
from megatron_msm.models.architecture import HfConfig
from megatron_msm.models.families.registry import ARCHITECTURES, table_for
from megatron_msm.models.hf_config import read_hf_config, read_model_shape
from megatron_msm.models.shape import ModelShape, RopeScaling, RopeShape
from tests import tiny
from tests.unit.convert.hf_folders import write_hf_folder

pytest.importorskip("transformers", minversion="5")


@pytest.fixture(scope="module")
def megatron() -> Iterator[MegatronProcess]:
    with MegatronProcess() as process:
        yield process


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | changes))


def compare(
    process: MegatronProcess, folder: Path, shape: ModelShape
) -> tuple[LogitDifference, LogitDifference]:
    """Compare short and long documents of a folder that was read as `shape`."""
    source = open_hf_source(folder, shape, table_for(shape).expand(shape))
    return (
        comparison.whole_model(process, folder, shape, source),
        comparison.long_document(
            process, folder, shape, source, lambda name: read_tensor(source.weights, name)
        ),
    )


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_computes_what_transformers_does(
    model_type: str, tmp_path: Path, megatron: MegatronProcess
) -> None:
    folder = tiny.write_tiny_model(tmp_path, model_type)
    shape = read_model_shape(folder)
    assert differences_in_reading(folder, shape) == []
    for found in compare(megatron, folder, shape):
        assert found.relative < 2e-6
    if model_type == "llama":
        assert found.num_positions == 64 + 64  # beyond the length before it was stretched


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "qwen3_moe", "granite"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"attention_factor": 1.3, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False}],
    ids=["defaults", "every setting"],
)
def test_yarn_computes_what_transformers_does_below_and_beyond_the_original_length(
    model_type: str, settings: dict[str, Any], tmp_path: Path, megatron: MegatronProcess
) -> None:
    rope = {**tiny.YARN["rope_parameters"], **settings}
    folder = tiny.write_tiny_model(tmp_path, model_type, rope_parameters=rope)
    shape = read_model_shape(folder)
    assert differences_in_reading(folder, shape) == []
    short, long = compare(megatron, folder, shape)
    assert max(short.relative, long.relative) < 2e-6
    assert long.num_positions == 64 + 64
    assert shape.rope_scaling is not None
    without = shape.rope_scaling.model_copy(update={"attention_factor": 1.0})
    for lost in (None, without):
        wrong = shape.model_copy(update={"rope_scaling": lost})
        assert not any(found.is_same for found in compare(megatron, folder, wrong))


LLAMA3 = RopeScaling(kind="llama3", factor=8.0, original_max_position_embeddings=64)
# What a reader might make of the folder, and whether short prompts would tell.
FAULTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "theta at the top lost": ("llama", {"rope_theta": 500000.0}, True),
    "rope_scaling lost": ("llama", {"rope_scaling": None}, True),
    "another original length": (
        "llama",
        {"rope_scaling": LLAMA3.model_copy(update={"original_max_position_embeddings": 512})},
        True,
    ),
    "a window lost": ("mistral", {"max_position_embeddings": 512}, False),
    "another epsilon": ("qwen2", {"norm_epsilon": 1e-3}, True),
    "scores scaled as usual": ("granite", {"score_scale": None}, True),
    "residuals added as usual": ("granite", {"residual_multiplier": 1.0}, True),
    "weights of experts not normalised": ("qwen3_moe", {"experts": None}, True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_config_that_is_read_wrongly_is_seen(
    fault: str, tmp_path: Path, megatron: MegatronProcess
) -> None:
    model_type, changes, shows_in_short_prompts = FAULTS[fault]
    folder = tiny.write_tiny_model(tmp_path, model_type)
    shape = read_model_shape(folder)
    if shape.experts is not None:
        changes = {"experts": shape.experts.model_copy(update={"normalize_weights": False})}
    wrong = shape.model_copy(update=changes)
    short, long = compare(megatron, folder, wrong)
    assert short.is_same is not shows_in_short_prompts
    assert long.relative > 10 * comparison.TOLERANCE
    is_compared = model_type != "qwen3_moe" and "score_scale" not in changes
    assert bool(differences_in_reading(folder, wrong)) == is_compared
    if fault == "a window lost":
        assert long.position >= 64
        assert long.num_positions == 64 + 64


# What tells Gemma 3 from Qwen 3, left out or read wrongly piece by piece.
PIECES: dict[str, dict[str, Any]] = {
    "windows": {"window_layers": None},
    "one position of the window": {"window": 8},
    "theta of the windows": {"rope": RopeShape(theta=1e4)},
    "one that is added in norms": {"norms_add_one": False},
    "scale of embeddings": {"scales_embeddings": False},
    "scale of scores": {"score_scale": None},
    "activation": {"activation": "silu"},
    "stretch of the full layers": {"rope_scaling": None},
}
READ_FROM_FIELDS = ("window", "theta", "stretch")


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_of_gemma_3_counts(
    piece: str, tmp_path: Path, megatron: MegatronProcess
) -> None:
    folder = tiny.write_tiny_model(tmp_path, "gemma3_text")
    shape, changes = read_model_shape(folder), PIECES[piece]
    assert shape.window_layers is not None
    if not changes.keys() <= ModelShape.model_fields.keys():
        changes = {"window_layers": shape.window_layers.model_copy(update=changes)}
    wrong = shape.model_copy(update=changes)
    assert not any(found.is_same for found in compare(megatron, folder, wrong))
    assert bool(differences_in_reading(folder, wrong)) is any(
        word in piece for word in READ_FROM_FIELDS
    )


def test_a_model_that_sees_what_follows_is_seen(
    tmp_path: Path, megatron: MegatronProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.write_tiny_model(tmp_path, "llama")
    change_config(folder, is_causal=False)
    harmless = {**config_fields.CHANGES_NOTHING, "planted": frozenset({"is_causal"})}
    monkeypatch.setattr(config_fields, "CHANGES_NOTHING", harmless)
    assert not any(found.is_same for found in compare(megatron, folder, read_model_shape(folder)))


def test_import_and_verify_end_with_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mend of how theta is found is taken back; everything else is as it is."""
    folder, out = tmp_path / "hf", tmp_path / "megatron"
    tiny.write_tiny_model(folder, "qwen2")
    rope = {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5}
    change_config(folder, **rope)

    def planted(folder: Path) -> HfConfig:
        found = read_hf_config(folder)
        return HfConfig(found.shape.model_copy(update={"rope_theta": 1e4}), found.remarks)

    monkeypatch.setattr(importing, "read_hf_config", planted)
    monkeypatch.setattr(verifying, "read_model_shape", lambda folder: planted(folder).shape)
    runner = CliRunner()
    refused = runner.invoke(app, ["import", str(folder), str(out)])
    assert "reads rope_theta 500000.0, and it is 10000.0 here" in str(refused.exception)
    assert not out.exists()
    no_facts = "megatron_msm.convert.forward.transformers_side._facts_of_shape"
    monkeypatch.setattr(no_facts, lambda shape: {})
    refused = runner.invoke(app, ["import", str(folder), str(out)])
    assert "Megatron computes other logits with it than transformers" in str(refused.exception)
    assert not out.exists()
    assert runner.invoke(app, ["import", str(folder), str(out), "--no-check"]).exit_code == 0
    result = runner.invoke(app, ["verify", str(folder), str(out)])
    assert result.exit_code == 1
    assert "26 of 26 tensors are equal bit for bit" in result.stdout
    assert "all layers, short prompts): relative difference at most" in result.stdout
    assert result.stdout.count(": NOT the same") == 2
    assert "NOT the same model" in result.stdout


def test_a_nan_is_named_with_its_tensor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    tensors = write_hf_folder(tmp_path / "hf")
    tensors[name][0, 0] = torch.nan
    write_hf_folder(tmp_path / "hf", tensors=tensors)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    assert f"tensor {name!r} has NaN or infinity" in caplog.text
    arguments = ["verify", str(tmp_path / "hf"), str(tmp_path / "megatron"), "--no-logits"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert f"{name}: has NaN or infinity" in result.stdout
