import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from megatron_msm.convert.comparing import same_bits
from megatron_msm.convert.exporting import ExportManifest, export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import (
    EXPORT_FILE,
    HF_FOLDER,
    read_checkpoint_state,
    resolve_checkpoint,
    verify_checkpoint_hashes,
)
from megatron_msm.formats.files import sha256_of_file
from tests.unit.convert.hf_folders import (
    SMALL_FILES,
    Sizes,
    config_of,
    tensors_of,
    write_hf_folder,
)


def load_folder(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def assert_same_tensors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if not same_bits(found[name], wanted[name])]
    assert not different


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (3, 1)], ids=["gqa", "mha", "mqa"])
def test_round_trip_keeps_every_bit(
    tmp_path: Path, dtype: torch.dtype, tied: bool, heads: int, groups: int
) -> None:
    sizes = Sizes(heads=heads, groups=groups, tied=tied, dtype=dtype)
    tensors = write_hf_folder(tmp_path / "hf", sizes)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert_same_tensors(load_folder(tmp_path / "back"), tensors)
    # Laid out as the safetensors library does it, so even the file is the same.
    files = [tmp_path / folder / "model.safetensors" for folder in ("hf", "back")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_special_values_keep_their_bits(tmp_path: Path) -> None:
    tensors = tensors_of(Sizes(dtype=torch.float32))
    payload_nan = torch.tensor([0x7FC00123], dtype=torch.int32).view(torch.float32)
    for tensor in tensors.values():
        values = torch.tensor([float("inf"), -0.0, 1e-42])
        tensor.view(-1)[:4] = torch.cat([values, payload_nan])
    write_hf_folder(tmp_path / "hf", Sizes(dtype=torch.float32), tensors=tensors)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert_same_tensors(load_folder(tmp_path / "back"), tensors)


def test_mixed_dtypes_inside_a_fused_tensor_come_back(tmp_path: Path) -> None:
    tensors = tensors_of(Sizes())
    for name in ("self_attn.k_proj", "mlp.up_proj", "input_layernorm"):
        key = f"model.layers.0.{name}.weight"
        tensors[key] = tensors[key].float() * 1.001
    write_hf_folder(tmp_path / "hf", tensors=tensors)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert_same_tensors(load_folder(tmp_path / "back"), tensors)


def test_sharded_in_and_sharded_out(tmp_path: Path) -> None:
    tensors = write_hf_folder(tmp_path / "hf", num_shards=3)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    manifest = export_hf(tmp_path / "megatron", tmp_path / "back", max_shard_size="6KB")
    back = tmp_path / "back"
    assert_same_tensors(load_folder(back), tensors)
    index = orjson.loads((back / "model.safetensors.index.json").read_bytes())
    assert list(index["weight_map"]) == list(_names_in_order(tmp_path / "hf"))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    num_files = len(set(index["weight_map"].values()))
    assert num_files > 3
    assert not (back / "model.safetensors").exists()
    for name, file in index["weight_map"].items():
        assert file.endswith(f"-of-{num_files:05d}.safetensors")
        with safe_open(back / file, framework="pt") as opened:
            assert name in opened.keys()  # noqa: SIM118  not a dict
            assert opened.metadata() == {"format": "pt"}
    assert set(index["weight_map"].values()) < manifest.files.keys()


def _names_in_order(folder: Path) -> list[str]:
    """Return names in the order of shards, and of data inside each."""
    names = []
    for file in sorted(folder.glob("*.safetensors")):
        content = file.read_bytes()
        header = orjson.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        header.pop("__metadata__")
        names += sorted(header, key=lambda name: header[name]["data_offsets"])
    return names


def test_small_files_come_back_byte_for_byte(hf_folder: Path, tmp_path: Path) -> None:
    (hf_folder / "modeling_custom.py").write_text("raise SystemExit")
    (hf_folder / ".gitattributes").write_text("x")
    (hf_folder / "training_args.bin").write_bytes(b"pickle")
    import_hf(hf_folder, tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    for name in [*SMALL_FILES, "config.json", "tokenizer.json"]:
        assert (tmp_path / "back" / name).read_bytes() == (hf_folder / name).read_bytes(), name
    exported = {str(p.relative_to(tmp_path / "back")) for p in (tmp_path / "back").rglob("*.*")}
    assert not exported & {"modeling_custom.py", ".gitattributes", "training_args.bin"}


def test_manifest_and_state_say_where_it_comes_from(
    hf_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    state = read_checkpoint_state(resolve_checkpoint(checkpoint))
    verify_checkpoint_hashes(resolve_checkpoint(checkpoint), state)
    assert (state.iteration, state.phase, state.phase_complete) == (0, "import", True)
    (entry,) = state.lineage
    assert entry.stage == "import"
    assert entry.details["weights_sha256"] == {
        "model.safetensors": sha256_of_file(hf_folder / "model.safetensors")
    }
    manifest = export_hf(checkpoint, tmp_path / "back")
    content = (tmp_path / "back" / EXPORT_FILE).read_bytes()
    assert ExportManifest.model_validate(orjson.loads(content)) == manifest
    assert manifest.checkpoint_identity == state.identity
    assert manifest.lineage == state.lineage
    for name, record in manifest.files.items():
        assert sha256_of_file(tmp_path / "back" / name) == record.sha256
    listed = {str(p.relative_to(tmp_path / "back")) for p in (tmp_path / "back").rglob("*.*")}
    assert listed - manifest.files.keys() == {EXPORT_FILE}


def test_equal_folders_make_equal_checkpoints(tmp_path: Path) -> None:
    identities = set()
    for folder in ("one", "two"):
        write_hf_folder(tmp_path / folder / "hf")
        identities.add(import_hf(tmp_path / folder / "hf", tmp_path / folder / "m").identity)
    write_hf_folder(tmp_path / "three" / "hf", seed=1)
    other = import_hf(tmp_path / "three" / "hf", tmp_path / "three" / "m")
    assert len(identities) == 1
    assert other.identity not in identities


def test_a_tied_head_stored_twice_comes_back(tmp_path: Path) -> None:
    sizes = Sizes(tied=True)
    tensors = tensors_of(sizes)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    write_hf_folder(tmp_path / "hf", sizes, tensors=tensors)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert_same_tensors(load_folder(tmp_path / "back"), tensors)


def test_computed_buffers_are_left_out_and_named(tmp_path: Path) -> None:
    tensors = tensors_of(Sizes())
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    write_hf_folder(tmp_path / "hf", tensors=tensors | {name: torch.ones(4)})
    state = import_hf(tmp_path / "hf", tmp_path / "megatron")
    assert state.lineage[0].details["left_out_buffers"] == [name]
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert_same_tensors(load_folder(tmp_path / "back"), tensors)


def test_dtype_option_converts_weights_and_config(checkpoint: Path, tmp_path: Path) -> None:
    export_hf(checkpoint, tmp_path / "back", dtype="fp32")
    wanted = {name: tensor.float() for name, tensor in tensors_of(Sizes()).items()}
    assert_same_tensors(load_folder(tmp_path / "back"), wanted)
    config = orjson.loads((tmp_path / "back" / "config.json").read_bytes())
    assert config["torch_dtype"] == "float32"


@pytest.mark.parametrize("num_files", [1, 2])
def test_bin_weights(tmp_path: Path, num_files: int) -> None:
    tensors = write_hf_folder(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").unlink()
    names = list(tensors)
    if num_files == 1:
        torch.save(tensors, tmp_path / "hf" / "pytorch_model.bin")
    else:
        weight_map = {name: f"pytorch_model-{i % 2}.bin" for i, name in enumerate(names)}
        for file in set(weight_map.values()):
            chosen = {name: tensors[name] for name in names if weight_map[name] == file}
            torch.save(chosen, tmp_path / "hf" / file)
        index = {"weight_map": weight_map}
        (tmp_path / "hf" / "pytorch_model.bin.index.json").write_bytes(orjson.dumps(index))
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert_same_tensors(load_folder(tmp_path / "back"), tensors)


def test_hub_cache_snapshot_of_links(tmp_path: Path) -> None:
    tensors = write_hf_folder(tmp_path / "plain")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in [p for p in (tmp_path / "plain").iterdir() if p.is_file()]:
        shutil.copy(file, blobs / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob-{file.name}")
    import_hf(snapshot, tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert_same_tensors(load_folder(tmp_path / "back"), tensors)
    assert not (tmp_path / "back" / "config.json").is_symlink()


def test_exported_folder_can_be_imported_again(checkpoint: Path, tmp_path: Path) -> None:
    export_hf(checkpoint, tmp_path / "back")
    import_hf(tmp_path / "back", tmp_path / "again")
    hf = resolve_checkpoint(tmp_path / "again") / HF_FOLDER
    assert (hf / "tensors.json").exists()
    assert not (hf / EXPORT_FILE).exists()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_export_loads_in_transformers_and_generates(tmp_path: Path, tied: bool) -> None:
    transformers: Any = pytest.importorskip("transformers")
    write_hf_folder(tmp_path / "hf", Sizes(tied=tied), num_shards=2)
    import_hf(tmp_path / "hf", tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    outputs = []
    for folder in (tmp_path / "hf", tmp_path / "back"):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        inputs = tokenizer("w3 w4 w5", return_tensors="pt")
        prompt = inputs["input_ids"]
        outputs.append(model.generate(prompt, do_sample=False, max_new_tokens=4, min_new_tokens=4))
    assert outputs[0].shape == (1, 7)
    assert torch.equal(outputs[0], outputs[1])


def test_unrelated_safetensors_are_not_read(hf_folder: Path, tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, hf_folder / "adapter_model.safetensors")
    import_hf(hf_folder, tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    assert "x" not in load_folder(tmp_path / "back")


def test_an_import_says_and_records_what_transformers_4_would_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_hf_folder(tmp_path / "hf")
    config = config_of(Sizes())
    del config["rope_theta"]
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    (tmp_path / "hf" / "config.json").write_bytes(orjson.dumps(config))
    state = import_hf(tmp_path / "hf", tmp_path / "megatron")
    remarks = state.lineage[0].details["remarks"]
    assert isinstance(remarks, list)
    (remark,) = map(str, remarks)
    assert remark.endswith("transformers 4 reads theta 10000, not stretched")
    assert remark in caplog.text
